"""MXNet's operator by itself, on a GPU where MXNet sees one and otherwise on the CPU.

Besides the operator nothing runs on the device but copies from and to the host. So this works also
in an MXNet whose own kernels are too old for the GPU.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import reference as ref

pytest.importorskip("fastrnn.mxnet.native")
pytest.importorskip("fastrnn._C", reason="installed without the native library")

from kernel_cases import KernelCase, compare

from fastrnn import _C
from fastrnn.cell import Cell
from fastrnn.mxnet import native

mx = native.mx
KIND = "gpu" if native.GPUS else "cpu"
DEVICE = mx.Context(KIND, 0)
DTYPES = _C.build_info()["operator_types"].get(KIND, ())
if not DTYPES:
    pytest.skip(f"the library has no operator for the {KIND}", allow_module_level=True)
if not hasattr(mx.nd._internal, native.OPERATOR):
    # Layers do without the operator where it has no kernels for the CPU.
    assert native._register(_C.__file__) is None

# T, N, I, H: ones, odd numbers, and a size for which time is cut into chunks on the emulator.
SIZES = [(1, 1, 1, 1), (3, 2, 7, 33), (7, 33, 5, 7), (20, 16, 24, 64)]


def to_device(array, dtype):
    return mx.nd.array(array, ctx=DEVICE, dtype=dtype)


def inputs_of(case):
    """Return the operator's inputs that have gradients, and the others."""
    arrays = [case.x, case.h_0, *([] if case.c_0 is None else [case.c_0]), *case.weights]
    lengths = [] if case.lengths is None else [to_device(case.lengths, "int32")]
    return [to_device(array, case.dtype) for array in arrays], lengths


def cell_of(case):
    clip = case.clip or (None, None, False)
    return Cell(case.mode, case.hidden, case.projection, *clip)


def call(case, inputs):
    """Call the operator of eager calls, which has no backward pass."""
    options = {
        "mode": case.mode,
        "hidden_size": case.hidden,
        "num_directions": case.directions,
        "num_layers": case.layers,
        "dtype": case.dtype,
        "tf32": 0,
        "use_sequence_length": int(case.lengths is not None),
        **native.options(cell_of(case)),
    }
    return mx.nd._internal._fastrnn_layer(*inputs, options=native.packed(options))


def call_graph(case, inputs):
    """Call the operator of graphs."""
    names = [f"v{k}" for k in range(len(inputs))]
    data, *others = (mx.sym.var(name) for name in names)
    states, weights = others[: 1 + (case.mode == "lstm")], others[1 + (case.mode == "lstm") :]
    lengths = None if case.lengths is None else weights.pop()
    count, D = len(weights) // (case.layers * case.directions), case.directions
    directions = [weights[k : k + count] for k in range(0, len(weights), count)]
    layers = [directions[k : k + D] for k in range(0, len(directions), D)]
    output, after = native.graph_layers(
        cell_of(case), data, states, layers, case.dtype, lengths, "layers"
    )
    group = mx.sym.Group([output, *after])
    arrays = dict(zip(names, inputs))
    return mx.nd.CachedOp(group)(*(arrays[name] for name in group.list_inputs()))


def results(case, arrays):
    output, h_n, *c_n = (array.asnumpy() for array in arrays[: 3 if case.mode == "lstm" else 2])
    return SimpleNamespace(output=output, h_n=h_n, c_n=c_n[0] if c_n else None)


def gradients_of(case, arrays):
    x, h_0, *others = (array.asnumpy() for array in arrays)
    c_0 = others.pop(0) if case.mode == "lstm" else None
    return SimpleNamespace(x=x, h_0=h_0, c_0=c_0, weights=others)


@pytest.mark.parametrize("lengths", [None, [3, 0, 7, 1]])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ref.MODES)
def test_agrees_with_the_reference(mode, dtype, directions, sizes, lengths):
    case = KernelCase(mode, *sizes, directions, dtype=dtype)
    if lengths is not None:
        case.lengths = np.resize(lengths, case.rows)
    check(case)


@pytest.mark.parametrize("lengths", [None, [3, 0, 9]])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("option", [{"projection": 3}, {"clip": ref.Clip(-0.3, 0.4)}], ids=str)
def test_projected_and_clipped_layers_agree_with_the_reference(option, directions, lengths):
    check(KernelCase("lstm", 9, 3, 4, 5, directions, lengths=lengths, **option))


@pytest.mark.parametrize("lengths", [None, [9, 0, 4]])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ref.MODES)
def test_two_layers_agree_with_the_reference(mode, dtype, lengths):
    check(KernelCase(mode, 9, 3, 4, 5, dtype=dtype, lengths=lengths, layers=2))


@pytest.fixture(autouse=True)
def _ieee(monkeypatch):
    monkeypatch.setenv("FASTRNN_TF32", "0")


def check(case):
    """Fail unless both operators compute what the oracle does."""
    dtype = case.dtype
    learning, others = inputs_of(case)
    gradients = [mx.nd.empty(array.shape, ctx=DEVICE, dtype=dtype) for array in learning]
    mx.autograd.mark_variables(learning, gradients)
    with mx.autograd.record():
        outputs = call_graph(case, [*learning, *others])
    heads = [g for g in (case.d_output, case.d_h_n, case.d_c_n) if g is not None]
    heads = [to_device(head, dtype) for head in heads]
    mx.autograd.backward(outputs, heads)
    found = results(case, outputs)
    compare(case, found, gradients_of(case, gradients))
    inference = results(case, call(case, [*learning, *others]))
    for name, array in vars(inference).items():
        if array is not None:
            assert np.array_equal(array, getattr(found, name)), name
