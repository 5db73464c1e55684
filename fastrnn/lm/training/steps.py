"""What a training step computes: gradients, their norm, the optimizer's state."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Callable, ContextManager, List, Sequence, Tuple

from fastrnn.lm.evaluation import loss_and_gradient, predict
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()


def differentiate(
    model: Any,
    inputs: Any,
    targets: Any,
    states: Any,
    part: Callable[[str], ContextManager[Any]] = nullcontext,
    scale: float = 1.0,
) -> Tuple[Any, Any]:
    """Compute the gradients of the parameters, times `scale`.

    Parameters
    ----------
    inputs, targets : NDArray
        Both (T, N) for the language model, (N, window) and (N,) for the unrolled one.
    states : list of NDArray, or None for the unrolled model
    part
        Encloses each part of the work.

    Returns
    -------
    loss : NDArray, shape (1,)
        Cross entropy summed over the batch, in nats.
    states : list of NDArray, or None
        Those after the batch, detached.
    """
    with part("forward"), mx.autograd.record():
        logits, states = predict(model, inputs, states)
    with part("loss"):
        loss, gradient = loss_and_gradient(logits, targets)
    with part("backward"):
        logits.backward(gradient if scale == 1 else gradient * scale)
    return loss, states


def global_norm(arrays: Sequence[Any]) -> Any:
    """The 2-norm of arrays on one device, dense or row-sparse, together; shape (1,), float32."""
    return mx.nd.add_n(*map(_square, arrays)).sqrt()


def state_arrays(state: Any) -> List[Any]:
    """The arrays of an optimizer's state: nested tuples, with None where there is nothing."""
    if isinstance(state, (list, tuple)):
        return [array for part in state for array in state_arrays(part)]
    return [] if state is None else [state]


def _square(array: Any) -> Any:
    if array.stype != "default":
        return array.norm().square()
    # Squares of float16 overflow.
    flat = array.astype("float32", copy=False).reshape(-1)
    return mx.nd.dot(flat, flat)
