"""How well a model predicts a text: its loss, and how often its suggestions are right."""

from __future__ import annotations

import math
from typing import Any, Iterator, NamedTuple, Optional, Tuple

import numpy as np

from fastrnn.lm.batches import Batch, arrange, bptt_batches, sliding_windows
from fastrnn.lm.config import Settings
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()


def predict(model: Any, inputs: Any, states: Any) -> Tuple[Any, Any]:
    """Run a model on a batch.

    Parameters
    ----------
    inputs : NDArray
        (T, N) for the language model, (N, window) for the unrolled one.
    states : list of NDArray, or None for the unrolled model

    Returns
    -------
    logits : NDArray, shape (T, N, vocabulary) or (N, vocabulary)
    states : list of NDArray, or None
        Those after the batch, detached.
    """
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
    total, count = 0.0, 0
    for logits, answers in _predictions(model, numbers, settings, context):
        total -= float(_log_likelihood(logits, answers).sum().asscalar())
        count += answers.size
    return total / count


class Scores(NamedTuple):
    """How well a model predicts the tokens of a text.

    Attributes
    ----------
    loss : float
        Nats per token.
    first, first_three : float
        The share of tokens that were the likeliest, or among the three likeliest. Equally likely
        tokens rank by their number. The marker of unknown tokens does not count: an unknown token
        is never predicted right.
    tokens : int
    """

    loss: float
    first: float
    first_three: float
    tokens: int


def measure(
    model: Any,
    numbers: np.ndarray,
    settings: Settings,
    context: Any,
    unknown: Optional[int] = None,
) -> Scores:
    """The loss, as :func:`evaluate` gives it, and how often the likeliest tokens were right.

    Parameters
    ----------
    unknown : int, optional
        The number of the marker of unknown tokens, if there is one.
    """
    total, count, first, three = 0.0, 0, 0.0, 0.0
    for logits, answers in _predictions(model, numbers, settings, context):
        total -= float(_log_likelihood(logits, answers).sum().asscalar())
        count += answers.size
        ranks = _ranks(logits, answers, unknown)
        first += float((ranks < 1).sum().asscalar())
        three += float((ranks < 3).sum().asscalar())
    return Scores(total / count, first / count, three / count, count)


def _ranks(logits: Any, targets: Any, unknown: Optional[int]) -> Any:
    """How many tokens were to be suggested before each target."""
    own = mx.nd.pick(logits, targets, axis=-1, keepdims=True)
    numbers = mx.nd.arange(logits.shape[-1], ctx=logits.context)
    answers = targets.astype("float32")
    before = mx.nd.broadcast_lesser(
        numbers.reshape((1,) * targets.ndim + (-1,)), answers.expand_dims(-1)
    )
    ahead = mx.nd.broadcast_greater(logits, own) + mx.nd.broadcast_equal(logits, own) * before
    if unknown is None:
        return ahead.sum(axis=-1)
    known = (numbers != unknown).reshape((1,) * targets.ndim + (-1,))
    never = (answers == unknown) * logits.shape[-1]
    return mx.nd.broadcast_mul(ahead, known).sum(axis=-1) + never


def _predictions(
    model: Any, numbers: np.ndarray, settings: Settings, context: Any
) -> Iterator[Tuple[Any, Any]]:
    """Logits and targets of each batch that a text makes."""
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
    for batch in batches:
        inputs, answers = (mx.nd.array(array, context, dtype="int32") for array in batch)
        logits, states = predict(model, inputs, states)
        yield logits, answers


def perplexity(nats: float) -> float:
    """The perplexity of a loss in nats."""
    return math.exp(nats) if nats < 700 else math.inf
