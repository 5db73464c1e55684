"""fastrnn's kernels and cuDNN's layer agree, with states: here cuDNN's stand-in, and the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref
import sources  # noqa: F401

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from bench.beside_cudnn import pairs
from bench.buffers import TorchMemory
from bench.cases import CELLS, Case
from fastrnn import kernels

SIZES = {"layers": 1, "inputs": 5, "hidden": 9, "batch": 4, "steps": 6}


@pytest.mark.parametrize("ragged", [False, True], ids=["even", "ragged"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
@pytest.mark.parametrize("cell", CELLS)
def test_all_results_agree(fake, cell, bidirectional, ragged):
    case = Case(cell, bidirectional=bidirectional, ragged=ragged, **SIZES)
    found = pairs(case, fake.memory, lambda buffer: buffer.stored, fake.library)
    states = ["h_n", "c_n"] if cell == "lstm" else ["h_n"]
    names = ["output", *states, "gradient of x", *(f"gradient of {s[0]}_0" for s in states)]
    assert list(found)[: len(names)] == names
    assert len(found) == len(names) + 4 * case.directions
    for name, (ours, theirs) in found.items():
        assert np.abs(theirs).max() > 0
        ref.assert_close(ours, theirs.astype(np.float64), name, "float32")
    assert fake.passes[0].hx is not None


@pytest.mark.parametrize("wrong", ["h_n", "c_n"])
def test_a_wrong_state_is_seen(fake, monkeypatch, wrong):
    forward = kernels.forward

    def spoiled(*arguments, **options):
        result = forward(*arguments, **options)
        return result._replace(**{wrong: getattr(result, wrong) * 1.01})

    monkeypatch.setattr(kernels, "forward", spoiled)
    found = pairs(Case("lstm", **SIZES), fake.memory, lambda b: b.stored, fake.library)
    with pytest.raises(AssertionError):
        ref.assert_close(found[wrong][0], found[wrong][1].astype(np.float64), wrong, "float32")


def test_on_tensors_of_pytorch(fake):
    pytest.importorskip("torch", reason="without PyTorch")
    case = Case("lstm", ragged=True, **SIZES)
    for name, (ours, theirs) in pairs(case, TorchMemory("cpu"), library=fake.library).items():
        ref.assert_close(ours, theirs.astype(np.float64), name, "float32")
