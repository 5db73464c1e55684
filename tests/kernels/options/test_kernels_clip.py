"""An LSTM's cell state with a range: fastrnn.kernels with `clip`, against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from kernel_cases import PLACES, KernelCase, assert_agrees, devices

from fastrnn import kernels, plans

INFINITY = float("inf")
NARROW = ref.Clip(-0.3, 0.4)
RANGES = [NARROW, ref.Clip(0.1, INFINITY), ref.Clip(-INFINITY, -0.1), ref.Clip(0.2, 0.2)]
# Of a cell state to an end of its range. Nearer, rounding decides whether a gradient passes.
MARGINS = {"float32": 1e-5, "float64": 1e-11, "float16": 4e-3, "bfloat16": 3e-2}
on_every_place = pytest.mark.parametrize(("device", "dtype"), PLACES)


def unclipped(case):
    """Return the cell states before they are clipped, of all steps in which a row takes part."""
    found = []
    for run in case.reference()[0].tape[1]:
        for _, active, (_, _, c, i, f, g, *_) in run.tape[3]:
            found.append((f * c + i * g)[active[:, 0]])
    return np.concatenate(found)


def make(sizes, clip=NARROW, **options):
    """Return a case without a cell state near an end of the range."""
    for seed in range(1000):
        case = KernelCase("lstm", *sizes, clip=clip, seed=seed, **options)
        c = unclipped(case)
        distance = min(np.abs(c - clip.low).min(), np.abs(c - clip.high).min())
        if distance > MARGINS[case.dtype]:
            assert ((c < clip.low) | (c > clip.high)).any()
            return case
    raise AssertionError("every case has one")


@pytest.mark.parametrize("lengths", [None, [5, 0, 2]], ids=["whole", "ragged"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("clip", RANGES, ids=str)
@on_every_place
def test_agrees_with_the_reference(device, dtype, clip, directions, lengths):
    sizes = (5, 3, 2, 1) if dtype.endswith("float16") else (5, 3, 2, 3)
    assert_agrees(
        make(sizes, clip, directions=directions, lengths=lengths, device=device, dtype=dtype)
    )


@pytest.mark.parametrize("device", devices())
def test_agrees_where_work_is_divided(device):
    # Several layers, more than one chunk of time, and vectors with a remainder.
    assert_agrees(KernelCase("lstm", 21, 100, 3, 37, 2, layers=2, clip=NARROW, device=device))


@pytest.mark.parametrize("device", devices())
def test_a_gradient_passes_at_the_ends(device):
    case = KernelCase("lstm", 3, 2, 4, 5, clip=ref.Clip(0.0, INFINITY), device=device)
    for array in (case.x, case.h_0, case.c_0, *case.weights[2:]):
        array[:] = 0  # so every cell state is 0
    assert_agrees(case)
    result = case.forward(reserve=True)
    assert case.backward(result.reserve).c_0.all()


@pytest.mark.parametrize("nan", [False, True], ids=["goes-on", "stops"])
@pytest.mark.parametrize("device", devices())
def test_nan(device, nan):
    case = KernelCase("lstm", 4, 3, 2, 19, clip=ref.Clip(-0.3, 0.4, nan), device=device)
    case.x[1, 0, 0] = np.nan
    result, expected = case.forward(), case.reference()[0]
    assert np.isnan(expected.c).any() != nan
    for found, wanted in zip(result[:3], (expected.output, expected.h, expected.c)):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("device", devices())
def test_initial_states_are_not_clipped(device):
    case = KernelCase("lstm", 4, 3, 2, 5, 2, lengths=[0, 4, 1], clip=NARROW, device=device)
    assert np.array_equal(case.forward().c_n[:, 0], case.c_0[:, 0])
    assert_agrees(case)


@pytest.mark.skipif("cuda" not in devices(), reason="no CUDA device, nor an emulated one")
def test_forward_is_stepwise_and_says_why(monkeypatch):
    monkeypatch.delenv("FASTRNN_ALGORITHM", raising=False)
    case = KernelCase("lstm", 9, 3, 2, 20, clip=NARROW, device="cuda", algorithm="persistent")
    with pytest.raises(ValueError, match="persistent, but persistent kernels do not clip the cell"):
        case.forward()
    sizes = ("lstm", 9, 3, 2, 20)
    text = plans.reason(*sizes, clip=kernels.Clip(-1.0, 1.0), reserve=True, device=0)
    assert text.startswith("forward: stepwise: persistent kernels do not clip the cell state\n")
    assert "backward: persistent: " in text


def test_a_wrong_range_is_named():
    device = devices()[0]

    def fails(error, message, clip, mode="lstm"):
        with pytest.raises(error, match=message):
            KernelCase(mode, 3, 2, 4, 5, device=device).forward(clip=clip)

    fails(TypeError, "clip is of type tuple, expected a Clip", (0.0, 1.0))
    fails(TypeError, "clip.high is None, expected a number", kernels.Clip(-1.0, None))
    fails(TypeError, "clip.low is '0', expected a number", kernels.Clip("0"))
    fails(ValueError, "clip is from 2e-09 to 1e-09, expected", kernels.Clip(2e-9, 1e-9))
    fails(ValueError, "clip is from nan to 0.5", kernels.Clip(float("nan"), 0.5))
    fails(ValueError, "clip was given, but only an lstm has", kernels.Clip(-1.0, 1.0), "gru")
