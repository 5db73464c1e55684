"""Options that MXNet's own operator gets wrong, other number types, NumPy arrays."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref
from cases import ANY_SIZE, MODES, LayerCase, Parent, attach, mx
from hypothesis import given

import fastrnn
from fastrnn.mxnet import native

CLIP = ref.Clip(-0.15, 0.2)
# Everything but the plain layer, in words and as arguments of LayerCase.
OPTIONS = {
    "lengths": {"lengths": True},
    "projection": {"projection": 4},
    "clip": {"clip": CLIP},
    "projection-lengths": {"projection": 4, "lengths": True},
    "clip-lengths": {"clip": CLIP, "lengths": True},
    "all": {"clip": CLIP, "projection": 4, "lengths": True},
}
PAIRS = [("lstm", name) for name in OPTIONS]
PAIRS += [(mode, "lengths") for mode in MODES if mode != "lstm"]


def net_of(layer, how):
    """Return a net around the layer: eager, hybridized, or in a parent."""
    net = Parent(layer) if how.startswith("parent") else layer
    if how != "eager":
        net.hybridize(static_alloc=how.endswith("static-alloc"))
    return net


@pytest.mark.parametrize("how", ["eager", "hybrid", "static-alloc", "parent"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("mode, option", PAIRS)
def test_results_and_gradients(mode, option, directions, how, backend):
    case = LayerCase(mode, T=5, N=4, layers=2, directions=directions, **OPTIONS[option])
    layer = case.layer(backend)
    assert layer.backend.name == backend
    net = net_of(layer, how)
    case.check(layer, net)
    case.check(layer, net)


@pytest.mark.parametrize("how", ["eager", "parent"])
@pytest.mark.parametrize("layout", ["TNC", "NTC"])
@pytest.mark.parametrize("mode, option", PAIRS)
def test_without_states(mode, option, layout, how, backend):
    case = LayerCase(mode, layers=2, directions=2, layout=layout, states=False, **OPTIONS[option])
    layer = case.layer(backend)
    case.check(layer, net_of(layer, how))


@given(**ANY_SIZE)
def test_lengths_of_any_size(backend, mode, T, N, H, directions, seed):
    case = LayerCase(mode, T, N, H=H, directions=directions, seed=seed, lengths=True)
    case.check(case.layer(backend))


# The last two cannot count one further.
@pytest.mark.parametrize(
    "dtype, T", [("float32", 4), ("int32", 4), ("int64", 4), ("uint8", 255), ("float16", 2048)]
)
def test_lengths_of_any_type(dtype, T, backend):
    case = LayerCase("lstm", T, N=1, I=1, H=2, lengths=[T])
    layer = case.layer(backend)
    x, states, _ = case.arguments()
    case.check_outcome(layer(x, states, case.array(case.row_lengths, dtype=dtype)))


def test_lengths_have_no_gradient(backend):
    case = LayerCase("gru", lengths=True)
    layer, arguments = case.layer(backend), case.arguments()
    lengths = arguments[2] = case.array(case.row_lengths)
    lengths.attach_grad()
    lengths.grad[:] = 7
    with mx.autograd.record():
        outcome = layer(*arguments)
    case.backward(outcome)
    assert not lengths.grad.asnumpy().any()


class OnGpu(mx.nd.NDArray):
    """An array that says that it is on a GPU, and that to wait for it would be a mistake."""

    __slots__: list = []
    ctx = property(lambda self: mx.gpu(0))

    def asnumpy(self):
        raise AssertionError("the host looked at it")


def test_lengths_on_a_gpu_are_looked_at_only_for_mxnets_operators(backend):
    case = LayerCase("gru", lengths=True)
    x, states, lengths = arguments = case.arguments()
    for array in (x, *states, lengths):
        array.__class__ = OnGpu
    check = case.layer(backend)._checked_states
    if backend == "native":
        assert check(*arguments) == states
    else:
        with pytest.raises(AssertionError, match="the host looked at it"):
            check(*arguments)


@pytest.mark.parametrize("flags", [{}, {"static_alloc": True, "static_shape": True}])
def test_lengths_change_from_call_to_call(flags, backend):
    layer = LayerCase("gru", lengths=True, directions=2).layer(backend)
    layer.hybridize(**flags)
    for seed in range(4):
        case = LayerCase("gru", lengths=True, directions=2, seed=seed)
        case.fill(layer)
        case.check(layer)


@pytest.mark.parametrize("option", ["lengths", "clip-lengths"])
@pytest.mark.parametrize("mode", MODES)
def test_padding_does_not_matter_even_if_it_is_nan(mode, option, backend):
    if mode != "lstm" and option != "lengths":
        option = "lengths"
    case = LayerCase(mode, T=6, N=5, layers=2, directions=2, **OPTIONS[option])
    layer = case.layer(backend)
    past = np.arange(case.T)[:, np.newaxis] >= case.row_lengths
    arguments = case.arguments()
    values = arguments[0].asnumpy()
    values[past] = np.nan
    arguments[0] = case.array(values)
    attach(arguments)
    with mx.autograd.record():
        outcome = layer(*arguments)
    case.check_outcome(outcome)
    case.backward(outcome)
    case.check_gradients(layer, arguments)
    assert not arguments[0].grad.asnumpy()[past].any()


def test_a_relu_layer_that_grows_without_bound_is_safe_past_a_rows_length(backend):
    case = LayerCase("rnn_relu", T=100, N=2, lengths=True)
    case.weights[0] = case.weights[0]._replace(h2h_weight=np.full((case.H, case.H), 4.0))
    layer = case.layer(backend)
    x, states, _ = case.arguments()
    x.attach_grad()
    with mx.autograd.record():
        output, _ = layer(x, states, case.array([1, 2]))
    output.backward()
    for array in (output, x.grad, layer.l0_h2h_weight.grad()):
        assert np.isfinite(array.asnumpy()).all()


@pytest.mark.parametrize("nan", [False, True])
def test_clipping_stops_nan_where_told(nan, backend):
    case = LayerCase("lstm", T=3, N=2, clip=ref.Clip(-0.15, 0.2, nan))
    case.x[1, 0, 0] = np.nan
    result = ref.forward("lstm", case.x, case.h0[0], case.c0[0], case.weights[0], clip=case.clip)
    output, (_, c) = case.layer(backend)(*case.arguments())
    np.testing.assert_array_equal(np.isnan(c.asnumpy()[0]), np.isnan(result.c))
    np.testing.assert_array_equal(np.isnan(output.asnumpy()), np.isnan(result.output))
    assert np.isnan(result.c).any() != nan


@pytest.mark.parametrize("option", ["projection", "clip"])
def test_a_loop_refuses_static_shape(option):
    layer = LayerCase(**OPTIONS[option]).layer("gluon")
    with pytest.raises(ValueError, match="static_shape: expected False.*step by step"):
        Parent(layer).hybridize(static_alloc=True, static_shape=True)
    layer.hybridize(False, static_alloc=True, static_shape=True)


def test_a_cast_that_cannot_be_leaves_the_layer_as_it_was(backend, monkeypatch):
    monkeypatch.setattr(native, "STATUS", native.STATUS._replace(types=("float32",)))
    case = LayerCase("rnn_relu")
    layer = case.layer(backend)
    layer.hybridize(static_alloc=True, static_shape=True)
    # MXNet's operator would round float64, so that the layer would have to become a loop.
    with pytest.raises(
        ValueError, match="backend=native" if backend == "native" else "static_shape"
    ):
        layer.cast("float64")
    with pytest.raises(TypeError, match="dtype: expected .* got 'int32'"):
        layer.cast("int32")
    case.check(layer)
    layer = case.layer()
    layer.hybridize(static_alloc=True, static_shape=True)
    with pytest.raises(ValueError, match="static_shape: expected False.*step by step"):
        Parent(layer).cast("float64")
    layer.hybridize(static_alloc=True)
    layer.cast("float64")
    other = LayerCase("rnn_relu", dtype="float64")
    other.fill(layer)
    other.check(layer)


@pytest.mark.parametrize("option", ["projection", "clip", "all"])
def test_options_exported_and_imported(option, tmp_path, backend):
    case = LayerCase(T=5, directions=2, **OPTIONS[option])
    layer = case.layer(backend)
    layer.hybridize()
    x, states, *lengths = case.arguments()
    layer(x, states, *lengths)
    layer.export(str(tmp_path / "net"))
    names = [f"data{k}" for k in range(3 + len(lengths))]
    block = mx.gluon.SymbolBlock.imports(
        str(tmp_path / "net-symbol.json"), names, str(tmp_path / "net-0000.params")
    )
    output, *last = block(x, *states, *lengths)
    case.check_outcome((output, last))


@pytest.mark.parametrize("option", ["plain", "lengths", "projection", "clip"])
@pytest.mark.parametrize("how", ["eager", "hybrid", "parent"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_types(dtype, mode, how, option, backend):
    if option not in ("plain", "lengths") and mode != "lstm":
        return
    if backend == "native" and dtype == "float64" and dtype not in native.STATUS.types:
        pytest.skip("no float64 on CUDA")
    case = LayerCase(mode, layers=2, directions=2, dtype=dtype, **OPTIONS.get(option, {}))
    layer = case.layer(backend)
    case.check(layer, net_of(layer, how))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mode", ["rnn_tanh", "rnn_relu"])
def test_deep_stacks_of_plain_networks(mode, dtype, backend):
    case = LayerCase(mode, layers=4, dtype=dtype)
    case.check(case.layer(backend))


def test_cast_changes_the_type(backend):
    case = LayerCase(layers=2)
    layer = case.layer(backend)
    for dtype in ("float64", "float16", "float32"):
        other = LayerCase(layers=2, dtype=dtype)
        layer.cast(dtype)
        other.fill(layer)
        layer.hybridize(dtype != "float64")
        other.check(layer)
        assert layer.backend.name == backend
        covered = backend == "native" and dtype in native.STATUS.types
        in_float32 = dtype == "float16" and not (native.GPUS or covered)
        assert layer.backend.reason.endswith("float16 is computed in float32") == in_float32


@pytest.fixture
def _numpy_arrays():
    mx.npx.set_np()
    yield
    mx.npx.reset_np()


@pytest.mark.usefixtures("_numpy_arrays")
@pytest.mark.parametrize("states", [True, False], ids=["states", "no-states"])
@pytest.mark.parametrize("option", ["plain", "lengths", "projection", "clip"])
@pytest.mark.parametrize("how", ["eager", "hybrid", "parent"])
@pytest.mark.parametrize("mode", MODES)
def test_numpy_arrays(mode, how, option, states, backend):
    if option not in ("plain", "lengths") and mode != "lstm":
        return
    case = LayerCase(mode, layers=2, directions=2, states=states, **OPTIONS.get(option, {}))
    layer = case.layer(backend)
    net = net_of(layer, how)
    outcome = net(*case.arguments())
    assert isinstance(outcome[0] if states else outcome, mx.np.ndarray)
    case.check(layer, net)


@pytest.mark.usefixtures("_numpy_arrays")
def test_numpy_arrays_and_the_input_size_from_the_first_call(backend):
    layer = fastrnn.LSTM(4, 2, backend=backend)
    layer.initialize()
    assert layer(mx.np.ones((3, 2, 5))).shape == (3, 2, 4)
    assert layer.l0_i2h_weight.shape == (16, 5)
