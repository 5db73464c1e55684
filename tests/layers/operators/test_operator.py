"""The MXNet operators themselves: what they say to bad input, and what only they can be asked.

Their numbers are tested through the layers, and the shapes of graphs in test_layers_shapes.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastrnn.cell import GATES, Cell

native = pytest.importorskip("fastrnn.mxnet.native")
if not native.STATUS.usable:
    pytest.skip(native.STATUS.reason, allow_module_level=True)

mx = native.mx


def arrays(T=3, N=2, I=4, H=5, G=4, D=1):  # noqa: E741
    weights = [(G * H, I), (G * H, H), (G * H,), (G * H,)] * D
    shapes = [(T, N, I), (D, N, H), (D, N, H), *weights]
    return [mx.nd.random.normal(shape=shape) for shape in shapes]


def call(inputs, **changes):
    attributes = {"mode": "lstm", "hidden_size": 5, "num_directions": 1}
    outputs = mx.nd._internal._fastrnn_layer(
        *inputs, options=native.packed({**attributes, **changes})
    )
    return [output.asnumpy() for output in outputs]


def outputs_of_graph(inputs, dtype="float32", lengths=None, hidden=5):
    """Run one direction of an LSTM as a graph without any operator but the one."""
    data, h_0, c_0, *weights = (mx.sym.var(f"v{k}") for k in range(len(inputs)))
    ragged = None if lengths is None else mx.sym.var("lengths")
    output, states = native.graph_layers(
        Cell("lstm", hidden), data, [h_0, c_0], [[weights]], dtype, ragged, "layer"
    )
    group = mx.sym.Group([output, *states])
    arguments = {f"v{k}": array for k, array in enumerate(inputs)}
    arguments["lengths"] = lengths
    return mx.nd.CachedOp(group)(*(arguments[name] for name in group.list_inputs()))


def test_a_graph_of_another_type_says_what_to_do():
    inputs = [array.astype("float64") for array in arrays()]
    with pytest.raises(mx.MXNetError, match=r"traced in float32, .* call hybridize\(\) again"):
        outputs_of_graph(inputs)[0].asnumpy()


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
    halves = [*(array.astype("float16") for array in arrays()), mx.nd.ones(64, dtype="float16")]
    with pytest.raises(mx.MXNetError, match="seed has MXNet's type number 2, expected float32"):
        call(halves, dtype="float16", use_seed=1, drop_states=0.1)


@pytest.mark.parametrize(
    "place, name", [(0, "x"), (1, "h_0"), (2, "c_0"), (4, r"weights\[1\]"), (7, "lengths")]
)
def test_an_array_that_is_not_aligned_is_named(place, name):
    inputs = [*arrays(), mx.nd.array([1, 3], dtype="int32")]
    inputs[place] = unaligned(inputs[place])
    with pytest.raises(mx.MXNetError, match=f"{name} is not aligned, expected .* multiple of 4"):
        call(inputs, use_sequence_length=1)


def test_an_array_of_an_upper_layer_that_is_not_aligned_is_named():
    data, *states = (mx.nd.ones(shape) for shape in [(3, 2, 4), (4, 2, 5), (4, 2, 5)])
    weights = arrays(D=2)[3:] + arrays(I=10, D=2)[3:]
    weights[13] = unaligned(weights[13])  # that of the second layer's second direction
    with pytest.raises(mx.MXNetError, match=r"weights\[13\] is not aligned"):
        call([data, *states, *weights], num_layers=2, num_directions=2)


def unaligned(array):
    values = array.asnumpy()
    shifted = np.zeros(values.nbytes + 1, np.uint8)[1:].view(values.dtype).reshape(values.shape)
    return mx.nd.from_numpy(shifted)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"mode": "elman"}, "mode is 'elman'"),
        ({"hidden_size": 0}, "hidden_size is '0'"),
        ({"num_directions": 3}, "num_directions is '3'"),
        ({"num_layers": 0}, "num_layers is '0'"),
        ({"num_layers": "two"}, "num_layers is 'two'"),
        ({"use_sequence_length": 2}, "use_sequence_length is '2'"),
        ({"projection_size": -1}, "projection_size is '-1'"),
        ({"state_clip_min": "low"}, "state_clip_min is 'low', expected a number"),
        ({"state_clip_min": "nan"}, "state_clip_min is 'nan', expected a number"),
        ({"zoneout_outputs": "nan"}, "zoneout_outputs is 'nan', expected a number"),
        ({"zoneout_states": 1.5}, "zoneout_states is 1.50*, expected a probability"),
        ({"state_clip_min": 1, "state_clip_max": 0}, "clip is from 1.0* to 0.0*, expected"),
    ],
)
def test_a_wrong_attribute_is_named(change, message):
    call(arrays())  # a plan for the same sizes is known
    with pytest.raises(mx.MXNetError, match=message):
        call(arrays(), **change)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"options": "hidden_size=5"}, "needs the attribute mode"),
        ({"options": "mode=lstm"}, "needs the attribute hidden_size"),
        ({"options": "mode=lstm hidden=5"}, "options have 'hidden=5', expected NAME=VALUE"),
        ({"options": "mode=lstm hidden_size"}, "options have 'hidden_size', expected NAME=VALUE"),
        ({"options": "mode=lstm hidden_size="}, "hidden_size is '', expected an integer"),
        ({"options": "mode=lstm  hidden_size=5"}, "options have '', expected NAME=VALUE"),
        ({"mode": "lstm"}, "needs the attribute options"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(mx.MXNetError, match=message):
        mx.nd._internal._fastrnn_layer(*arrays(), **options)


@pytest.mark.parametrize("how", ["eager", "graph"])
def test_numbers_have_a_point_whatever_the_locale_says(how, tmp_path):
    name = "de_DE.UTF-8"
    try:
        make = ["localedef", "-i", "de_DE", "-f", "UTF-8", str(tmp_path / name)]
        subprocess.run(make, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no locale with a decimal comma can be made here")
    code = f"""
import locale, fastrnn, mxnet as mx
assert locale.setlocale(locale.LC_NUMERIC, "{name}") and locale.localeconv()["decimal_point"] == ","
layer = fastrnn.LSTM(4, input_size=3, state_clip_min=0.25, state_clip_max=0.5, backend="native")
layer.initialize(mx.init.Zero())
if {how == "graph"}:  # which adds to gradients
    layer.collect_params().setattr("grad_req", "add")
with mx.autograd.record({how == "graph"}):
    _, (_, c) = layer(mx.nd.ones((1, 1, 3)), layer.begin_state(1))
print(c.asnumpy().tolist())
"""
    variables = {**os.environ, "LOCPATH": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    assert done.stdout == "[[[0.25, 0.25, 0.25, 0.25]]]\n", done.stderr


@pytest.mark.parametrize("option", [{}, {"projection_size": 3}], ids=["plain", "projected"])
@pytest.mark.parametrize("layers, directions", [(1, 1), (2, 2)])
@pytest.mark.parametrize("mode", GATES)
def test_a_call_without_states_starts_from_zeros(mode, layers, directions, option):
    if option and mode != "lstm":
        pytest.skip("only an LSTM can be projected")
    T, N, I, H, P, G = 4, 3, 6, 5, option.get("projection_size", 5), GATES[mode]  # noqa: E741
    shapes = []
    for width in [I, *[directions * P] * (layers - 1)]:
        own = [(G * H, width), (G * H, P), (G * H,), (G * H,), *[(P, H)] * len(option)]
        shapes += own * directions
    inputs = [mx.nd.random.normal(shape=shape) for shape in [(T, N, I), *shapes]]
    sizes = [P, H] if mode == "lstm" else [P]
    zeros = [mx.nd.zeros((layers * directions, N, size)) for size in sizes]
    options = {"mode": mode, "hidden_size": H, "num_layers": layers, "reserve": 1, **option}
    options["num_directions"] = directions
    head, found = mx.nd.random.normal(shape=(T, N, directions * P)), []
    for states in (zeros, []):
        for array in inputs:
            array.attach_grad()
        with mx.autograd.record():
            outputs = mx.nd._internal._fastrnn_layer(
                inputs[0],
                *states,
                *inputs[1:],
                options=native.packed({**options, "use_states": int(bool(states))}),
            )
        assert len(outputs) == 2 + len(states)
        outputs[0].backward(head)
        found.append([a.asnumpy() for a in (outputs[0], *(a.grad for a in inputs))])
    assert np.abs(found[0][0]).max() > 0.01
    for ours, expected in zip(*found):
        np.testing.assert_array_equal(ours, expected)


def test_a_call_without_a_reserve_has_no_gradient():
    inputs = arrays()
    inputs[0].attach_grad()
    with mx.autograd.record():
        output = mx.nd._internal._fastrnn_layer(*inputs, options="mode=lstm hidden_size=5")[0]
    with pytest.raises(mx.MXNetError, match="_fastrnn_layer: reserve is 0, expected 1"):
        output.backward()
        inputs[0].grad.wait_to_read()


def test_a_message_is_that_of_its_call():
    messages = []
    for shape in ((3, 2), (3, 3)):
        with pytest.raises(mx.MXNetError) as error:
            call([mx.nd.zeros(shape), *arrays()[1:]])
        messages.append(str(error.value))
    assert "shape (3, 2)" in messages[0]
    assert "shape (3, 2)" not in messages[1]


def test_after_an_error_calls_take_no_memory():
    def run(times):
        for _ in range(times):
            call(inputs)
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    inputs = arrays()
    for _ in range(20):
        with pytest.raises(mx.MXNetError):
            call([mx.nd.zeros((3, 2)), *inputs[1:]])
    sizes = [run(1000) for _ in range(4)]
    # The least, since earlier tests' memory may move. With messages that are copied it is 12 MB.
    assert min(after - before for before, after in zip(sizes, sizes[1:])) < 1 << 20


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
            outputs = outputs_of_graph(part, hidden=H)
        outputs[0].backward()
        gradients.append([outputs[0].asnumpy(), *(array.grad.asnumpy() for array in part[:5])])
    whole, first, second = gradients
    close = {"rtol": 1e-4, "atol": 1e-4}
    for i in range(4):  # output, and the gradients of data and states
        np.testing.assert_allclose(whole[i], np.concatenate([first[i], second[i]], 1), **close)
    for i in (4, 5):
        np.testing.assert_allclose(whole[i], first[i] + second[i], **close)


def test_errors_on_the_thread_that_calls():
    """The naive engine runs operators there; an exception that passed through it would abort."""
    tests = [sys.executable, "-m", "pytest", "-q", __file__, "-k", "named or spoil or memory"]
    environment = {**os.environ, "MXNET_ENGINE_TYPE": "NaiveEngine"}
    done = subprocess.run(
        tests, env=environment, stdout=subprocess.PIPE, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b[2-9]\d passed", done.stdout)
