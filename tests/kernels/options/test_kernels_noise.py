"""Zoneout and dropout of the state: fastrnn.kernels with `noise`, against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref
from noise import philox

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from kernel_cases import PLACES, KernelCase, assert_agrees, devices, put

from fastrnn import kernels, plans

SEED = 0x9E3779B97F4A7C15
ALL = kernels.Noise(0.3, 0.4, 0.25)
EACH = [kernels.Noise(0.3), kernels.Noise(0, 0.4), kernels.Noise(0, 0, 0.25), ALL]


def for_mode(mode, noise):
    return noise if mode == "lstm" else noise._replace(zoneout_states=0)


@pytest.mark.parametrize(
    "counter, key, words",
    [
        ([0] * 4, [0] * 2, [0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48]),
        ([2**32 - 1] * 4, [2**32 - 1] * 2, [0x5207DDC2, 0x45165E59, 0x4D8EE751, 0x8C52F662]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0x4DFCCABA, 0x190A87F0, 0xC47362BA, 0xB6B5242A],
        ),
    ],
)
def test_the_oracle_has_philox(counter, key, words):
    # The known answers of the generator's authors (Random123, kat_vectors).
    assert philox(np.array(counter), key).tolist() == words


@pytest.mark.parametrize("seed", [SEED, None], ids=["drawn", "mean"])
@pytest.mark.parametrize("lengths", [None, [5, 0, 2]], ids=["whole", "ragged"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("mode", ref.MODES)
@pytest.mark.parametrize(("device", "dtype"), PLACES)
def test_agrees_with_the_reference(device, dtype, mode, directions, lengths, seed):
    options = {"directions": directions, "lengths": lengths, "device": device, "dtype": dtype}
    noise = for_mode(mode, ALL)
    assert_agrees(KernelCase(mode, 5, 3, 2, 6, noise=noise, noise_seed=seed, **options))


@pytest.mark.parametrize("noise", EACH, ids=str)
@pytest.mark.parametrize("mode, projected", [("lstm", False), ("lstm", True), ("gru", False)])
@pytest.mark.parametrize("work", ["divided", "joined"])
@pytest.mark.parametrize("device", devices())
def test_each_kind_where_work_is_divided_or_joined(device, work, mode, projected, noise):
    noise = for_mode(mode, noise)
    if not any(noise):
        pytest.skip("only an LSTM has c")
    options = {"device": device, "noise": noise, "noise_seed": SEED}
    if work == "divided":
        # Several layers, more than one chunk of time, groups of units with a remainder. Of few
        # weights, chunks are longer.
        steps = 21 if mode.startswith("rnn") else 12
        sizes = (steps, 100, 3, 69) if device == "cpu" else (9, 15, 3, 69)
        options.update(directions=2, layers=2, projection=70 * projected)
    else:
        # On the CPU, eight rows of 64 units and sixteen of 32 are computed together; some remain.
        sizes = (4, 19, 3, 64)
        options.update(projection=32 * projected)
    assert_agrees(KernelCase(mode, *sizes, **options))


@pytest.mark.parametrize("lengths", [None, [5, 0, 2]], ids=["whole", "ragged"])
@pytest.mark.parametrize("projection", [0, 4])
@pytest.mark.parametrize("device", devices())
def test_with_clipping(device, projection, lengths):
    options = {"clip": ref.Clip(-0.3, 0.4), "projection": projection, "lengths": lengths}
    options.update(noise=ALL, noise_seed=SEED, device=device)
    assert_agrees(KernelCase("lstm", 5, 3, 2, 6, 2, **options))


@pytest.mark.parametrize("seed", [SEED, None], ids=["drawn", "mean"])
@pytest.mark.parametrize("noise", [kernels.Noise(1, 1, 1), kernels.Noise(1 - 1e-9, 0, 1 - 1e-9)])
@pytest.mark.parametrize("device", devices())
def test_rates_of_one(device, noise, seed):  # the second ones are 1 in float32
    assert_agrees(KernelCase("lstm", 4, 3, 2, 5, noise=noise, noise_seed=seed, device=device))


@pytest.mark.parametrize("device", devices())
def test_masks_depend_on_places_alone(device):
    case = KernelCase("lstm", 6, 40, 3, 80, 2, noise=ALL, noise_seed=SEED, device=device)
    whole = case.forward()
    # The first rows and steps are the same, whatever runs with them and on how many threads.
    part = case.forward(
        x=case.put(case.x[:4, :3].copy()),
        h_0=case.put(case.h_0[:, :3].copy()),
        c_0=case.put(case.c_0[:, :3].copy()),
        threads=1 if device == "cpu" else None,
    )
    ref.assert_close(part.output[..., :80], whole.output[:4, :3, :80].astype(np.float64))
    again = case.forward(seed=SEED + 1)
    assert (again.output != whole.output).mean() > 0.5


@pytest.mark.parametrize("device", devices())
def test_a_seed_may_be_an_array(device):
    case = KernelCase("gru", 4, 3, 2, 5, noise=kernels.Noise(0.3, 0, 0.5), device=device)

    def with_seed(seed):
        return case.forward(seed=seed).output

    def bits(of):
        return case.put(np.array([of(SEED >> k & 1) for k in range(64)], np.float32))

    assert np.array_equal(with_seed(bits(lambda bit: 2 * bit)), with_seed(SEED))
    assert np.array_equal(with_seed(bits(lambda bit: 1)), with_seed(None))


@pytest.mark.parametrize("device", devices())
def test_rates_are_what_is_drawn(device):
    steps, rows, hidden, rate = 3, 200, 150, 0.3
    case = KernelCase("rnn_tanh", steps, rows, 1, hidden, device=device)
    for array in (case.x, *case.weights):
        array[:] = 0  # a new h is 0
    case.h_0[:] = 1
    kept = case.forward(noise=kernels.Noise(rate), seed=SEED).output
    for time in range(steps):
        assert kept[time].mean() == pytest.approx(rate ** (time + 1), rel=0.05)
    # Neighbours in a row, rows and steps are independent.
    first = kept[0] - rate
    for other in (first[:, 1:] * first[:, :-1], first[1:] * first[:-1]):
        assert abs(other.mean()) < 5 * rate * (1 - rate) / np.sqrt(other.size)


@pytest.mark.parametrize("device", devices())
def test_a_unit_that_keeps_its_value_does_not_become_nan(device):
    noise = kernels.Noise(0.4)
    case = KernelCase("rnn_tanh", 1, 3, 2, 70, noise=noise, noise_seed=SEED, device=device)
    kept = case.forward().output == case.h_0
    assert 0.3 < kept.mean() < 0.5
    case.x[:] = np.nan
    np.testing.assert_array_equal(case.forward().output, np.where(kept, case.h_0, np.nan))


@pytest.mark.skipif("cuda" not in devices(), reason="no CUDA device, nor an emulated one")
def test_it_is_stepwise_and_says_why(monkeypatch):
    monkeypatch.delenv("FASTRNN_ALGORITHM", raising=False)
    case = KernelCase("lstm", 9, 3, 2, 20, noise=ALL, device="cuda", algorithm="persistent")
    why = "persistent kernels have neither zoneout nor dropout of the state"
    with pytest.raises(ValueError, match=f"algorithm is persistent, but {why}"):
        case.forward()
    text = plans.reason("lstm", 9, 3, 2, 20, noise=ALL, reserve=True, device=0)
    assert text == f"forward: stepwise: {why}\nbackward: stepwise: {why}\n"


def test_a_wrong_rate_or_seed_is_named():
    device = devices()[0]

    def fails(error, message, noise, seed=None, mode="lstm"):
        with pytest.raises(error, match=message):
            KernelCase(mode, 3, 2, 4, 5, device=device).forward(noise=noise, seed=seed)

    fails(TypeError, "noise is of type tuple, expected a Noise", (0.1, 0.1, 0.1))
    fails(TypeError, "noise.drop_states is '0', expected a number", kernels.Noise(0, 0, "0"))
    fails(TypeError, "noise.zoneout_outputs is True, expected a number", kernels.Noise(True))
    fails(ValueError, "noise.zoneout_outputs is 1.5, expected a prob", kernels.Noise(1.5))
    fails(ValueError, "noise.zoneout_outputs is nan, expected a pr", kernels.Noise(float("nan")))
    fails(ValueError, "zoneout_states was given, but only an lstm", ALL, mode="gru")
    fails(ValueError, "seed is -1, expected 0 to", ALL, -1)
    fails(ValueError, "seed is 18446744073709551616, expected 0 to", ALL, 2**64)
    fails(ValueError, "seed was given, but noise has no rate above 0", None, 3)
    fails(TypeError, "seed is of type float", ALL, 0.5)
    short = put(np.zeros(2, np.float32), device)
    fails(ValueError, r"seed is of shape \(2,\), expected shape \(64,\)", ALL, short)
    if device == "cpu":  # a GPU's numbers are not looked at
        for numbers, wrong in (((2, 0.5), "0.50*"), ((1, 2), "2.0*"), ((0, np.nan), "nan")):
            seed = np.array(numbers * 32, np.float32)
            fails(ValueError, rf"seed\[1\] is {wrong}, expected numbers that are 0 or 2", ALL, seed)
