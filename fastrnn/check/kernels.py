"""Runs one class of kernels: right numbers, the same bits each time, also on two streams."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from fastrnn import kernels
from fastrnn.check import problems
from fastrnn.check.classes import STEPWISE, KernelClass, Variant
from fastrnn.check.kinds import CPU, MATHS, Device
from fastrnn.check.problems import Arrays, Problem, Shape
from fastrnn.kernels import Gradients, Result

# Of a layer that fits any kernel: no size is a whole number of tiles.
_SMALL_STEPS, _SMALL_ROWS, _SMALL_HIDDEN = 5, 19, 45
# CUDA's name for each thread's own default stream.
_THREADS_OWN_STREAM = 2


class WrongResultError(RuntimeError):
    """The kernels do not compute what they should; the message says what is wrong."""


class Effort(NamedTuple):
    """How much is run of each class."""

    steps: int = 12  # of a layer at full size
    repeats: int = 200  # of a layer at full size
    pairs: int = 5  # of launches on two streams
    every_kernel: bool = False  # at full size; else the one with the largest layer


class Call:
    """A layer's arrays on a device, and the kernels that compute it."""

    def __init__(self, problem: Problem, math: str, device: Device, algorithm: Optional[str]):
        self._problem, self._device = problem, device
        self._dtype, tf32 = MATHS[math]
        self._arguments: Dict[str, Any] = {
            "mode": problem.shape.cell,
            "x": self._put(problem.x),
            "weights": [self._put(w) for w in problem.weights],
            "h_0": self._put(problem.h_0),
            "c_0": self._put(problem.c_0),
            "lengths": self._put(problem.lengths, "int32"),
            "projected": problem.shape.projected,
            "clip": problem.shape.clip,
            "noise": problem.shape.rates,
            "seed": problem.seed,
            "layer_norm": problem.shape.layer_norm,
            "tf32": tf32,
            "algorithm": algorithm,
        }
        gradients = (problem.d_output, problem.d_h_n, problem.d_c_n)
        self._gradients = [self._put(array) for array in gradients]

    def _put(self, array: Optional[np.ndarray], dtype: str = "") -> Any:
        if array is None:
            return None
        if self._device == CPU:
            return array.astype(dtype or self._dtype)
        return kernels.to_device(array, dtype or self._dtype, int(self._device))

    def _get(self, arrays: Dict[str, Any]) -> Arrays:
        return {
            name: array if isinstance(array, np.ndarray) else kernels.to_host(array)
            for name, array in arrays.items()
            if array is not None
        }

    def forward(self, stream: Optional[int] = None) -> Arrays:
        """Run a call that keeps nothing for a backward pass."""
        result = kernels.forward(**self._arguments, stream=stream)
        return self._get({"output": result.output, "h_n": result.h_n, "c_n": result.c_n})

    def forward_and_wait(self) -> None:
        """Run forward, and copy the final states alone."""
        self._get({"h_n": kernels.forward(**self._arguments).h_n})

    def backward(self) -> Arrays:
        """Run both passes."""
        result, found = self._backward()
        arrays = {"output": result.output, "h_n": result.h_n, "c_n": result.c_n}
        arrays.update({"gradient of x": found.x, "gradient of h_0": found.h_0})
        arrays["gradient of c_0"] = found.c_0
        arrays.update({f"gradient of weights[{k}]": w for k, w in enumerate(found.weights)})
        return self._get(arrays)

    def _backward(self, stream: Optional[int] = None) -> Tuple[Result, Gradients]:
        result = kernels.forward(**self._arguments, reserve=True, stream=stream)
        assert result.reserve is not None
        return result, kernels.backward(result.reserve, *self._gradients, stream=stream)

    def run(self, backward: bool, stream: Optional[int] = None) -> Arrays:
        """Run the pass, and copy the results that depend on all its steps, and are small."""
        if not backward:
            return self.forward(stream)
        found = self._backward(stream)[1]
        return self._get({"gradient of x": found.x, "gradient of h_0": found.h_0})


def check(cls: KernelClass, variants: Sequence[Variant], device: Device, effort: Effort) -> None:
    """Run a class.

    Raises
    ------
    WrongResultError
        A result differs from the reference, or from the same call's before.
    ValueError, RuntimeError
        The kernels refused, or a library underneath failed.
    """
    kind = cls.kind
    for variant in variants:
        if variant.small is not None:
            sizes = (_SMALL_STEPS, _SMALL_ROWS, _SMALL_HIDDEN)
            _right(cls, kind.layer(*sizes), variant.small, device)
    for variant in _at_full_size(variants, effort.every_kernel or device == CPU):
        shape = kind.layer(effort.steps, variant.rows, variant.hidden)
        call = _right(cls, shape, variant.algorithm, device)
        if device != CPU and (variant.algorithm == STEPWISE or kind.lengths):
            continue  # the exchange between blocks does not depend on lengths
        first = call.run(cls.backward)
        for number in range(effort.repeats if device != CPU else effort.pairs):
            _same(first, [call.run(cls.backward)], f"call {number + 2} of {_layer(shape)}")
        if device != CPU:
            _on_two_streams(cls, call, shape, first, effort.pairs)


def _at_full_size(variants: Sequence[Variant], every: bool) -> List[Variant]:
    largest = max(variants, key=lambda v: v.rows * v.hidden)
    return list(variants) if every else [largest]


def _right(cls: KernelClass, shape: Shape, algorithm: Optional[str], device: Device) -> Call:
    """Compare a layer with the reference."""
    problem = problems.problem(shape)
    call = Call(problem, cls.kind.math, device, algorithm)
    actual = call.backward() if cls.backward else call.forward()
    wrong = problems.difference(actual, problem.wanted, cls.kind.math)
    if wrong is not None:
        raise WrongResultError(f"{wrong} ({_layer(shape)}, algorithm={algorithm})")
    return call


def _layer(shape: Shape) -> str:
    return f"T={shape.steps} N={shape.rows} H={shape.hidden}"


def _same(first: Arrays, others: Iterable[Arrays], what: str) -> None:
    for other in others:
        for name, array in first.items():
            if not np.array_equal(array, other[name], equal_nan=True):
                count = int((array != other[name]).sum())
                raise WrongResultError(
                    f"{name}: {count} of {array.size} numbers differ between equal calls ({what})"
                )


def _on_two_streams(cls: KernelClass, call: Call, shape: Shape, first: Arrays, pairs: int) -> None:
    """Run the layer in two threads, each on a stream of its own."""
    with ThreadPoolExecutor(2) as pool:
        for _ in range(pairs):
            both = [pool.submit(call.run, cls.backward, _THREADS_OWN_STREAM) for _ in range(2)]
            _same(first, [one.result() for one in both], f"{_layer(shape)} on two streams")
