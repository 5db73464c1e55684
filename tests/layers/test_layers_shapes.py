"""Shapes of graphs of which not all is known: MXNet infers what it infers of Gluon's layers.

An array of unknown rank must not reach the operator library, whose interface it overruns.
"""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from cases import MODES, layer_class, mx

import fastrnn
from fastrnn.mxnet import native

needs_native = pytest.mark.skipif(
    not native.STATUS.usable, reason="MXNet's own operators, which raise where shapes are unknown"
)

T, N, I, H = 5, 2, 3, 4  # noqa: E741


def symbols(module, mode, layers, directions, given, lengths):
    options = {"use_sequence_length": True} if lengths else {}
    layer = layer_class(mode, module)(
        H, layers, bidirectional=directions == 2, prefix="net_", **options
    )
    count = 2 if mode == "lstm" else 1
    states = [mx.sym.var(name) for name in ("h0", "c0")[:count]] if given else None
    arguments = [mx.sym.var("data"), states]
    output = layer(*arguments, mx.sym.var("lengths")) if lengths else layer(*arguments)
    return mx.sym.Group([output[0], *output[1]]) if given else output


def infer(symbol, shapes, partial=False):
    """Return what is inferred of each argument and output, by name."""
    call = symbol.infer_shape_partial if partial else symbol.infer_shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments, outputs, _ = call(**shapes)
    if arguments is None:
        return None
    return dict(zip(symbol.list_arguments(), arguments)), outputs


def choices(mode, layers, directions):
    """Yield what may be known of data, the states, the lengths and the first weights."""
    known = {
        "data": (T, N, I),
        "h0": (layers * directions, N, H),
        "c0": (layers * directions, N, H),
        "lengths": (N,),
        "net_l0_i2h_weight": (H * {"lstm": 4, "gru": 3}.get(mode, 1), I),
    }
    hidden = {"data": [(T, 0, I), (0, N, I), (0, 0, 0)], "h0": [(0, N, 0)]}
    options = {name: [None, *hidden.get(name, []), shape] for name, shape in known.items()}
    for combination in itertools.product(*options.values()):
        yield {n: shape for n, shape in zip(options, combination) if shape is not None}


@needs_native
@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "ragged"])
@pytest.mark.parametrize("given", [False, True], ids=["implicit", "given"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("mode", ["lstm", "gru", "rnn_relu"])
def test_every_combination_of_known_and_unknown(mode, layers, directions, given, lengths):
    ours = symbols(fastrnn, mode, layers, directions, given, lengths)
    everything = {
        "data": (T, N, I),
        "h0": (layers * directions, N, H),
        "c0": (layers * directions, N, H),
        "lengths": (N,),
    }
    names = set(ours.list_arguments())
    full, outputs = infer(ours, {k: v for k, v in everything.items() if k in names})
    for combination in choices(mode, layers, directions):
        shapes = {name: shape for name, shape in combination.items() if name in names}
        for partial in (False, True):
            found = infer(ours, shapes, partial)
            if found is None:
                assert not partial
                assert shapes.get("data") != (T, N, I)
                continue
            if shapes.get("data") == (T, N, I):
                assert found == (full, outputs)
            for name, shape in found[0].items():
                check_agrees(shape, full[name])
            for shape, wanted in zip(found[1], outputs):
                check_agrees(shape, wanted)


def check_agrees(shape, wanted):
    """An inferred shape has no dimension but the right one and 0, which stands for unknown."""
    assert shape == () or len(shape) == len(wanted)
    assert all(size in (0, right) for size, right in zip(shape, wanted))


@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "ragged"])
@pytest.mark.parametrize("given", [False, True], ids=["implicit", "given"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "shapes",
    [{}, {"data": (T, N, I)}, {"data": (T, 0, I)}, {"data": (0, N, I)}, {"data": (0, 0, I)}],
    ids=str,
)
def test_gluons_answers(shapes, mode, layers, directions, given, lengths):
    if lengths and mode != "lstm":
        pytest.skip("MXNet's layer cannot be called with a symbol of lengths")
    if lengths and not native.STATUS.usable:
        pytest.skip("masked by MXNet's own operators, which raise where shapes are unknown")
    ours = symbols(fastrnn, mode, layers, directions, given, lengths)
    theirs = symbols(mx.gluon.rnn, mode, layers, directions, given, lengths)
    assert set(ours.list_arguments()) == set(theirs.list_arguments())
    for partial in (False, True):
        found, wanted = infer(ours, shapes, partial), infer(theirs, shapes, partial)
        if wanted is None:
            assert found is None
            continue
        assert found[1] == wanted[1]
        for name, shape in wanted[0].items():
            # Where N is unknown, Gluon does not know a stack's parameters either.
            if 0 not in shape and shape != ():
                assert found[0][name] == shape


@pytest.mark.parametrize("given", [False, True], ids=["implicit", "given"])
@pytest.mark.parametrize("mode", MODES)
def test_an_exported_layer_in_a_module(mode, given, tmp_path):
    layer = layer_class(mode)(H, 2, bidirectional=True, prefix="net_")
    layer.initialize()
    layer.hybridize()
    x = mx.nd.random.normal(shape=(T, N, I))
    arguments = [x, layer.begin_state(N)] if given else [x]
    outcome = layer(*arguments)
    layer.export(str(tmp_path / "net"))
    symbol, parameters, _ = mx.model.load_checkpoint(str(tmp_path / "net"), 0)
    names = [name for name in symbol.list_arguments() if name.startswith("data")]
    module = mx.mod.Module(symbol, data_names=names, label_names=None)
    with pytest.raises(RuntimeError, match="simple_bind error"):
        symbol.simple_bind(mx.cpu(), **{names[0]: (0, 0, 0)})
    bound = symbol.simple_bind(mx.cpu(), **{names[0]: (T, N, I)})
    assert [bound.arg_dict[name].shape for name in names[1:]] == [(4, N, H)] * len(names[1:])
    states = [mx.io.DataDesc(name, (4, N, H), layout="TNC") for name in names[1:]]
    module = mx.mod.Module(symbol, data_names=names, label_names=None)
    data = mx.io.DataDesc(names[0], (T, N, I), layout="TNC")
    module.bind([data, *states], for_training=False)
    module.set_params(parameters, {})
    zeros = [mx.nd.zeros(state.shape) for state in states]
    module.forward(mx.io.DataBatch([x, *zeros]))
    output = outcome[0] if given else outcome
    np.testing.assert_array_equal(module.get_outputs()[0].asnumpy(), output.asnumpy())


def test_nothing_given_to_a_net():
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Embedding(9, I), fastrnn.LSTM(H, 2, dropout=0.5), fastrnn.GRU(H))
    symbol = net(mx.sym.var("data"))
    assert infer(symbol, {}) is None
    assert infer(symbol, {"data": (T, N)})[1] == [(T, N, H)]
    assert infer(symbol, {"data": (T, 0)}, partial=True)[1] == [(T, 0, H)]


def test_a_stack_with_more_parameters_than_mxnets_arrays_have_numbers(backend):
    if backend != "native":
        pytest.skip("MXNet sees to its own")
    layer = fastrnn.LSTM(8192, 3, input_size=64)
    assert layer(mx.sym.var("data")).infer_shape(data=(2, 2, 64))[1] == [(2, 2, 8192)]
