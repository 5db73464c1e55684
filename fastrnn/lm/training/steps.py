"""What a training step computes: gradients, and their norm."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Callable, ContextManager, Sequence, Tuple

from fastrnn.lm.evaluation import loss_and_gradient, predict
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()


def differentiate(
    model: Any,
    inputs: Any,
    targets: Any,
    states: Any,
    part: Callable[[str], ContextManager[Any]] = nullcontext,
) -> Tuple[Any, Any]:
    """Compute the gradients of the parameters.

    Arguments and results are those of :func:`fastrnn.lm.evaluation.batch_loss`; `part` encloses
    each part of the work.
    """
    with part("forward"), mx.autograd.record():
        logits, states = predict(model, inputs, states)
    with part("loss"):
        loss, gradient = loss_and_gradient(logits, targets)
    with part("backward"):
        logits.backward(gradient)
    return loss, states


def global_norm(arrays: Sequence[Any]) -> Any:
    """The 2-norm of arrays on one device, dense or row-sparse, together; shape (1,)."""
    squares = [
        mx.nd.dot(array.reshape(-1), array.reshape(-1))
        if array.stype == "default"
        else array.norm().square()
        for array in arrays
    ]
    return mx.nd.add_n(*squares).sqrt()
