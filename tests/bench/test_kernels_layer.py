"""fastrnn's kernels as one who takes part, on the host with NumPy's arrays for PyTorch's."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import sources  # noqa: F401

_C = pytest.importorskip("fastrnn._C", reason="installed without the native library")

from bench import data
from bench.cases import CELLS, Case
from bench.peers import kernels
from fastrnn import kernels as fastrnn_kernels

SMALL = {"inputs": 5, "hidden": 9, "batch": 3, "steps": 4}


class HostTorch:
    """PyTorch whose tensors are NumPy arrays."""

    float32 = np.float32
    cuda = SimpleNamespace(current_stream=lambda: None)
    from_dlpack = staticmethod(lambda array: array)

    @staticmethod
    def from_numpy(array):
        return SimpleNamespace(to=lambda device, kind=None: array)


@pytest.fixture
def outs(monkeypatch):
    """What the calls get as `out`, one by one."""
    given = []

    def watch(name):
        function = getattr(fastrnn_kernels, name)

        def call(*arguments, out=None, **options):
            given.append(out)
            return function(*arguments, out=out, **options)

        monkeypatch.setattr(fastrnn_kernels, name, call)

    watch("forward")
    watch("backward")
    monkeypatch.setattr(kernels, "to_host", np.array)
    return given


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_stacks(cell, ragged, train, outs):
    case = Case(cell, bidirectional=True, ragged=ragged, train=train, **SMALL)
    values = data.draw(case, 2)
    layer = kernels.KernelsLayer(HostTorch, case, values, "cpu", None)
    layer.run(1)
    assert data.difference(case, layer.results(), data.expected(case, values)) is not None
    layer.run(0)
    assert data.difference(case, layer.results(), data.expected(case, values)) is None


@pytest.mark.parametrize("train", [True, False])
def test_only_the_first_run_makes_arrays(train, outs):
    case = Case("lstm", train=train, **SMALL)
    layer = kernels.KernelsLayer(HostTorch, case, data.draw(case, 2), "cpu", None)
    calls = 1 + train
    assert outs == [None] * calls
    for number in (0, 1):
        layer.run(number)
    first, second = outs[calls : 2 * calls], outs[2 * calls :]
    assert len(second) == calls
    assert None not in first
    for out, again in zip(first, second):
        assert out is again
    forward, *backward = first
    assert isinstance(forward, fastrnn_kernels.Result)
    assert (forward.reserve is not None) == train
    assert all(isinstance(g, fastrnn_kernels.Gradients) for g in backward)


def test_what_the_kernels_pick_is_said(outs, monkeypatch):
    case = Case("gru", bidirectional=True, **SMALL)
    layer = kernels.KernelsLayer(HostTorch, case, data.draw(case), "cpu", "stepwise")
    seen = []
    monkeypatch.setattr(fastrnn_kernels, "plan", lambda *a, **k: seen.append((a, k)) or "the plan")
    assert layer.facts() == {"plan": "the plan"}
    sizes, options = seen[0]
    assert sizes == ("gru", 4, 3, 9)
    assert options["algorithm"] == "stepwise"
    assert options["directions"] == 2
