"""The oracle's gradients against finite differences, and its forward pass against the formulas."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref

CASES = [(mode, {}) for mode in ref.MODES]
CASES += [("lstm", {"projection": 2}), ("lstm", {"clip": ref.Clip(-0.1, 0.15)})]
CASES += [("lstm", {"projection": 2, "clip": ref.Clip(-0.1, 0.15)})]
CASES += [(mode, {"layer_norm": True}) for mode in ref.NORM_GATES]


@pytest.mark.parametrize("noisy", [False, True], ids=["plain", "noisy"])
@pytest.mark.parametrize("lengths", [None, np.array([4, 1, 0, 2])], ids=["full", "lengths"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("mode, cell", CASES)
def test_gradients_are_those_of_finite_differences(mode, cell, directions, lengths, noisy):
    rng = np.random.RandomState(7)
    steps, rows, inputs, hidden, layers = 4, 4, 3, 3, 2
    outputs = cell.get("projection", hidden)
    stack = {"layers": layers, "directions": directions, **cell}
    clip = stack.pop("clip", None)
    weights = ref.random_stack(rng, mode, inputs, hidden, **stack)
    arrays = {"x": rng.randn(steps, rows, inputs)}
    arrays["h0"] = 0.3 * rng.randn(layers * directions, rows, outputs)
    if mode == "lstm":
        arrays["c0"] = 0.1 * rng.randn(layers * directions, rows, hidden)
    d_output = rng.randn(steps, rows, directions * outputs)
    d_h = rng.randn(layers * directions, rows, outputs)
    d_c = rng.randn(layers * directions, rows, hidden) if mode == "lstm" else None

    options = {"directions": directions, "lengths": lengths, "clip": clip}
    if noisy:  # any shares and factors
        sizes = [(steps, rows, outputs), (steps, rows, hidden), (rows, outputs)]
        options["noise"] = [ref.Noise(*map(rng.random_sample, sizes)) for _ in weights]

    def run():
        h0, c0 = arrays["h0"], arrays.get("c0")
        return ref.stack_forward(mode, arrays["x"], h0, c0, weights, **options)

    def loss():
        result = run()
        total = (result.output * d_output).sum() + (result.h * d_h).sum()
        return total if d_c is None else total + (result.c * d_c).sum()

    grads = ref.stack_backward(run(), d_output, d_h, d_c)
    pairs = [(array, getattr(grads, name)) for name, array in arrays.items()]
    for w, dw in zip(weights, grads.weights):
        pairs += [(a, da) for a, da in zip(w, dw) if a is not None]
    for array, grad in pairs:
        assert array.shape == grad.shape
        for index in rng.choice(array.size, size=min(6, array.size), replace=False):
            where = np.unravel_index(index, array.shape)
            kept, step = array[where], 1e-6
            array[where] = kept + step
            above = loss()
            array[where] = kept - step
            below = loss()
            array[where] = kept
            assert grad[where] == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-7)


def test_one_step_of_each_cell_by_hand():
    one = np.ones((1, 1))

    def weights(mode):
        column = np.arange(1.0, ref.GATES[mode] + 1)[:, np.newaxis] / 10
        return ref.Weights(column, -column, 2 * column[:, 0], 3 * column[:, 0])

    # Gate k sees (k+1)/10 * (x - h + 2 + 3) with x = 2 and h = 1, that is 0.6 * (k+1).
    gate = 0.6 * np.arange(1, 5)
    sigma = 1 / (1 + np.exp(-gate))
    c = sigma[1] * 1 + sigma[0] * np.tanh(gate[2])
    h, new_c, _ = ref.cell_forward("lstm", 2 * one, one, one, weights("lstm"))
    assert new_c == pytest.approx(c)
    assert h == pytest.approx(sigma[3] * np.tanh(c))
    # The GRU's new gate: 0.3 * (x + 2) + r * 0.3 * (3 - h).
    n = np.tanh(1.2 + sigma[0] * 0.6)
    h, _, _ = ref.cell_forward("gru", 2 * one, one, None, weights("gru"))
    assert h == pytest.approx((1 - sigma[1]) * n + sigma[1])
    h, _, _ = ref.cell_forward("rnn_tanh", 2 * one, one, None, weights("rnn_tanh"))
    assert h == pytest.approx(np.tanh(0.6))
    h, _, _ = ref.cell_forward("rnn_relu", 2 * one, one, None, weights("rnn_relu"))
    assert h == pytest.approx(0.6)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("mode", ref.MODES)
def test_a_row_of_some_length_is_that_row_alone(mode, reverse):
    rng = np.random.RandomState(3)
    weights = ref.random_weights(rng, mode, 2, 3)
    x, h0 = rng.randn(5, 3, 2), rng.randn(3, 3)
    c0 = rng.randn(3, 3) if mode == "lstm" else None
    lengths = np.array([5, 2, 0])
    both = ref.forward(mode, x, h0, c0, weights, lengths=lengths, reverse=reverse)
    for row, length in enumerate(lengths):
        one = slice(row, row + 1)
        c = None if c0 is None else c0[one]
        alone = ref.forward(mode, x[:length, one], h0[one], c, weights, reverse=reverse)
        np.testing.assert_allclose(both.output[:length, one], alone.output)
        assert not both.output[length:, one].any()
        np.testing.assert_allclose(both.h[one], alone.h)
        if c0 is not None:
            np.testing.assert_allclose(both.c[one], alone.c)


def test_clipping_keeps_the_cell_state_in_range_and_stops_nan_when_told():
    c = np.array([-2.0, -0.5, 0.25, 3.0, np.nan])
    clipped, inside = ref.clip_cell(c, ref.Clip(-0.5, 1.0))
    np.testing.assert_array_equal(clipped, [-0.5, -0.5, 0.25, 1.0, np.nan])
    np.testing.assert_array_equal(inside, [0, 1, 1, 0, 0])
    assert ref.clip_cell(c, ref.Clip(-0.5, 1.0, nan=True))[0][4] == -0.5


def test_assert_close_tells_a_wrong_result():
    expected = np.array([1.0, -100.0])
    ref.assert_close(expected + 5e-4, expected)
    with pytest.raises(AssertionError, match="the gradient"):
        ref.assert_close(expected + 3e-3, expected, "the gradient")
    with pytest.raises(AssertionError, match="shape"):
        ref.assert_close(expected[:1], expected)
    with pytest.raises(AssertionError):
        ref.assert_close(expected * np.nan, expected)
