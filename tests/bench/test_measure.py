"""One row: what becomes of those who are wrong, fail, refuse, or take the GPU with them."""

from __future__ import annotations

import gc
import sys
import weakref
from dataclasses import asdict, replace

import pytest
import sources  # noqa: F401
from fake_gpu import FakeTorch
from made_peers import Made, MadeLayer

from bench import data, gpu_memory, limits, measure, timing
from bench.cases import Case
from bench.limits import Peaks
from bench.peers import cudnn
from fastrnn.plans import DEVICES

SMALL = {"inputs": 5, "hidden": 9, "batch": 3, "steps": 4}
PEAKS = {name: Peaks(1e12, 1e11, None, 0) for name in ("float32", "tf32")}


def on_cpu(peers, case=None, **options):
    case = case or Case("gru", train=False, **SMALL)
    return measure.measure(case, "cpu", peers, {"far": "not here"}, PEAKS, budget=0.001, **options)


@pytest.fixture
def torch(monkeypatch):
    """A PyTorch with a GPU, both of which are none."""
    fake = FakeTorch()
    monkeypatch.setitem(sys.modules, "torch", fake)
    monkeypatch.setattr(MadeLayer, "torch", fake)

    def peak(before, in_pool):
        fake.seen.append("peak")
        return {"peak_mib": 1.0}

    monkeypatch.setattr(gpu_memory, "start", lambda: None)
    monkeypatch.setattr(gpu_memory, "peak", peak)
    monkeypatch.setattr(data, "pytorch", lambda: None)
    monkeypatch.setattr(measure, "reference", lambda case, d, device: data.expected(case, d))
    monkeypatch.setattr(measure, "facts_of", lambda device: None)
    return fake


def on_gpu(peers, case=None, **options):
    case = case or Case("gru", train=False, **SMALL)
    return measure.measure(case, "cuda", peers, {}, PEAKS, budget=0.001, **options)


BROKEN = ZeroDivisionError("by\nzero")


def breaks(error=BROKEN, after=0):
    calls = []

    def run(number):
        calls.append(number)
        if len(calls) > after:
            raise error

    return run


def test_who_is_wrong_is_not_timed():
    everyone = [Made(), Made("liar", wrong=1), Made("other", refuses="no such layer")]
    row = on_cpu(everyone)
    entries = row["peers"]
    assert entries["made"]["status"] == "ok"
    assert entries["made"]["seconds"] > 0
    assert entries["liar"]["status"] == "wrong"
    assert entries["liar"]["reason"].startswith("output: ")
    assert "seconds" not in entries["liar"]
    assert entries["other"] == {"status": "unsupported", "reason": "no such layer"}
    assert entries["far"] == {"status": "missing", "reason": "not here"}
    assert row["failures"] == []
    assert everyone[0].closed == everyone[1].closed == 1


@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("on", [on_cpu, on_gpu])
def test_an_error_of_one_is_not_the_others(on, after, torch, capsys):
    row = on([Made("bad", run=breaks(after=after)), Made()])
    assert row["peers"]["bad"] == {"status": "failed", "reason": "ZeroDivisionError: by"}
    assert row["peers"]["made"]["seconds"] > 0
    assert row["failures"] == []
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, said",
    [
        ({"wrong": 1}, "made: wrong: output: "),
        ({"refuses": "no such layer"}, "made: unsupported: no such layer"),
        ({"run": breaks()}, "made: failed: ZeroDivisionError: by"),
        ({"run": breaks(NotImplementedError("not today"))}, "made: unsupported: not today"),
    ],
)
def test_a_mandatory_one_that_has_no_time_fails_the_row(options, said):
    row = on_cpu([Made(mandatory=True, **options), Made("other")])
    (failure,) = row["failures"]
    assert failure.startswith(said)
    assert row["peers"]["other"]["seconds"] > 0


def test_of_a_group_one_is_enough():
    two = [
        Made("a", refuses="not that", mandatory=True, group="both"),
        Made("b", mandatory=True, group="both"),
    ]
    assert on_cpu(two)["failures"] == []
    two[1].wrong = 1
    (failure,) = on_cpu(two)["failures"]
    assert failure.startswith("both: a: unsupported: not that; b: wrong: output")


class FakeAlgorithm(cudnn.Cudnn):
    """An algorithm of the stand-in of cuDNN."""

    def __init__(self, fake, algorithm="STANDARD", packed=False):
        super().__init__(algorithm, packed)
        self.fake = fake

    def build(self, case, values, device):
        options = (self.algorithm, self.packed, case, values, self.fake.library)
        return cudnn.BaselineLayer(self.fake.memory, *options)


def test_cudnn_takes_part_with_lengths(fake, torch):
    row = on_gpu([FakeAlgorithm(fake)], Case("lstm", ragged=True, **SMALL))
    assert row["failures"] == []


@pytest.mark.parametrize("train", [True, False])
def test_cudnn_takes_part(fake, torch, train):
    both = [FakeAlgorithm(fake), FakeAlgorithm(fake, packed=True)]
    row = on_gpu([*both, Made()], Case("gru", layers=2, train=train, **SMALL))
    assert row["failures"] == []
    for name in ("cuDNN STANDARD", "cuDNN STANDARD packed"):
        assert row["peers"][name]["status"] == "ok"
        assert row["peers"][name]["seconds"] > 0
    assert {made.layout for made in fake.passes} == {0, 1}


PASSES = ["cudnnRNNForward", "cudnnRNNBackwardData_v8", "cudnnRNNBackwardWeights_v8"]


@pytest.mark.parametrize("refusing", ["cudnnSetRNNDescriptor_v8", *PASSES])
def test_a_refusal_of_cudnn_is_no_failure_but_of_all_its_algorithms(fake, torch, refusing):
    case = Case("gru", **SMALL)
    fake.fail(refusing, 9 if fake.library.major == 8 else 3000)
    everyone = [FakeAlgorithm(fake), FakeAlgorithm(fake, "PERSIST_STATIC"), Made()]
    row = on_gpu(everyone, case)
    entry = row["peers"]["cuDNN PERSIST_STATIC"]
    assert entry["status"] == "unsupported"
    assert entry["reason"].startswith(refusing)
    assert row["peers"]["made"]["seconds"] > 0
    (failure,) = row["failures"]
    assert failure.startswith(f"cuDNN: cuDNN STANDARD: unsupported: {refusing}")


def test_one_algorithm_that_refuses_is_enough_of_cudnn(fake, torch):
    case = Case("gru", ragged=True, **SMALL)
    everyone = [FakeAlgorithm(fake), FakeAlgorithm(fake, "PERSIST_STATIC_SMALL_H")]
    row = on_gpu(everyone, case)
    entry = row["peers"]["cuDNN PERSIST_STATIC_SMALL_H"]
    assert entry["status"] == "unsupported"
    assert entry["reason"].startswith("cudnnRNNForward")
    assert row["failures"] == []


@pytest.mark.parametrize("failing", PASSES)
def test_an_error_of_cudnn_is_a_failure(fake, torch, failing):
    fake.fail(failing, 4)
    row = on_gpu([FakeAlgorithm(fake), Made()], Case("gru", **SMALL))
    assert row["peers"]["cuDNN STANDARD"]["status"] == "failed"
    assert failing in row["peers"]["cuDNN STANDARD"]["reason"]
    assert row["failures"]


def test_calls_on_a_gpu_rotate_through_two_input_sets_and_are_warmed_up(torch):
    numbers = {"made": [], "eager": []}
    everyone = [Made(name, run=seen.append) for name, seen in numbers.items()]
    row = on_gpu(everyone, Case("gru", **SMALL))
    assert row["input_sets"] == 2
    assert on_gpu([Made()], Case("gru", train=False, **{**SMALL, "inputs": 1}))["input_sets"] == 2
    built = [0, 0]  # and once for the peak
    rounds = row["peers"]["made"]["rounds"]
    for name, seen in numbers.items():
        turns = [k % 2 for k in range(1 + rounds)]
        assert seen[: 4 + 1 + rounds] == [*built, 0, 1, *turns], name


@pytest.mark.parametrize("after", [0, 3])
def test_an_error_that_the_gpu_does_not_outlive_ends_the_row(torch, after):
    def dies(number):
        if after == dies.calls:
            torch.dies_of = "CUDA error: an illegal memory access"
            raise RuntimeError("launch failed")
        dies.calls += 1

    dies.calls = 0
    everyone = [Made("first", mandatory=True), Made("bad", run=dies), Made("last")]
    row = on_gpu(everyone)
    assert row["dead"].startswith("RuntimeError: launch failed; the GPU then says")
    assert "illegal memory access" in row["dead"]
    bad = row["peers"].pop("bad")
    assert bad == {"status": "failed", "reason": "RuntimeError: launch failed"}
    assert row["failures"][-1] == f"the GPU: {row['dead']}"
    assert everyone[0].closed == 1  # of the layer that was built for its peak
    if after == 0:
        reason = "the GPU's context was gone before its turn"
        gone = {"status": "failed", "reason": reason}
        assert row["peers"] == {"first": gone, "last": gone}
        assert row["failures"][0] == f"first: failed: {reason}"


def test_times_outlive_the_gpu(torch):
    def dies(number):
        if torch.capturing is not None:
            torch.dies_of = "CUDA error: an illegal memory access"
            raise RuntimeError("launch failed")

    row = on_gpu([Made("first", mandatory=True), Made("bad", run=dies), Made("last")])
    assert row["peers"]["first"]["graph_seconds"] > 0
    assert row["peers"]["bad"]["reason"].startswith("RuntimeError: CUDA error")
    assert row["peers"]["last"]["seconds"] > 0
    assert len(row["failures"]) == 1


def test_graphs_are_timed_on_their_own(torch):
    no = Made("no")
    plain = Made()
    plain_build = no.build

    def build(*arguments):
        layer = plain_build(*arguments)
        layer.uncapturable = "it copies"
        return layer

    no.build = build
    row = on_gpu([plain, no], Case("gru", **SMALL))
    entry = row["peers"]["made"]
    assert entry["graph_seconds"] > 0
    assert entry["graph_rounds"] >= 3
    assert entry["graphs"] == 2
    assert row["peers"]["no"]["graph_reason"] == "it copies"
    assert "graph_seconds" not in row["peers"]["no"]


def test_who_failed_keeps_nothing_of_its_row(torch, monkeypatch):
    monkeypatch.undo()  # of gpu_memory, too
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(gpu_memory, "_pool", lambda set_back: gpu_memory.Pool(0, 0))
    monkeypatch.setattr(data, "pytorch", lambda: None)
    monkeypatch.setattr(measure, "reference", lambda case, d, device: data.expected(case, d))
    alive = weakref.WeakSet()

    class Watched(Made):
        def build(self, case, values, device):
            alive.add(layer := super().build(case, values, device))
            return layer

    calls = []

    def fails(number):
        calls.append(number)
        if len(calls) == 6:  # built twice, and warmed up: this is a timed call
            raise RuntimeError("broke")

    everyone = [Watched(run=fails), Watched("other")]
    gc.disable()
    try:
        row = on_gpu(everyone, Case("gru", **SMALL))
        assert row["peers"]["made"]["status"] == "failed"
        assert alive
        gpu_memory.start()
        assert not alive
    finally:
        gc.enable()


def test_the_time_for_a_row_is_shared_out(torch, monkeypatch):
    budgets = {}

    def watch(name):
        timed = getattr(timing, name)

        def call(calls, sets, budget, *others):
            budgets.setdefault(name, []).append(budget)
            return timed(calls, sets, 0.001, *others)

        monkeypatch.setattr(timing, name, call)

    watch("time_on_gpu")
    watch("time_replays")
    everyone = [Made("a"), Made("b"), Made("c", wrong=1), Made("d")]
    measure.measure(Case("gru", **SMALL), "cuda", everyone, {}, PEAKS, budget=4.0)
    assert budgets["time_on_gpu"] == [pytest.approx(4.0 * (1 - measure.GRAPHS_SHARE))]
    # Three have a graph.
    assert budgets["time_replays"] == [pytest.approx(4.0 * measure.GRAPHS_SHARE / 3)] * 3
    assert 0 < measure.GRAPHS_SHARE < 1


def test_graphs_are_deleted_before_the_next_one_s_and_as_many_as_memory_allows(torch, monkeypatch):
    made, log = torch.CUDAGraph, []

    def watched():
        graph = made()
        log.append("made")
        graph.reset = lambda: log.append("reset")
        return graph

    monkeypatch.setattr(torch, "CUDAGraph", watched)
    case = Case("gru", **SMALL)
    assert {e["graphs"] for e in on_gpu([Made(), Made("b")], case)["peers"].values()} == {2}
    assert log == ["made", "made", "reset", "reset"] * 2
    log.clear()
    monkeypatch.setattr(torch, "mem_get_info", lambda: (3 << 20, 1 << 31))  # each takes 1 MiB
    assert on_gpu([Made()], case)["peers"]["made"]["graphs"] == 1
    assert log == ["made", "reset"]
    log.clear()

    def fails(*_):
        raise RuntimeError("broke")

    monkeypatch.setattr(timing, "time_replays", fails)
    assert on_gpu([Made()], case)["peers"]["made"]["status"] == "failed"
    assert log == ["made", "reset"]


def test_each_timed_call_and_replay_comes_after_an_eviction(torch):
    row = on_gpu([Made(), Made("other")], Case("gru", **SMALL))
    cache = torch.get_device_properties(0).L2_cache_size
    assert row["evicted"] == timing.eviction_bytes(cache)
    seen = torch.seen
    allocated = f"{row['evicted']} bytes"
    # Nobody's peak has the memory of the evictions, which are all of it.
    assert seen[:3] == ["peak", "peak", allocated]
    assert seen.count(allocated) == 1
    warm_ups = ["record", "wait"] * 2
    assert seen[3:7] == warm_ups
    call = ["evict", "record", "wait", "record", "record", "wait"]
    calls = 2 * (1 + row["peers"]["made"]["rounds"])
    assert seen[7 : 7 + 6 * calls] == call * calls
    queued = ["evict", "record", "record"]
    empty = 1 + timing.BATCH
    rest = seen[7 + 6 * calls :]
    two = [*queued * 2, "wait"]
    while rest[: 2 * len(two)] == two * 2:  # replays that warm the GPU up
        rest = rest[len(two) :]
    rest = rest[len(two) :]
    assert rest[: 3 * empty + 1] == queued * empty + ["wait"]
    assert "wait" not in rest[-3:-1]
    assert rest[-4:] == [*queued, "wait"]
    for entry in row["peers"].values():
        assert entry["graph_empty"] == 1e-3  # as the stand-in's events have it
        assert entry["graph_seconds"] == timing.RESOLUTION
    assert "evicted" not in on_cpu([Made()])


def test_the_limit_on_a_gpu_is_that_of_a_cold_call(torch):
    case, slow = Case("gru", **SMALL), {"float32": Peaks(1e30, 1.0, None, 1 << 10)}
    assert measure.frame(case, "cuda", slow)["limit"] == limits.cold_bytes(case, 1 << 10)
    assert measure.frame(case, "cpu", slow)["limit"] == limits.least_bytes(case, 2, 1 << 10)


def test_the_limit_on_a_gpu_is_the_floor_of_fastrnns_plans(torch, monkeypatch):
    pytest.importorskip("fastrnn._C", reason="installed without the native library")
    monkeypatch.setattr(measure, "facts_of", {"cuda": DEVICES["H100"], "cpu": None}.get)
    case = Case("gru", **SMALL)
    row = measure.frame(case, "cuda", PEAKS)
    assert row["bound"] == "steps"
    assert row["limit"] > row["any_limit"] > 0
    assert "any_limit" not in measure.frame(case, "cpu", PEAKS)


def test_text_generation_on_a_gpu_is_warm_and_so_is_its_limit(torch, monkeypatch):
    case = Case("gru", train=False, task="lm generation", **{**SMALL, "steps": 1})
    slow = {"float32": Peaks(1e30, 1.0, None, 1 << 8)}
    row = measure.frame(case, "cuda", slow)
    assert row["warm"]
    assert "evicted" not in row
    assert row["limit"] == limits.least_bytes(case, 1, 1 << 8) > 0
    training = measure.frame(replace(case, train=True, task="lm training"), "cuda", slow)
    assert "evicted" in training
    assert "warm" not in training
    assert "warm" not in measure.frame(case, "cpu", slow)

    def build(name, case, values, device):
        return plain.build(replace(case, task="layer"), data.draw(case), device)

    plain = Made()
    monkeypatch.setattr(measure.language_model, "build", build)
    values = data.draw(case)
    monkeypatch.setattr(
        measure.language_model, "expected", lambda case, text: data.expected(case, values)
    )
    entry = on_gpu([plain], case)["peers"]["made"]
    assert entry["seconds"] > 0
    assert "evict" not in torch.seen


def test_where_nothing_can_be_timed_that_is_the_row_s_failure(torch, monkeypatch, capsys):
    def no_memory(*_, **__):
        raise MemoryError("all of it\nand more")

    monkeypatch.setattr(torch, "zeros", no_memory)
    everyone = [Made(mandatory=True), Made("liar", wrong=1)]
    row = on_gpu(everyone)
    reason = "it cannot be timed: MemoryError: all of it"
    assert row["peers"]["made"] == {"status": "failed", "reason": reason}
    assert row["peers"]["liar"]["status"] == "wrong"
    assert row["failures"] == [f"made: failed: {reason}"]
    assert everyone[0].closed == everyone[0].built
    assert "Traceback" in capsys.readouterr().err

    def dies(*_, **__):
        torch.dies_of = "CUDA error: an illegal memory access"
        raise RuntimeError("launch failed")

    monkeypatch.setattr(torch, "zeros", dies)
    assert "illegal memory access" in on_gpu([Made()])["dead"]


@pytest.mark.parametrize("task", ["layer", "lm generation"])
def test_without_a_reference_nobody_is_measured(monkeypatch, capsys, task):
    def fails(*_):
        raise MemoryError("all of it")

    monkeypatch.setattr(measure, "reference", fails)
    monkeypatch.setattr(measure.language_model, "expected", fails)
    made = Made(mandatory=True)
    row = on_cpu([made, Made("other")], Case("gru", train=False, **SMALL, task=task))
    reason = "there is no reference: MemoryError: all of it"
    failed = {"status": "failed", "reason": reason}
    missing = {"status": "missing", "reason": "not here"}
    assert row["peers"] == {"made": failed, "other": failed, "far": missing}
    assert row["failures"] == [f"made: failed: {reason}"]
    assert made.built == 0
    assert "Traceback" in capsys.readouterr().err


def test_a_reference_that_the_gpu_does_not_outlive(torch, monkeypatch):
    def dies(*_):
        torch.dies_of = "CUDA error: an illegal memory access"
        raise RuntimeError("launch failed")

    monkeypatch.setattr(measure, "reference", dies)
    row = on_gpu([Made(mandatory=True)])
    assert "illegal memory access" in row["dead"]
    assert row["peers"]["made"]["reason"] == "the GPU's context was gone before its turn"


def test_a_graph_that_computes_something_else_is_wrong(torch, monkeypatch):
    captured = torch.CUDAGraph

    def does_nothing():
        graph = captured()
        graph.replay = lambda: None
        return graph

    monkeypatch.setattr(torch, "CUDAGraph", does_nothing)
    monkeypatch.setattr(MadeLayer, "run", _forgets_when_captured(MadeLayer.run))
    row = on_gpu([Made(mandatory=True)], Case("gru", **SMALL))
    assert row["peers"]["made"]["status"] == "wrong"
    assert row["peers"]["made"]["reason"].startswith("a replayed graph: output")
    assert row["failures"]


def _forgets_when_captured(run):
    """As on a GPU, where a captured call has written nothing."""

    def captured(self, number):
        run(self, number)
        if self.torch.capturing is not None:
            self.found = {name: array * 0 for name, array in self.found.items()}

    return captured


def test_a_replay_that_fails_is_a_failure(torch, monkeypatch):
    captured = torch.CUDAGraph

    def breaks_later():
        graph, replay = captured(), breaks(RuntimeError("broke"), after=1)
        work = graph.replay
        graph.replay = lambda: (replay(0), work())
        return graph

    monkeypatch.setattr(torch, "CUDAGraph", breaks_later)
    entry = on_gpu([Made()])["peers"]["made"]
    assert entry == {"status": "failed", "reason": "RuntimeError: broke"}


def test_a_capture_that_fails_leaves_the_time_of_calls(torch):
    def refuses(number):
        if torch.capturing is not None:
            raise RuntimeError("operation not permitted when stream is capturing")

    row = on_gpu([Made(run=refuses)], Case("gru", **SMALL))
    entry = row["peers"]["made"]
    assert entry["status"] == "ok"
    assert entry["seconds"] > 0
    assert "not permitted" in entry["graph_reason"]


def test_a_refusal_at_the_least_width_is_remembered():
    case = Case("gru", layers=1, inputs=5, hidden=256, batch=2, steps=2, train=False)
    narrow = replace(case, hidden=128)
    refused = {"status": "unsupported", "reason": "not on this GPU"}
    earlier = [{"case": narrow.name, "sizes": asdict(narrow), "peers": {"made": refused}}]
    made, other = Made(), Made("other")
    row = on_cpu([made, other], case, earlier=earlier)
    assert row["peers"]["made"]["reason"] == "refused at H=128: not on this GPU"
    assert made.built == 0
    assert other.built == 1
    for another in (narrow, replace(case, batch=3), replace(case, cell="lstm")):
        assert measure.refused_before(earlier, another, "made") is None
    wide = replace(case, inputs=256)
    earlier[0]["sizes"] = asdict(replace(wide, hidden=128, inputs=128))
    assert measure.refused_before(earlier, wide, "made")
    earlier[0]["peers"]["made"] = {"status": "failed", "reason": "?"}
    assert measure.refused_before(earlier, wide, "made") is None


def test_the_peak_is_of_a_second_layer_with_one_input_set(torch):
    seen = []

    class Watched(Made):
        def build(self, case, values, device):
            seen.append((len(values.xs), len(values.d_outputs)))
            return super().build(case, values, device)

    peer = Watched()
    row = on_gpu([peer], Case("gru", **SMALL))
    sets = row["input_sets"]
    assert seen == [(sets, sets), (1, 1)]
    assert peer.closed == 2
    assert row["peers"]["made"]["peak_mib"] == 1.0


def test_memory_of_the_cpu_is_part_of_the_row():
    asked = []

    def memory(peer, case):
        asked.append(peer.name)
        return {"peak_reason": "not here"}

    row = on_cpu([Made(), Made("liar", wrong=1)], memory=memory)
    assert asked == ["made"]
    assert row["peers"]["made"]["peak_reason"] == "not here"
