"""Weights and inputs of a case, the same for every peer, and what the oracle makes of them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from bench.cases import Case
from fastrnn.cell import GATES

Results = Dict[str, np.ndarray]

# The derivative of ReLU jumps, and a unit that rounding puts on the other side of 0 passes its
# gradient on to all steps before. So gradients are compared as a whole, and not as closely.
RELU_GRADIENT_TOLERANCE = 5e-3
COMPARED_AT_ONCE = 1 << 16  # values
TINY = 1e-30  # as good as zero, which nothing would be close to otherwise


class Data(NamedTuple):
    """Float32 arrays with values of the case's type. States begin at zero."""

    weights: List[np.ndarray]  # of each layer and direction: i2h, h2h weight, i2h, h2h bias
    xs: List[np.ndarray]  # input sets [T, N, I]
    d_outputs: List[np.ndarray]  # of each set [T, N, D*H], zero past a row's length; for training
    lengths: Optional[np.ndarray]  # [N] int32


def reference() -> ModuleType:
    """The oracle, fastrnn/check/reference.py of this tree."""
    name = "fastrnn_reference"
    if name not in sys.modules:
        path = Path(__file__).resolve().parents[1] / "fastrnn" / "check" / "reference.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    """The numbers of `dtype` next to an array's, as float32."""
    array = array.astype(np.float32)
    if dtype == "float16":
        return array.astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        bits = array.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view("f4")
    return array


def draw(case: Case, sets: int = 1) -> Data:
    """Random numbers, the same in every process.

    All input sets have the numbers of the first, each in another order, since what timing wants of
    them is that they are in other memory.
    """
    rng = np.random.RandomState(7)
    gate_rows, scale, weights = GATES[case.cell] * case.hidden, case.hidden**-0.5, []
    for layer in range(case.layers):
        inputs = (gate_rows, case.layer_inputs(layer))
        shapes = [inputs, (gate_rows, case.hidden), (gate_rows,), (gate_rows,)]
        for shape in shapes * case.directions:
            weights.append(rounded(rng.uniform(-scale, scale, shape), case.dtype))
    size = (case.steps, case.batch, case.inputs)
    x = rounded(rng.standard_normal(size), case.dtype)
    lengths = case.lengths() if case.ragged else None
    if not case.train:
        return Data(weights, _orders(x, sets), [], lengths)
    d_output = rng.standard_normal((case.steps, case.batch, case.directions * case.hidden))
    if lengths is not None:
        d_output[np.arange(case.steps)[:, np.newaxis] >= lengths] = 0
    d_outputs = _orders(rounded(d_output, case.dtype), sets)
    return Data(weights, _orders(x, sets), d_outputs, lengths)


def _orders(array: np.ndarray, count: int) -> List[np.ndarray]:
    return [np.roll(array, number, axis=-1) for number in range(count)]


def expected(case: Case, data: Data) -> Results:
    """The oracle's results for the first input set, in float64."""
    ref = reference()
    stack = [ref.Weights(*data.weights[k : k + 4]) for k in range(0, len(data.weights), 4)]
    zeros = np.zeros((len(stack), case.batch, case.hidden))
    c_0 = zeros if case.cell == "lstm" else None
    result = ref.stack_forward(
        case.cell,
        data.xs[0],
        zeros,
        c_0,
        stack,
        directions=case.directions,
        lengths=data.lengths,
    )
    if not case.train:
        return {"output": result.output}
    gradients = ref.stack_backward(result, data.d_outputs[0], zeros, c_0)
    flat = [w for direction in gradients.weights for w in direction if w is not None]
    return named(result.output, gradients.x, flat)


def named(output: np.ndarray, d_x: np.ndarray, d_weights: List[np.ndarray]) -> Results:
    """Results of training by name."""
    weights = {f"gradient of weights[{k}]": w for k, w in enumerate(d_weights)}
    return {"output": output, "gradient of x": d_x, **weights}


def difference(case: Case, actual: Results, wanted: Results) -> Optional[str]:
    """What of the results is wrong, beyond the rounding that the case's type allows, or None."""
    if set(actual) != set(wanted):
        return f"results are {', '.join(actual)}, expected {', '.join(wanted)}"
    tolerance = reference().TOLERANCE["tf32" if case.tf32 else case.dtype]
    for name, array in actual.items():
        if array.shape != wanted[name].shape:
            return f"{name}: shape {array.shape}, expected {wanted[name].shape}"
        if case.cell == "rnn_relu" and name != "output":
            allowed = max(RELU_GRADIENT_TOLERANCE, tolerance)
            size, what = float(np.linalg.norm(wanted[name])), "its norm"
            far = float(np.linalg.norm(array - wanted[name]))
            right = far <= allowed * size
        else:
            allowed, what = tolerance, "its largest value"
            far, size, right = _compare(array.ravel(), wanted[name].ravel(), tolerance)
        if not right:
            return (
                f"{name}: {far / max(size, TINY):.1e} of {what} away from the reference, "
                f"about {allowed:.1e} is allowed"
            )
    return None


def _compare(actual: np.ndarray, wanted: np.ndarray, tolerance: float) -> Tuple[float, float, bool]:
    """The largest difference, the largest value, and whether all values are close.

    Close is what the oracle's `assert_close` lets pass: a value may be away by the tolerance of its
    own size and of the largest one's. Parts stay in the processor's caches.
    """
    parts = [slice(k, k + COMPARED_AT_ONCE) for k in range(0, wanted.size, COMPARED_AT_ONCE)]
    largest = max((float(np.abs(wanted[part]).max()) for part in parts), default=0.0)
    far, right = 0.0, bool(np.isfinite(largest))
    for part in parts:
        away = np.abs(actual[part] - wanted[part])  # NaN is never close
        right = right and bool((away <= tolerance * (np.abs(wanted[part]) + largest) + TINY).all())
        far = float(np.maximum(far, away.max()))
    return far, largest, right
