"""The MXNet operator itself: shapes that it infers, and what it says to bad input.

Its numbers are tested through the layers.
"""

from __future__ import annotations

import numpy as np
import pytest

native = pytest.importorskip("fastrnn.native")
if not native.STATUS.usable:
    pytest.skip(native.STATUS.reason, allow_module_level=True)

mx = native.mx

# Ranks of the weights. MXNet 1.9.1 passes shapes in a buffer that it makes too small by one for
# each input of unknown rank, so a rank has to be known, as it is for Gluon's parameters.
RANKS = {"i2h_weight": 2, "h2h_weight": 2, "i2h_bias": 1, "h2h_bias": 1}


def symbol(mode="lstm", directions=1, reserve=1, hidden=5, lengths=0, layers=1):
    ranks = {"data": 3, "state": 3}
    if mode == "lstm":
        ranks["state_cell"] = 3
    for d in [f"{d}{k}" for k in range(layers) for d in "lr"[:directions]]:
        ranks.update({f"{d}_{name}": rank for name, rank in RANKS.items()})
    if lengths:
        ranks["sequence_length"] = 1
    inputs = [mx.sym.var(name, shape=(0,) * rank) for name, rank in ranks.items()]
    return mx.sym._internal._fastrnn_layer(
        *inputs,
        mode=mode,
        hidden_size=hidden,
        num_directions=directions,
        num_layers=layers,
        reserve=reserve,
        use_sequence_length=lengths,
    )


def arrays(T=3, N=2, I=4, H=5, G=4, D=1):  # noqa: E741
    weights = [(G * H, I), (G * H, H), (G * H,), (G * H,)] * D
    shapes = [(T, N, I), (D, N, H), (D, N, H), *weights]
    return [mx.nd.random.normal(shape=shape) for shape in shapes]


def call(inputs, **changes):
    attributes = {"mode": "lstm", "hidden_size": 5, "num_directions": 1, "reserve": 1}
    outputs = mx.nd._internal._fastrnn_layer(*inputs, **{**attributes, **changes})
    return [output.asnumpy() for output in outputs]


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("mode, gates", [("lstm", 4), ("gru", 3), ("rnn_tanh", 1), ("rnn_relu", 1)])
def test_shapes_are_inferred_from_the_data(mode, gates, directions):
    arguments, outputs, _ = symbol(mode, directions, reserve=0).infer_shape(data=(7, 3, 4))
    states = 2 if mode == "lstm" else 1
    state = (directions, 3, 5)
    weights = [(gates * 5, 4), (gates * 5, 5), (gates * 5,), (gates * 5,)] * directions
    assert arguments == [(7, 3, 4)] + [state] * states + weights
    assert outputs == [(7, 3, 5 * directions)] + [state] * states


def test_sizes_are_inferred_from_states_and_weights():
    arguments, outputs, _ = symbol().infer_shape_partial(
        data=(7, 0, 0), state=(1, 3, 5), l0_i2h_weight=(20, 4)
    )
    assert arguments[0][1:] == (3, 4)
    assert outputs[0][1:] == (3, 5)


@pytest.mark.parametrize("directions", [1, 2])
def test_layers_take_what_the_one_below_puts_out(directions):
    arguments, outputs, _ = symbol("gru", directions, layers=3).infer_shape(data=(7, 3, 4))
    of_first = [(15, 4), (15, 5), (15,), (15,)] * directions
    of_others = [(15, 5 * directions), (15, 5), (15,), (15,)] * directions
    state = (3 * directions, 3, 5)
    assert arguments == [(7, 3, 4), state, *of_first, *of_others, *of_others]
    assert outputs[:2] == [(7, 3, 5 * directions), state]


@pytest.mark.parametrize("mode", ["lstm", "gru"])
def test_lengths_are_one_more_input(mode):
    head = symbol(mode, directions=2, lengths=1)
    assert head.infer_shape(data=(7, 3, 4))[0][-1] == (3,)
    types, _, _ = head.infer_type(data="float32")
    assert [t.__name__ for t in types] == ["float32"] * (len(types) - 1) + ["int32"]


def test_lengths_out_of_range_count_as_the_ends():
    lengths = [mx.nd.array(values, dtype="int32") for values in ([-3, 9], [0, 3])]
    inputs = arrays()
    outputs = [call([*inputs, n], use_sequence_length=1)[0] for n in lengths]
    assert (outputs[0] == outputs[1]).all()
    assert outputs[1][:, 1].any()
    assert not outputs[1][:, 0].any()


def test_wrong_lengths_are_named():
    for lengths, message in [
        (mx.nd.ones((2,)), "sequence_length has MXNet's type number 0, expected int32"),
        (mx.nd.ones((3,), dtype="int32"), r"sequence_length has shape \(3,\)"),
    ]:
        with pytest.raises(mx.MXNetError, match=message):
            call([*arrays(), lengths], use_sequence_length=1)


def test_the_reserve_is_within_its_bound():
    for mode, gates in (("lstm", 4), ("gru", 3), ("rnn_tanh", 1)):
        _, outputs, _ = symbol(mode, directions=2).infer_shape(data=(7, 3, 4))
        size = 1
        for dimension in outputs[-1]:
            size *= dimension
        assert size <= 2 * 7 * 3 * (gates + 1) * 5


@pytest.mark.parametrize(
    "place, shape, message",
    [
        (0, (3, 2), r"data has shape \(3, 2\)"),
        (1, (1, 3, 5), r"state has shape \(1, 3, 5\)|data has shape"),
        (2, (2, 2, 5), r"state_cell has shape \(2, 2, 5\)"),
        (3, (20, 3), r"l0_i2h_weight has shape \(20, 3\)"),
        (4, (20, 4), r"l0_h2h_weight has shape \(20, 4\)"),
        (5, (19,), r"l0_i2h_bias has shape \(19,\)"),
    ],
)
def test_a_wrong_shape_is_named(place, shape, message):
    inputs = arrays()
    inputs[place] = mx.nd.zeros(shape)
    with pytest.raises(mx.MXNetError, match=message):
        call(inputs)


def test_a_wrong_type_is_named():
    inputs = arrays()
    inputs[4] = inputs[4].astype("float64")
    with pytest.raises(mx.MXNetError, match="l0_h2h_weight has MXNet's type number 1"):
        call(inputs)


@pytest.mark.parametrize(
    "place, name", [(0, "x"), (1, "h_0"), (2, "c_0"), (4, r"weights\[1\]"), (7, "lengths")]
)
def test_an_array_that_is_not_aligned_is_named(place, name):
    inputs = [*arrays(), mx.nd.array([1, 3], dtype="int32")]
    values = inputs[place].asnumpy()
    shifted = np.zeros(values.nbytes + 1, np.uint8)[1:].view(values.dtype).reshape(values.shape)
    inputs[place] = mx.nd.from_numpy(shifted)
    with pytest.raises(mx.MXNetError, match=f"{name} is not aligned, expected .* multiple of 4"):
        call(inputs, use_sequence_length=1)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"mode": "elman"}, "mode is 'elman'"),
        ({"hidden_size": 0}, "hidden_size is '0'"),
        ({"num_directions": 3}, "num_directions is '3'"),
        ({"num_layers": 0}, "num_layers is '0'"),
        ({"num_layers": "two"}, "num_layers is 'two'"),
        ({"reserve": "yes"}, "reserve is 'yes'"),
        ({"use_sequence_length": 2}, "use_sequence_length is '2'"),
    ],
)
def test_a_wrong_attribute_is_named(change, message):
    with pytest.raises(mx.MXNetError, match=message):
        call(arrays(), **change)


def test_without_reserve_there_is_no_gradient():
    inputs = arrays()
    inputs[0].attach_grad()
    with mx.autograd.record():
        output = mx.nd._internal._fastrnn_layer(
            *inputs, mode="lstm", hidden_size=5, num_directions=1, reserve=0
        )[0]
    with pytest.raises(mx.MXNetError, match="no gradient with reserve=0"):
        output.backward()
        inputs[0].grad.asnumpy()


def test_an_error_does_not_spoil_the_next_call():
    inputs = arrays()
    before = call(inputs)
    with pytest.raises(mx.MXNetError):
        call([*inputs[:-1], mx.nd.zeros((3,))])
    assert (call(inputs)[0] == before[0]).all()


def test_a_workspace_beyond_mxnets_grant():
    # In emulated builds MXNet is asked for little, and the sums of 50 rows of 100 units are more.
    # Elsewhere that takes layers of gigabytes.
    T, N, I, H = 2, 50, 3, 100  # noqa: E741
    inputs = arrays(T, N, I, H)
    gradients = []
    for rows in (slice(0, 50), slice(0, 25), slice(25, 50)):
        part = [array[:, rows].copy() for array in inputs[:3]] + [w.copy() for w in inputs[3:]]
        for array in part:
            array.attach_grad()
        with mx.autograd.record():
            outputs = mx.nd._internal._fastrnn_layer(
                *part, mode="lstm", hidden_size=H, num_directions=1, reserve=1
            )
        outputs[0].backward()
        gradients.append([outputs[0].asnumpy(), *(array.grad.asnumpy() for array in part[:5])])
    whole, first, second = gradients
    close = {"rtol": 1e-4, "atol": 1e-4}
    for i in range(4):  # output, and the gradients of data and states
        np.testing.assert_allclose(whole[i], np.concatenate([first[i], second[i]], 1), **close)
    for i in (4, 5):
        np.testing.assert_allclose(whole[i], first[i] + second[i], **close)
