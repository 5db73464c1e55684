"""Weights and inputs of a case, the same for every peer, and what the oracle makes of them."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, List, NamedTuple, Optional

import numpy as np

from bench.cases import GATES, Case

Results = Dict[str, np.ndarray]

# The derivative of ReLU jumps, and a unit that rounding puts on the other side of 0 passes its
# gradient on to all steps before. So gradients are compared as a whole, and not as closely.
RELU_GRADIENT_TOLERANCE = 5e-3
COMPARED_AT_ONCE = 1 << 18  # values


class Data(NamedTuple):
    """Float32 arrays with values of the case's type. States begin at zero."""

    weights: List[np.ndarray]  # of each layer and direction: i2h, h2h weight, i2h, h2h bias
    xs: List[np.ndarray]  # input sets [T, N, I]
    d_outputs: List[np.ndarray]  # of each set [T, N, D*H], zero past a row's length; for training
    lengths: Optional[np.ndarray]  # [N] int32


def reference() -> ModuleType:
    """The tests' oracle, tests/reference.py."""
    name = "fastrnn_reference"
    if name not in sys.modules:
        path = Path(__file__).resolve().parents[1] / "tests" / "reference.py"
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
        inputs = case.inputs if layer == 0 else case.directions * case.hidden
        shapes = [(gate_rows, inputs), (gate_rows, case.hidden), (gate_rows,), (gate_rows,)]
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


def pytorch() -> Optional[ModuleType]:
    """PyTorch, which compares in all of the processor's threads, or None where it is not."""
    if importlib.util.find_spec("torch") is None:
        return None
    return importlib.import_module("torch")


def _all_close(torch: Any, actual: np.ndarray, wanted: np.ndarray, tolerance: float) -> bool:
    """Whether the oracle's `assert_close` says nothing for sure: it is asked in case of doubt.

    By parts that stay in the processor's caches, in the same float64 arithmetic. NaN is in doubt.
    """
    both = (torch.from_numpy(np.ascontiguousarray(a)).flatten() for a in (actual, wanted))
    actual_flat, wanted_flat = (tensor.split(COMPARED_AT_ONCE) for tensor in both)
    bounds = [torch.aminmax(part) for part in wanted_flat if part.numel()]
    if not bounds:
        return False
    scale = max(max(-float(least), float(most)) for least, most in bounds)
    for part, of_wanted in zip(actual_flat, wanted_flat):
        allowed = of_wanted.abs().mul_(tolerance).add_(tolerance * scale + 1e-30)
        far = part.double().sub_(of_wanted).abs_()
        if not bool((far <= allowed).all()):
            return False
    return True


def difference(case: Case, actual: Results, wanted: Results) -> Optional[str]:
    """What of the results is wrong, beyond the rounding that the case's type allows, or None."""
    ref = reference()
    dtype = "tf32" if case.tf32 else case.dtype
    torch = pytorch()
    if set(actual) != set(wanted):
        return f"results are {', '.join(actual)}, expected {', '.join(wanted)}"
    for name, array in actual.items():
        if array.shape != wanted[name].shape:
            return f"{name}: shape {array.shape}, expected {wanted[name].shape}"
        as_a_whole = case.cell == "rnn_relu" and name != "output"
        tolerance = ref.TOLERANCE[dtype]
        if torch and not as_a_whole and _all_close(torch, array, wanted[name], tolerance):
            continue
        if as_a_whole:
            scale = np.linalg.norm(wanted[name])
            far = np.linalg.norm(array - wanted[name])
            allowed = max(RELU_GRADIENT_TOLERANCE, tolerance)
            if not far <= allowed * scale:
                share = far / max(scale, 1e-30)
                return f"{name}: {share:.1e} from the reference, {allowed:.1e} is allowed"
            continue
        try:
            ref.assert_close(array, wanted[name], name, dtype)
        except AssertionError:
            largest = float(np.abs(wanted[name]).max())
            worst = float(np.abs(array - wanted[name]).max()) / max(largest, 1e-30)
            return f"{name}: {worst:.1e} of its largest value away from the reference, " + (
                f"about {tolerance:.1e} is allowed"
            )
    return None
