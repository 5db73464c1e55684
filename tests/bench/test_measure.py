"""One row: what becomes of those who are wrong, fail, refuse, or take the GPU with them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fake_gpu import FakeTorch
from made_peers import Made, MadeLayer

from bench import data, measure
from bench.calls import memory, timing
from bench.cases import Case
from bench.limits import roofline
from bench.limits.roofline import Peaks
from fastrnn.plans import DEVICES

SMALL = {"inputs": 5, "hidden": 9, "batch": 3, "steps": 4}
INFER = Case("gru", train=False, **SMALL)
TRAIN = Case("gru", **SMALL)
PEAKS = {name: Peaks(1e12, 1e11, None, 0) for name in ("float32", "tf32")}


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch):
    monkeypatch.setattr(memory, "cpu_peak", lambda name, case: {"peak_reason": "not here"})


def on_cpu(peers, case=INFER):
    row = measure.frame(case, "cpu", PEAKS)
    measure.measure(row, case, "cpu", peers, {"far": "not here"}, 0.001)
    return row


def on_gpu(peers, case=INFER):
    row = measure.frame(case, "cuda", PEAKS)
    measure.measure(row, case, "cuda", peers, {}, 0.001)
    return row


@pytest.fixture
def torch(monkeypatch):
    """A made-up PyTorch with a made-up GPU."""
    fake = FakeTorch()
    monkeypatch.setitem(sys.modules, "torch", fake)
    monkeypatch.setattr(MadeLayer, "torch", fake)

    def peak(build, in_pool):
        build().close()
        fake.seen.append("peak")
        return {"peak_mib": 1.0}

    monkeypatch.setattr(memory, "gpu_peak", peak)
    monkeypatch.setattr(measure, "reference", lambda case, d, device: data.expected(case, d))
    monkeypatch.setattr(roofline, "device_facts", lambda: None)
    return fake


def breaks(error=None, after=0):
    calls = []

    def run(number):
        calls.append(number)
        if len(calls) > after:
            raise error or ZeroDivisionError("by\nzero")

    return run


def test_a_wrong_result_is_not_timed():
    everyone = [Made(), Made("liar", wrong=1), Made("other", refuses="no such layer")]
    row = on_cpu(everyone)
    entries = row["peers"]
    assert entries["made"]["status"] == "ok"
    assert entries["made"]["seconds"] > 0
    assert entries["made"]["peak_reason"] == "not here"
    assert entries["liar"]["status"] == "wrong"
    assert entries["liar"]["reason"].startswith("output: ")
    assert set(entries["liar"]) == {"status", "reason"}
    assert entries["other"] == {"status": "unsupported", "reason": "no such layer"}
    assert entries["far"] == {"status": "missing", "reason": "not here"}
    assert row["failures"] == []
    assert everyone[0].closed == everyone[1].closed == 1


def test_a_wrong_result_is_not_timed_on_a_gpu(torch):
    row = on_gpu([Made(), Made("liar", wrong=1)], TRAIN)
    assert row["peers"]["made"]["graph_seconds"] > 0
    assert set(row["peers"]["liar"]) == {"status", "reason"}


def test_a_replayed_graph_whose_result_is_wrong_has_no_time(torch, monkeypatch):
    captured, run = torch.CUDAGraph, MadeLayer.run

    def does_nothing():
        graph = captured()
        graph.replay = lambda: None
        return graph

    def forgets_when_captured(self, number):
        run(self, number)
        if self.torch.capturing is not None:  # a captured call writes nothing
            self.found = {name: array * 0 for name, array in self.found.items()}

    monkeypatch.setattr(torch, "CUDAGraph", does_nothing)
    monkeypatch.setattr(MadeLayer, "run", forgets_when_captured)
    row = on_gpu([Made(mandatory=True)], TRAIN)
    assert row["peers"]["made"]["status"] == "wrong"
    assert row["peers"]["made"]["reason"].startswith("a replayed graph: output")
    assert "seconds" not in row["peers"]["made"]
    assert row["failures"]


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


@pytest.mark.parametrize("after", [0, 3])
def test_an_error_that_the_gpu_does_not_outlive_ends_the_row(torch, after):
    def dies(number):
        if after == dies.calls:
            torch.dies_of = "CUDA error: an illegal memory access"
            raise RuntimeError("launch failed")
        dies.calls += 1

    dies.calls = 0
    row = on_gpu([Made("first", mandatory=True), Made("bad", run=dies), Made("last")])
    assert row["dead"].startswith("RuntimeError: launch failed; the GPU then says")
    assert "illegal memory access" in row["dead"]
    bad = row["peers"].pop("bad")
    assert bad == {"status": "failed", "reason": "RuntimeError: launch failed"}
    assert row["failures"][-1] == f"the GPU: {row['dead']}"
    if after == 0:
        reason = "the GPU's context was gone before its turn"
        gone = {"status": "failed", "reason": reason}
        assert row["peers"] == {"first": gone, "last": gone}
        assert row["failures"][0] == f"first: failed: {reason}"


def test_each_timed_call_and_replay_comes_after_an_eviction(torch):
    row = on_gpu([Made(), Made("other")], TRAIN)
    assert row["evicted"] == timing.EVICTED_CACHES * 1024
    seen, allocated = torch.seen, f"{row['evicted']} bytes"
    # No peer's peak includes the memory of the evictions.
    assert seen[:3] == ["peak", "peak", allocated]
    assert seen.count(allocated) == 1
    call = ["evict", "record", "wait", "record", "record", "wait"]
    calls = 2 * (2 + row["peers"]["made"]["rounds"])
    assert seen[3 : 3 + 6 * calls] == call * calls
    queued = ["evict", "record", "record"]
    rest = seen[3 + 6 * calls :]
    two = [*queued * 2, "wait"]
    while rest[: 2 * len(two)] == two * 2:  # replays that warm the GPU up
        rest = rest[len(two) :]
    rest = rest[len(two) :]
    empty = 1 + timing.BATCH
    assert rest[: 3 * empty + 1] == queued * empty + ["wait"]
    assert rest[-4:] == [*queued, "wait"]
    for entry in row["peers"].values():
        assert entry["graph_empty"] == 1e-3  # as the stand-in's events have it
        assert entry["graph_seconds"] == timing.RESOLUTION
        assert entry["graphs"] == row["input_sets"] == 2


@pytest.mark.parametrize("refuses", [True, False])
def test_a_call_that_cannot_be_captured_has_the_time_of_calls(torch, refuses):
    def run(number):
        if torch.capturing is not None:
            raise RuntimeError("operation not permitted when stream is capturing")

    peer = Made(run=run if refuses else lambda number: None)
    peer.uncapturable = None if refuses else "it copies: not permitted"
    entry = on_gpu([peer], TRAIN)["peers"]["made"]
    assert entry["status"] == "ok"
    assert entry["seconds"] > 0
    assert "not permitted" in entry["graph_reason"]
    assert "graph_seconds" not in entry
    assert not torch.alive  # no graph outlives its capture


def test_graphs_are_deleted_before_the_next_ones(torch):
    on_gpu([Made(), Made("b")], TRAIN)
    assert torch.most_alive == 2
    assert not torch.alive


def test_the_limit_of_a_cold_and_of_a_warm_row(torch):
    slow = {"float32": Peaks(1e30, 1.0, None, 1 << 8)}
    cold = measure.frame(TRAIN, "cuda", slow)
    assert cold["limit"] == roofline.cold_bytes(TRAIN, 1 << 8)
    assert measure.frame(TRAIN, "cpu", slow)["limit"] == roofline.warm_bytes(TRAIN, 2, 1 << 8)
    text = replace(INFER, steps=1, task="lm generation")
    row = measure.frame(text, "cuda", slow)
    assert row["warm"]
    assert "evicted" not in row
    assert row["limit"] == roofline.warm_bytes(text, 1, 1 << 8) > 0


def test_a_row_whose_steps_bound_it(torch, monkeypatch):
    pytest.importorskip("fastrnn._C", reason="installed without the native library")
    monkeypatch.setattr(roofline, "device_facts", lambda: DEVICES["H100"])
    row = measure.frame(TRAIN, "cuda", PEAKS)
    assert row["bound"] == "steps"
    assert row["limit"] > row["any_limit"] > 0


@pytest.mark.parametrize("failing", ["reference", "evictions"])
def test_where_nothing_can_be_measured_that_is_the_row_s_failure(
    torch, monkeypatch, capsys, failing
):
    def fails(*_, **__):
        raise MemoryError("all of it\nand more")

    if failing == "reference":
        monkeypatch.setattr(measure, "reference", fails)
    else:
        monkeypatch.setattr(torch, "zeros", fails)
    made = Made(mandatory=True)
    row = on_gpu([made])
    reason = "nothing can be measured: MemoryError: all of it"
    assert row["peers"] == {"made": {"status": "failed", "reason": reason}}
    assert row["failures"] == [f"made: failed: {reason}"]
    assert made.closed == made.built
    assert "Traceback" in capsys.readouterr().err


def test_a_core_is_busy_while_calls_are_timed(monkeypatch):
    def children():
        of_task = Path("/proc/self/task").glob("*/children")
        return {pid for file in of_task for pid in file.read_text().split()}

    def time_calls(*_):
        seen.append(children())
        return timing.Timed({}, {})

    seen = [children()]
    monkeypatch.setattr(timing, "time_calls", time_calls)
    on_cpu([Made("fastrnn")], replace(INFER, neighbour="pinned"))
    on_cpu([Made("fastrnn")])
    before, beside, alone = seen
    (spinning,) = beside - before
    assert spinning not in alone
