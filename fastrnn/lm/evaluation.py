"""The loss of a model on a text."""

from __future__ import annotations

from typing import Any, Iterator, Tuple

import numpy as np

from fastrnn.lm.batches import Batch, arrange, bptt_batches, sliding_windows
from fastrnn.lm.config import Settings
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()


def batch_loss(model: Any, inputs: Any, targets: Any, states: Any) -> Tuple[Any, Any]:
    """Cross entropy summed over a batch, in nats, and the states after it, detached.

    Parameters
    ----------
    inputs, targets : NDArray
        Both (T, N) for the language model, (N, window) and (N,) for the unrolled one.
    states : list of NDArray, or None for the unrolled model

    Returns
    -------
    loss : NDArray, shape (1,)
    states : list of NDArray, or None
    """
    logits, states = predict(model, inputs, states)
    return -_log_likelihood(logits, targets).sum(), states


def predict(model: Any, inputs: Any, states: Any) -> Tuple[Any, Any]:
    """Logits, and the states after the batch, detached; arguments as for :func:`batch_loss`."""
    if states is None:
        return model(inputs), None
    logits, states = model(inputs, states)
    return logits, [state.detach() for state in states]


def loss_and_gradient(logits: Any, targets: Any) -> Tuple[Any, Any]:
    """Cross entropy summed over a batch, shape (1,), and its gradient by the logits.

    The gradient is the softmax, less 1 at the targets. Autograd would take three passes over arrays
    of the vocabulary's size for it, one of which takes as long as all of this.
    """
    likelihood = _log_likelihood(logits, targets)
    gradient = mx.nd.softmax(logits, axis=-1)
    rows = gradient.reshape((-1, gradient.shape[-1]))  # the same memory
    numbers = mx.nd.arange(rows.shape[0], ctx=targets.context, dtype=targets.dtype)
    mx.nd._internal._scatter_set_nd(
        lhs=rows,
        rhs=mx.nd.expm1(likelihood.reshape(-1)),
        indices=mx.nd.stack(numbers, targets.reshape(-1)),
        shape=rows.shape,
        out=rows,
    )
    return -likelihood.sum(), gradient


def _log_likelihood(logits: Any, targets: Any) -> Any:
    return mx.nd.pick(mx.nd.log_softmax(logits, axis=-1), targets, axis=-1)


def predicted(numbers: np.ndarray, settings: Settings) -> Tuple[int, int]:
    """First and last (exclusive) position of the tokens that :func:`evaluate` predicts."""
    if settings.model == "unrolled":
        return settings.window, len(numbers)
    rows = _evaluation_rows(numbers, settings)
    return 1, 1 + (len(numbers) - 1) // rows * rows


def _evaluation_rows(numbers: np.ndarray, settings: Settings) -> int:
    return max(1, min(settings.batch, (len(numbers) - 1) // settings.steps))


def evaluate(model: Any, numbers: np.ndarray, settings: Settings, context: Any) -> float:
    """Mean loss of a model on a text.

    The text is laid out in as many streams as a training batch has, each from a zero state, or in
    fewer if it is short.

    Returns
    -------
    float
        Nats per token, over the tokens that :func:`predicted` says.
    """
    batches: Iterator[Batch]
    if settings.model == "unrolled":
        windows, targets = sliding_windows(numbers, settings.window)
        size = settings.batch * settings.steps
        cuts = range(0, len(windows), size)
        batches = ((windows[c : c + size], targets[c : c + size]) for c in cuts)
        states = None
    else:
        rows = _evaluation_rows(numbers, settings)
        batches = bptt_batches(*arrange(numbers, rows), settings.steps)
        states = model.begin_state(rows, ctx=context)
    total, count = 0.0, 0
    for batch in batches:
        inputs, answers = (mx.nd.array(array, context, dtype="int32") for array in batch)
        loss, states = batch_loss(model, inputs, answers, states)
        total += float(loss.asscalar())
        count += answers.size
    return total / count
