"""A layer on the native operator against the same layer on MXNet's, on the same inputs."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from statistics import median
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple

import numpy as np

from fastrnn.check import problems
from fastrnn.check.kernels import WrongResultError
from fastrnn.check.kinds import CPU, MATHS, Device, Kind
from fastrnn.check.problems import Arrays, Problem, Shape
from fastrnn.check.verdict import Time

_NATIVE, _GLUON = "native", "gluon"
# Of the layer whose results are compared with the reference.
_STEPS, _ROWS, _HIDDEN = 5, 19, 45


class Timed(NamedTuple):
    """The layers that are timed, and for how long."""

    steps: int = 100
    rows: int = 32
    hidden: Tuple[int, ...] = (256, 1024)
    seconds: float = 0.02  # of each measurement
    rounds: int = 5


def check(kind: Kind, device: Device, timed: Timed) -> List[Time]:
    """Compare the operator's results with the reference, then time it against MXNet's.

    Raises
    ------
    WrongResultError
        The native operator's results are wrong.
    """
    with _math(kind.math):
        # MXNet's generator draws masks of its own.
        small = problems.problem(kind.layer(_STEPS, _ROWS, _HIDDEN), masks=False)
        layer = _Layer(kind, small, device, _NATIVE)
        wrong = problems.difference(layer.results(), small.wanted, kind.math)
        if wrong is not None:
            raise WrongResultError(f"MXNet's operator: {wrong}")
        if not kind.plain:
            # Without an operator of MXNet's, there is a loop over the steps, which takes long.
            sizes = tuple(sorted({timed.hidden[0], timed.hidden[-1]}))
            timed = timed._replace(hidden=sizes, steps=-(-timed.steps // 5))
        return [t for hidden in timed.hidden for t in _times(kind, hidden, device, timed)]


@contextmanager
def _math(math: str) -> Iterator[None]:
    """Have the operator, which asks the environment, compute in this way."""
    before = os.environ.get("FASTRNN_TF32")
    os.environ["FASTRNN_TF32"] = str(int(MATHS[math][1]))
    try:
        yield
    finally:
        if before is None:
            del os.environ["FASTRNN_TF32"]
        else:
            os.environ["FASTRNN_TF32"] = before


def _times(kind: Kind, hidden: int, device: Device, timed: Timed) -> List[Time]:
    problem = unsolved(kind.layer(timed.steps, timed.rows, hidden))
    layers = [_Layer(kind, problem, device, backend) for backend in (_NATIVE, _GLUON)]
    found = []
    for backward in (False, True):
        calls = [layer.train if backward else layer.infer for layer in layers]
        native, mxnet = in_turns(calls, timed.seconds, timed.rounds)
        found.append(Time(hidden, backward, native, mxnet))
    return found


def in_turns(calls: List[Callable[[], None]], seconds: float, rounds: int) -> List[float]:
    """Return the median seconds of each of the calls, measured in turns of so many seconds."""
    counts = []
    for call in calls:
        call()  # plans, allocates, chooses cuDNN's algorithm
        counts.append(max(1, min(1000, int(seconds / max(clock(call, 1), 1e-6)))))
    found: List[List[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for times, call, count in zip(found, calls, counts):
            times.append(clock(call, count) / count)
    return [median(times) for times in found]


def clock(call: Callable[[], None], count: int) -> float:
    """Return the seconds that so many calls take, each of which waits for its results."""
    begin = time.perf_counter()
    for _ in range(count):
        call()
    return time.perf_counter() - begin


def unsolved(shape: Shape) -> Problem:
    """Return a layer without the reference's results, which take long at full size."""
    rng = np.random.RandomState(1)
    gates = problems.ref.GATES[shape.cell] * shape.hidden
    state = (shape.directions, shape.rows, shape.outputs)
    sizes: Dict[str, Tuple[int, ...]] = {
        "i2h_weight": (gates, shape.inputs),
        "h2h_weight": (gates, shape.outputs),
        "h2r_weight": (shape.projection, shape.hidden),
        **dict.fromkeys(("i2h_bias", "h2h_bias", "i2h_gamma", "h2h_gamma"), (gates,)),
        **dict.fromkeys(("c_gamma", "c_beta"), (shape.hidden,)),
    }

    def draw(*size: int) -> np.ndarray:
        return rng.uniform(-0.05, 0.05, size).astype(np.float32)

    weights = [draw(*sizes[name]) for _ in range(shape.directions) for name in shape.weight_names]
    x = draw(shape.steps, shape.rows, shape.inputs)
    d_output = draw(shape.steps, shape.rows, shape.directions * shape.outputs)
    zeros = np.zeros(state, np.float32)
    cell_zeros = np.zeros((*state[:2], shape.hidden), np.float32)
    of_cell = cell_zeros if shape.cell == "lstm" else None
    lengths = problems.lengths_of(shape) if shape.lengths else None
    return Problem(shape, x, zeros, of_cell, weights, lengths, None, d_output, zeros, of_cell, {})


class _Layer:
    """A Gluon layer with a problem's arrays."""

    def __init__(self, kind: Kind, problem: Problem, device: Device, backend: str):
        import fastrnn
        from fastrnn.mxnet import native

        mx = self._mx = native.mx
        on_gpu = device != CPU and native.GPUS > 0  # an emulated one is MXNet's CPU
        context = mx.gpu(int(device)) if on_gpu else mx.cpu()
        shape, dtype = problem.shape, MATHS[kind.math][0]
        options: Dict[str, Any] = {"input_size": shape.inputs, "dtype": dtype, "backend": backend}
        options.update(bidirectional=kind.directions == 2, use_sequence_length=kind.lengths)
        if shape.projected:
            options["projection_size"] = shape.projection
        if shape.clip is not None:
            options.update(state_clip_min=shape.clip.low, state_clip_max=shape.clip.high)
        if shape.rates is not None:
            options.update((name, rate) for name, rate in shape.rates._asdict().items() if rate)
        if shape.layer_norm:
            options["layer_norm"] = True
        if kind.cell.startswith("rnn_"):
            options["activation"] = kind.cell[len("rnn_") :]
            self._layer = fastrnn.RNN(shape.hidden, **options)
        else:
            self._layer = getattr(fastrnn, kind.cell.upper())(shape.hidden, **options)
        self._layer.initialize(ctx=context)

        def put(array: Any) -> Any:
            return mx.nd.array(array, ctx=context, dtype=dtype)

        keys = [f"{d}0_{name}" for d in "lr"[: kind.directions] for name in shape.weight_names]
        self._weights = [getattr(self._layer, key) for key in keys]
        for parameter, array in zip(self._weights, problem.weights):
            parameter.set_data(put(array))
        self._x = put(problem.x)
        self._states = [put(state) for state in (problem.h_0, problem.c_0) if state is not None]
        heads = (problem.d_output, problem.d_h_n, problem.d_c_n)
        self._heads = [put(head) for head in heads if head is not None]
        self._lengths = []
        if problem.lengths is not None:
            self._lengths.append(mx.nd.array(problem.lengths, ctx=context, dtype="int32"))
        for array in (self._x, *self._states):
            array.attach_grad()

    def infer(self) -> None:
        """Run forward and wait."""
        output, _ = self._layer(self._x, self._states, *self._lengths)
        output.wait_to_read()

    def train(self, masks: bool = True) -> None:
        """Run both passes and wait; without masks, noise is in its inference form."""
        with self._mx.autograd.record(train_mode=masks):
            output, after = self._layer(self._x, self._states, *self._lengths)
        self._outputs = [output, *after]
        self._mx.autograd.backward(self._outputs, self._heads, train_mode=masks)
        self._x.grad.wait_to_read()
        self._weights[1].grad().wait_to_read()

    def results(self) -> Arrays:
        """Run both passes without masks, and return what the reference has."""
        self.train(masks=False)
        found = dict(zip(("output", "h_n", "c_n"), self._outputs))
        found["gradient of x"] = self._x.grad
        for name, state in zip(("h_0", "c_0"), self._states):
            found[f"gradient of {name}"] = state.grad
        found.update({f"gradient of weights[{k}]": w.grad() for k, w in enumerate(self._weights)})
        return {name: array.asnumpy().astype(np.float64) for name, array in found.items()}
