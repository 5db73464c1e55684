"""``fastrnn check`` end to end, on an emulated GPU inside MXNet; run.py runs this file.

A class with a planted fault is refused, and its layers give MXNet's right numbers.
"""

from __future__ import annotations

import contextlib
import logging
import re

import emulated
import mutants
import numpy as np
import pytest
import reference as ref

import fastrnn
from fastrnn import plans
from fastrnn.check import command, processes, timing, verdict
from fastrnn.check.classes import Sizes
from fastrnn.check.kernels import Effort
from fastrnn.check.kinds import Kind
from fastrnn.check.timing import Timed
from fastrnn.mxnet import native

mx = native.mx
KIND = Kind("lstm", "tf32", 1, False)
# Small, and all steps are one launch.
SCALE = command.Scale(
    300.0,
    0.9,
    Sizes(rows=(5,), hidden=(40,), steps=(100,)),
    Effort(steps=6, repeats=2, pairs=1),
    Timed(steps=3, rows=2, hidden=(8,), seconds=0.0, rounds=1),
    rate_steps=4,
)


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    """Give each test a cache of its own, and a process that has read none."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FASTRNN_BACKEND", raising=False)
    verdict.forget()
    yield
    verdict.forget()


@pytest.fixture
def _as_fast(monkeypatch):
    """Let the emulated kernels take as long as MXNet's."""

    def clock(call, count):
        call()
        return 1.0

    monkeypatch.setattr(timing, "clock", clock)


def check(machine=False, kind=KIND):
    report = command.check(0, SCALE, [kind], run=processes.here, machine=machine)
    verdict.save(command.kept(report.verdict, 0))
    verdict.forget()
    return report.verdict


def layer_is_right(layer):
    """Whether a layer's output and gradient are the oracle's."""
    rng = np.random.RandomState(2)
    layer.initialize()
    x, state = rng.standard_normal((4, 3, 5)), np.zeros((1, 3, 8))
    weights = ref.random_weights(rng, "lstm", 5, 8)
    names = ("i2h_weight", "h2h_weight", "i2h_bias", "h2h_bias")
    for name, array in zip(names, weights):
        getattr(layer, f"l0_{name}").set_data(mx.nd.array(array))
    inputs = mx.nd.array(x)
    inputs.attach_grad()
    with mx.autograd.record():
        output = layer(inputs)
    output.backward()
    wanted = ref.forward("lstm", x, state[0], state[0], weights)
    gradients = ref.backward(wanted, np.ones(output.shape), state[0], state[0])
    ref.assert_close(output, wanted.output, "output", "tf32")
    ref.assert_close(inputs.grad, gradients.x, "x", "tf32")
    return True


def test_without_a_verdict_layers_run_on_mxnet_and_say_so_once(caplog):
    with caplog.at_level(logging.WARNING, "fastrnn"):
        layers = [fastrnn.LSTM(8, input_size=5) for _ in range(2)]
    for layer in layers:
        assert layer.backend.name == "gluon"
        assert "`fastrnn check` would enable them" in layer.backend.reason
    assert len(caplog.messages) == 1
    assert "fastrnn check" in caplog.text
    assert layer_is_right(layers[0])
    assert fastrnn.LSTM(8, input_size=5, backend="native").backend.name == "native"


@pytest.mark.usefixtures("_as_fast")
def test_what_has_passed_and_is_not_slower_is_native():
    found = check(machine=True)
    assert found.result(KIND) == [verdict.PASSED, ""]
    ways = {(name.split(", ")[1], name.split(", ")[2]) for name in found.classes[str(KIND)]}
    assert ("forward", "persistent (tagged words)") in ways
    assert ("backward", "persistent (scatter)") in ways
    layer = fastrnn.LSTM(8, input_size=5)
    assert layer.backend.name == "native", layer.backend
    assert layer_is_right(layer)
    assert {"host_us", "exchange_us"} >= set(found.rates) > set()
    plan = plans.plan("lstm", 20, 5, 40).forward
    assert plan.measured_step_us != plan.step_us
    assert f"with the rates measured on this GPU: a step about {plan.measured_step_us:.2f}" in (
        str(plan)
    )
    # Others were not checked.
    assert "did not finish gru tf32" in fastrnn.GRU(8, input_size=5).backend.reason
    # What is found later is for later processes.
    verdict.path_of(verdict.identity_of(0)).unlink()
    assert fastrnn.LSTM(8, input_size=5).backend.name == "native"


@pytest.mark.usefixtures("_as_fast")
@pytest.mark.parametrize(
    "name, options",
    [
        ("projected", {"projection_size": 4}),
        ("clipped", {"state_clip_max": 3.0}),
        ("noise", {"zoneout_outputs": 0.1}),
        ("layer_norm", {"layer_norm": True}),
    ],
)
def test_layers_with_options_have_verdicts_of_their_own(name, options):
    check()
    layer = fastrnn.LSTM(8, input_size=5, **options)
    assert layer.backend.name == "gluon"
    assert f"`fastrnn check` did not finish {KIND}, {name} on this emulator" in layer.backend.reason
    kind = KIND._replace(**{name: True})
    found = check(kind=kind)
    assert found.result(kind) == [verdict.PASSED, ""]
    ways = [way.split(", ", 2)[2] for way in found.classes[str(kind)]]
    assert ways == [
        "forward, stepwise",
        "backward, persistent (scatter)" if name == "clipped" else "backward, stepwise",
    ]
    layer = fastrnn.LSTM(8, input_size=5, **options)
    assert layer.backend.name == "native", layer.backend
    # A range without ends is none.
    unbounded = fastrnn.LSTM(8, input_size=5, state_clip_max=float("inf"))
    assert unbounded.backend.name == "native", unbounded.backend


@contextlib.contextmanager
def a_missing_fence():
    path = "csrc/cuda/persistent/exchange.cuh"
    text = (mutants.builds.ROOT / path).read_text()
    line = text[: text.index("__syncthreads", text.index("void Publish"))].count("\n") + 1
    emulated.LIBRARY.emulator_leave_out(f"{path}:{line}".encode())
    yield
    emulated.LIBRARY.emulator_leave_out(b"")


@contextlib.contextmanager
def planted(fault):
    emulated.LIBRARY.emulator_plant(fault)
    yield
    emulated.LIBRARY.emulator_plant(0)


FAULTS = [
    (a_missing_fence(), "wrong|differ"),
    (planted(emulated.STALE_LOADS), "wrong"),
    (planted(emulated.EXCHANGED_ROWS), "wrong"),
    (emulated.failing_launch(1, emulated.COOPERATIVE_LAUNCH_TOO_LARGE), "no room for"),
]


@pytest.mark.usefixtures("_as_fast")
@pytest.mark.parametrize(
    ("fault", "message"), FAULTS, ids=["fence", "stale buffer", "wrong gate", "refused launch"]
)
def test_a_class_with_a_fault_is_refused(fault, message):
    with fault:
        result, details = check().result(KIND)
        assert result == verdict.FAILED
        assert re.search(message, details), details
        layer = fastrnn.LSTM(8, input_size=5)
        assert layer.backend.name == "gluon"
        assert f"`fastrnn check` found wrong results on this emulator ({details})" in (
            layer.backend.reason
        )
        assert layer_is_right(layer)


def test_a_slow_kernel_is_refused():
    # On the emulator every kernel is one.
    found = check()
    assert found.result(KIND) == [verdict.PASSED, ""]
    layer = fastrnn.LSTM(8, input_size=5)
    assert layer.backend.name == "gluon"
    assert "`fastrnn check` found MXNet's operator faster on this emulator" in layer.backend.reason
    assert layer_is_right(layer)
