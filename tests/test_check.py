"""``fastrnn check`` on the CPU, and its verdict; tests/emulator/checked.py has that of a GPU."""

from __future__ import annotations

import json
import os
import random
import re
import time
from dataclasses import asdict
from functools import partial
from types import SimpleNamespace

import numpy as np
import processor
import pytest

pytest.importorskip("fastrnn._C", reason="installed without the native library")

import fastrnn
from fastrnn import _native, cli, kernels, plans
from fastrnn.check import cells, classes, command, problems, processes, threads, verdict
from fastrnn.check.classes import Sizes
from fastrnn.check.kernels import Effort
from fastrnn.check.kinds import CAPABILITY, CPU, MATHS, Kind, maths_of, optional_kinds, plain_kinds
from fastrnn.check.problems import Shape
from fastrnn.check.timing import Timed
from fastrnn.check.verdict import FAILED, PASSED, UNFINISHED, Time, Verdict
from fastrnn.mxnet import native

KIND = Kind("rnn_tanh", "float32", 1, False)
NAME = "rnn_tanh float32"
OPTIONS = ("projected", "clipped", "noise", "layer_norm")
SMALL = command.Scale(
    300.0,
    0.9,
    Sizes(rows=(3,), hidden=(7, 400), steps=(4,)),
    Effort(steps=4, pairs=1),
    Timed(steps=3, rows=2, hidden=(8,), seconds=0.0, rounds=1),
)
EMPTY = {"format": 1, "identity": {}, "date": "", "classes": {}, "times": {}, "rates": {}}
needs_cpu = pytest.mark.skipif(
    not native.STATUS.usable or native.ON_CUDA, reason="no native operator on the CPU"
)


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(command, "SHORT_CPU", SMALL)
    verdict.forget()
    yield
    verdict.forget()


def run(capsys, *options):
    code = cli.main(["check", "--device", "cpu", *options])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# ---- the command --------------------------------------------------------------------------------


@needs_cpu
def test_the_kernels_of_this_cpu_pass(capsys):
    code, out, err = run(capsys, "--only", NAME, "--json")
    assert (code, err) == (0, "")
    (found,) = json.loads(out)["checks"]
    assert [layer["result"] for layer in found["layers"]] == [PASSED] * 8  # with and without noise
    ways = {c["name"].split(", ", 2)[2] for c in found["layers"][0]["classes"]}
    ours_alone = processor.has("avx2") and not processor.has("avx512f")
    assert len(ways) == (1 if ours_alone else 2)  # our products and oneDNN's
    assert all(len(layer["seconds"]) == 2 for layer in found["layers"])
    of_process = verdict.of_process(CPU).verdict
    assert of_process is not None and of_process.result(KIND) == [PASSED, ""]
    assert "8 passed" in fastrnn.features()["check"][0]
    assert fastrnn.RNN(8, activation="tanh").backend.name == "native"


@needs_cpu
def test_wrong_results_are_reported_and_layers_do_without(capsys, monkeypatch):
    right = kernels.forward

    def wrong(*args, **keywords):
        result = right(*args, **keywords)
        result.h_n[..., -1] += 0.01
        return result

    monkeypatch.setattr(kernels, "forward", wrong)
    monkeypatch.setattr(processes, "isolated", processes.here)
    code, out, err = run(capsys, "--only", NAME)
    assert (code, err) == (1, "")
    assert re.search(r"h_n: 3 of \d+ numbers are wrong, by up to", out)
    assert "Please report it" in out and _native.library().build_info()["version"] in out
    layer = fastrnn.RNN(8, activation="tanh")
    assert layer.backend.name == "gluon"
    assert "`fastrnn check` found wrong results on this" in layer.backend.reason
    assert fastrnn.RNN(8, activation="tanh", backend="native").backend.name == "native"
    assert fastrnn.LSTM(8).backend.name == "native"


@needs_cpu
def test_layers_with_options_are_checked_where_asked_for(capsys):
    code, out, _ = run(capsys, "--only", "lstm float32, 2 directions, lengths", "--json")
    assert code == 0
    (found,) = json.loads(out)["checks"]
    kinds = [{name for name in OPTIONS if layer[name]} for layer in found["layers"]]
    noisy = [{"projected", "noise"}, {"clipped", "noise"}, {"projected", "clipped", "noise"}]
    assert kinds == [set(), *({name} for name in OPTIONS), {"projected", "clipped"}, *noisy]
    assert [layer["result"] for layer in found["layers"]] == [PASSED] * 9
    assert all(len(layer["seconds"]) == 2 for layer in found["layers"])
    assert all(kind.plain for kind in command.kinds_for(CPU, False))
    optional = [kind for kind in command.kinds_for(CPU, True) if not kind.plain]
    # Of each 8 are LSTMs, 2 GRUs and 2 other ones.
    assert len(set(optional)) == len(optional) == 4 * 12 * len(maths_of(CPU))


@needs_cpu
@pytest.mark.parametrize("cell", ["gru", "rnn_tanh", "rnn_relu"])
def test_other_cells_with_options_pass(cell):
    kinds = [kind for kind in optional_kinds(["float32"]) if kind.cell == cell]
    report = command.check(CPU, SMALL, kinds, run=processes.here)
    assert [report.verdict.result(kind) for kind in kinds] == [[PASSED, ""]] * len(kinds)
    assert len(kinds) == (8 if cell == "gru" else 4)


def without(rate):
    return {"noise": problems.RATES._replace(**{rate: 0.0})}


@pytest.mark.parametrize(
    "name, changed",
    [
        ("projected", {}),
        ("clipped", {"clip": None}),
        ("noise", {"noise": None, "seed": None}),
        ("noise", {"seed": None}),
        ("noise", {"seed": 1}),
        ("noise", without("zoneout_outputs")),
        ("noise", without("zoneout_states")),
        ("noise", without("drop_states")),
        ("layer_norm", {}),
    ],
    ids=str,
)
def test_kernels_that_ignore_an_option_are_wrong(monkeypatch, name, changed):
    right = kernels.forward

    def wrong(*args, **keywords):
        if not changed:  # projection's weights, or the shift of a normalised c
            keywords["weights"][-1][...] = 0.0
        return right(*args, **{**keywords, **changed})

    monkeypatch.setattr(kernels, "forward", wrong)
    kind = Kind("lstm", "float32", 1, False)._replace(**{name: True})
    report = command.check(CPU, SMALL, [kind], run=processes.here)
    assert report.failed
    assert "numbers are wrong" in report.verdict.result(kind)[1]
    assert "found wrong results" in report.verdict.obstacle(kind, 64)


@needs_cpu
def test_an_operator_that_ignores_noise_is_wrong(monkeypatch):
    def rates(cell):
        return native_options(cell._replace(noise=kernels.Noise(0.3)))

    native_options = native.options
    monkeypatch.setattr(native, "options", rates)
    kind = KIND._replace(cell="lstm", noise=True)
    report = command.check(CPU, SMALL, [kind], run=processes.here)
    assert "MXNet's operator: output: " in report.verdict.result(kind)[1]


@pytest.mark.parametrize("noise", [False, True], ids=["plain", "noise"])
@pytest.mark.parametrize("projected", [False, True])
def test_no_cell_state_of_a_clipped_layer_is_near_an_end_of_the_range(
    monkeypatch, projected, noise
):
    clipped = cells.clip_cell
    states = []

    def seen(c, clip):
        states.append(c)
        return clipped(c, clip)

    monkeypatch.setattr(cells, "clip_cell", seen)
    problems.problem.cache_clear()
    shape = Shape("lstm", 12, 256, 8, 2, False, projected, True, noise)
    problem = problems.problem(shape)
    found = np.array(states)
    assert (np.abs(np.abs(found) - shape.clip.high) > 0.5).all()
    for end in (found > shape.clip.high, found < shape.clip.low):
        assert end.mean() == 0.25
    if not noise:
        passes = problem.wanted["gradient of c_0"].any(axis=(0, 1))
        assert passes.tolist() == [False, True] * 4


@pytest.mark.parametrize("noise", [False, True], ids=["plain", "noise"])
def test_no_unit_of_a_relu_layer_is_near_zero_before_it(monkeypatch, noise):
    step = problems.ref.cell_forward
    smallest = []

    def seen(mode, x, h, c, w, **options):
        before = x @ w.i2h_weight.T + w.i2h_bias + h @ w.h2h_weight.T + w.h2h_bias
        smallest.append(np.abs(before).min())
        return step(mode, x, h, c, w, **options)

    monkeypatch.setattr(problems.ref, "cell_forward", seen)
    problems.problem.cache_clear()
    problems.problem(Shape("rnn_relu", 12, 256, 64, 2, False, noise=noise))
    assert min(smallest) > 0.5


def test_results_that_change_are_wrong(monkeypatch):
    calls = []
    right = kernels.forward

    def changing(*args, **keywords):
        result = right(*args, **keywords)
        calls.append(result)
        if len(calls) == 3:  # the second one that is compared bit for bit
            result.output[0, 0, 0] = np.nextafter(result.output[0, 0, 0], np.float32(9))
        return result

    monkeypatch.setattr(kernels, "forward", changing)
    report = command.check(CPU, SMALL, [KIND], run=processes.here)
    assert report.failed
    details = report.verdict.result(KIND)[1]
    assert re.search(r"output: 1 of \d+ numbers differ between equal calls", details)


def test_what_there_was_no_time_for_is_unfinished():
    report = command.check(CPU, command.Scale(0.0, 1.0, SMALL.sizes), [KIND], run=processes.here)
    assert not report.failed
    assert report.verdict.result(KIND)[0] == UNFINISHED


@pytest.mark.parametrize(
    "options, message",
    [
        (("--device", "gpu:7"), "device: got gpu:7, "),
        (("--device", "tpu"), "device: got tpu, expected cpu, gpu or gpu:0"),
        (("--only", "transformer"), "only: got 'transformer', expected a part of a name such as"),
    ],
)
def test_bad_options_are_named(capsys, options, message):
    code, out, err = run(capsys, *options)
    assert (code, out) == (2, "")
    assert err.startswith(f"fastrnn: {message}")


# ---- processes ----------------------------------------------------------------------------------


def test_a_job_that_hangs_or_ends_its_process_fails_and_the_next_one_runs():
    hangs = next(processes.isolated([partial(time.sleep, 60)], limit=0.1))
    assert hangs.error == "no end after 0 seconds"
    ended, returned = processes.isolated([partial(os._exit, 3), partial(abs, -2)])
    assert ended.error == "the process ended with status 3"
    assert returned == (2, None)
    (raised,) = processes.here([partial(int, "x")])
    assert raised.error == "invalid literal for int() with base 10: 'x'"


# ---- the verdict --------------------------------------------------------------------------------


def a_verdict(result=PASSED, details="", **changes):
    identity = {**verdict.identity_of(CPU), **changes}
    classes_of = {str(KIND): {f"{KIND}, forward": [result, details]}}
    return Verdict(identity, "today", classes_of, {str(KIND): [Time(64, False, 1.0, 2.0)]})


def saved(content):
    path = verdict.save(a_verdict())
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def test_a_verdict_is_read_as_it_was_written():
    before = a_verdict()
    before.rates.update(host_us=3.5)
    before.threads = 2
    path = verdict.save(before)
    assert verdict.load(CPU) == (before, "")
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_process_reads_a_verdict_once():
    assert verdict.of_process(CPU).verdict is None
    verdict.save(a_verdict())
    assert verdict.of_process(CPU).verdict is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b'{"format": 1, "identity": {"dev',
        [],
        {"format": 0},
        EMPTY,
        {**EMPTY, "threads": 0, "classes": {"a": {"b": ["fine", ""]}}},
        {**EMPTY, "threads": 0, "classes": []},
        {**EMPTY, "threads": 0, "rates": {"x": 1}},
        {**EMPTY, "threads": -1},
        {**EMPTY, "threads": "many"},
    ],
)
def test_a_damaged_verdict_is_none(content):
    path = saved(content)
    assert verdict.load(CPU) == (
        None,
        f"the verdict in {path} is damaged: run `fastrnn check` again",
    )


@pytest.mark.parametrize("name", ["library", "mxnet", "device"])
def test_a_foreign_verdict_is_none(name):
    path = verdict.save(a_verdict())
    content = json.loads(path.read_text())
    content["identity"][name] = "another"
    path.write_text(json.dumps(content))
    found = verdict.load(CPU)
    assert found.verdict is None
    assert f"{path} is for another {name} (another, here " in found.reason
    assert (verdict.load(CPU, kernels_alone=True).verdict is None) == (name != "mxnet")


@needs_cpu
def test_a_cache_that_cannot_be_written_is_one_line_after_the_report(capsys, monkeypatch, tmp_path):
    (tmp_path / "fastrnn").write_text("a file")
    monkeypatch.setattr(processes, "isolated", processes.here)
    code, out, err = run(capsys, "--only", NAME)
    assert code == 2
    assert f"{NAME}, 2 directions" in out and "kept in" not in out
    assert err.count("\n") == 1
    assert "not written, so the verdict is not kept: " in err
    assert fastrnn.RNN(8, activation="tanh").backend.name == "native"


def test_a_later_check_keeps_what_it_did_not_reach():
    first, later = a_verdict(), a_verdict(UNFINISHED)
    assert first.merged(later).result(KIND)[0] == PASSED
    assert first.merged(a_verdict(FAILED, "why")).result(KIND)[0] == FAILED
    assert a_verdict(FAILED, "why").merged(later).result(KIND)[0] == FAILED
    other = Verdict(first.identity, "today", {"another": {}})
    assert set(first.merged(other).classes) == {str(KIND), "another"}


def test_native_is_for_what_has_passed_and_is_not_slower():
    found = a_verdict()
    assert found.obstacle(KIND, 64) is None
    assert "did not finish gru" in found.obstacle(KIND._replace(cell="gru"), 64)
    assert "wrong results" in a_verdict(FAILED, "why").obstacle(KIND, 64)
    found.times[str(KIND)].append(Time(1024, True, 2.0, 1.0))
    assert found.obstacle(KIND, 100) is None
    assert "2.00 times as fast in training at H=1024" in found.obstacle(KIND, 900)
    found.times.clear()
    assert "did not time" in found.obstacle(KIND, 64)


# ---- threads ------------------------------------------------------------------------------------


@needs_cpu
def test_threads_are_measured_and_left_as_they_were():
    library = _native.library()
    usual = library.cpu_threads()
    found = threads.measure(2, seconds=0.0, rounds=1)
    assert set(found.shares) >= {1, 2} and found.usual == usual
    assert found.shares[usual] == 1.0
    assert library.cpu_threads() == usual


@pytest.mark.parametrize("shares, chosen", [({1: 1.5, 2: 1.0, 4: 0.9}, 0), ({1: 0.5, 2: 1.0}, 1)])
def test_another_number_of_threads_has_to_gain(shares, chosen):
    assert threads.Threads(shares, 2).chosen == chosen


@pytest.mark.parametrize(
    "environment, taken",
    [({}, [3]), ({"OMP_NUM_THREADS": "2"}, []), ({"MXNET_OMP_MAX_THREADS": "2"}, [])],
)
def test_layers_take_the_threads_that_were_fastest(monkeypatch, environment, taken):
    for name in ("OMP_NUM_THREADS", "MXNET_OMP_MAX_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = a_verdict()
    found.threads = 3
    verdict.save(found)
    numbers = []
    native._take_threads(SimpleNamespace(set_cpu_threads=numbers.append))
    assert numbers == taken


# ---- classes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, ways",
    [
        ({"projected": True}, {(False, "stepwise"), (True, "stepwise")}),
        ({"projected": True, "clipped": True}, {(False, "stepwise"), (True, "stepwise")}),
        ({"noise": True}, {(False, "stepwise"), (True, "stepwise")}),
        ({"clipped": True, "noise": True}, {(False, "stepwise"), (True, "stepwise")}),
        ({"layer_norm": True}, {(False, "stepwise"), (True, "stepwise")}),
        (
            {"clipped": True},
            {
                (False, "stepwise"),
                (True, "stepwise"),
                (True, "persistent (scatter)"),
                (True, "persistent (sums through L2)"),
                (True, "persistent (sums through L2, streaming)"),
            },
        ),
    ],
    ids=["projected", "both", "noise", "clipped, noise", "layer_norm", "clipped"],
)
def test_classes_of_layers_with_options(options, ways):
    kind = Kind("lstm", "tf32", 1, False)._replace(**options)
    found = classes.find(kind, asdict(plans.DEVICES["A100"]), Sizes(), 12)
    assert {(cls.backward, cls.way) for cls in found} == ways
    # Forward would refuse the persistent algorithm.
    assert not any(v.algorithm.startswith("persistent") for every in found.values() for v in every)


@pytest.mark.parametrize("device", ["T4", "H100"])
def test_every_class_that_plans_choose_is_found(device):
    rng = random.Random(4)
    facts = plans.DEVICES[device]
    maths = [m for m, needed in CAPABILITY.items() if facts.capability >= needed]
    for kind in plain_kinds(maths):
        if kind.lengths or kind.cell == "rnn_relu":
            continue  # plans do not depend on that
        found = classes.find(kind, asdict(facts), Sizes(), 12)
        for variants in found.values():
            assert variants
        for _ in range(20):
            sizes = (rng.randint(2, 1000), rng.randint(1, 300), rng.randint(1, 2100))
            dtype, tf32 = MATHS[kind.math]
            options = {"directions": kind.directions, "dtype": dtype, "tf32": tf32}
            plan = plans.plan(kind.cell, *sizes, **options, device=facts)
            for backward, of_pass in enumerate((plan.forward, plan.backward)):
                way = classes.way(kind.cell, of_pass, bool(backward))
                assert classes.KernelClass(kind, bool(backward), way) in found, (sizes, way)
