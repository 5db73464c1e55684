"""A layer as operators of PyTorch: on the CPU and on CUDA, with autograd, and for tracing.

Each direction has its weights as arguments of their own, since autograd handles lists of tensors in
Python: for a small layer, that takes longer than the layer.
"""

from __future__ import annotations

import functools
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch.utils.dlpack import to_dlpack

from fastrnn import _native, kernels

Tensor = Any  # PyTorch may be missing where types are checked
Outcome = Tuple[Tensor, Tensor, Tensor, Tensor]

_SECOND_DERIVATIVE = (
    "fastrnn's kernels have no second derivative, as cuDNN's have none. Make the layer with "
    "backend='torch' to have PyTorch's"
)
_NO_RESERVE = (
    "fastrnn::layer was called with reserve=False, which keeps nothing for a backward pass; "
    "expected reserve=True where gradients are wanted"
)

# x, both initial states, the weights of one direction and of the other, and the lengths.
_INPUTS = (
    "Tensor x, Tensor? h_0, Tensor? c_0, "
    "Tensor i2h_weight, Tensor h2h_weight, Tensor i2h_bias, Tensor h2h_bias, Tensor? h2r_weight, "
    "Tensor? i2h_weight_reverse, Tensor? h2h_weight_reverse, "
    "Tensor? i2h_bias_reverse, Tensor? h2h_bias_reverse, Tensor? h2r_weight_reverse, "
    "Tensor? lengths"
)
# Places among the inputs.
_WEIGHTS, _H2R_WEIGHT, _SECOND_DIRECTION = slice(3, 13), 7, 8

_library = torch.library.Library("fastrnn", "DEF")
_library.define(
    f"layer(str mode, {_INPUTS}, bool reserve) -> (Tensor output, Tensor h_n, Tensor c_n, "
    "Tensor values)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_library.define(
    f"layer_backward(str mode, {_INPUTS}, Tensor output, Tensor values, Tensor d_output, "
    "Tensor? d_h_n, Tensor? d_c_n) -> Tensor[]",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def layer(
    mode: str,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Optional[Tensor],
    reserve: bool,
) -> Tuple[Tensor, List[Tensor]]:
    """Run one layer.

    Parameters
    ----------
    mode, x, lengths
        As for `fastrnn.kernels.forward`, with one layer.
    states
        h_0 [D, N, P] and, for an LSTM, c_0 [D, N, H]; none for zeros.
    weights
        Of each direction: i2h_weight, h2h_weight, i2h_bias, h2h_bias, and h2r_weight or None.
    reserve
        Whether there may be a backward pass.

    Returns
    -------
    output, states
        [T, N, D*P], and the states after each row's last step.
    """
    h_0, c_0 = [*states, None, None][:2]
    second = weights[5:] or (None, None, None, None, None)
    output, h_n, c_n, _ = torch.ops.fastrnn.layer(
        mode, x, h_0, c_0, *weights[:5], *second, lengths, reserve
    )
    return output, [h_n, c_n] if mode == "lstm" else [h_n]


# ---- forward ------------------------------------------------------------------------------------


def _results(mode: str, x: Tensor, *others: Any) -> Outcome:
    """Make the arrays that forward writes; c_n and the values are empty where there are none."""
    *inputs, reserve = others
    steps, rows, _ = x.shape
    directions, outputs, hidden, projected = _sizes((x, *inputs))
    words = 0
    if reserve:
        projection = int(outputs) if projected else 0
        words = _reserve_words(mode, x.dtype, int(hidden), directions, projection)
    return (
        x.new_empty((steps, rows, directions * outputs)),
        x.new_empty((directions, rows, outputs)),
        x.new_empty((directions, rows, hidden) if mode == "lstm" else (0,)),
        x.new_empty((steps * rows * words,), dtype=torch.float32),
    )


def _forward(mode: str, *arguments: Any) -> Outcome:
    made = _results(mode, *arguments)
    output, h_n, c_n, values = map(_array, made)
    *inputs, reserve = arguments
    x, h_0, c_0, *_, lengths = inputs
    kept = kernels.Reserve(
        *(mode, None, None, None, (), 1, None, False, None, None, None, False, None, None),
        output,
        values,
    )
    kernels.forward(
        mode,
        _array(x),
        [_array(w) for w in _weights_of(inputs)],
        _array(h_0),
        _array(c_0),
        lengths=_array(lengths),
        projected=inputs[_H2R_WEIGHT] is not None,
        tf32=_tf32(x),
        reserve=reserve,
        out=kernels.Result(output, h_n, c_n if mode == "lstm" else None, kept),
        **_resources(x),
    )
    return made


def _weights_of(inputs: Sequence[Any]) -> List[Tensor]:
    return [weight for weight in inputs[_WEIGHTS] if weight is not None]


def _sizes(inputs: Sequence[Any]) -> Tuple[int, int, int, bool]:
    """Return D, P, H and whether the layer is projected."""
    directions = 1 if inputs[_SECOND_DIRECTION] is None else 2
    outputs, h2r_weight = inputs[_WEIGHTS][1].shape[1], inputs[_H2R_WEIGHT]
    if h2r_weight is None:
        return directions, outputs, outputs, False
    return directions, outputs, h2r_weight.shape[1], True


@functools.lru_cache(maxsize=None)
def _reserve_words(mode: str, dtype: Any, hidden: int, directions: int, projection: int) -> int:
    name = str(dtype)[len("torch.") :]
    words: int = _native.library().reserve_words(mode, name, hidden, directions, 1, projection)
    return words


# ---- backward -----------------------------------------------------------------------------------


def _gradients(mode: str, x: Tensor, *others: Any) -> List[Tensor]:
    """Make the arrays that backward writes: of x, h_0, for an LSTM c_0, and of the weights."""
    inputs, rows = (x, *others), x.shape[1]
    directions, outputs, hidden, _ = _sizes(inputs)
    shapes = [x.shape, (directions, rows, outputs)]
    if mode == "lstm":
        shapes.append((directions, rows, hidden))
    shapes += [weight.shape for weight in _weights_of(inputs)]
    return [x.new_empty(shape) for shape in shapes]


def _backward(mode: str, *arguments: Any) -> List[Tensor]:
    made = _gradients(mode, *arguments)
    d_x, d_h_0, *d_others = map(_array, made)
    d_c_0 = d_others.pop(0) if mode == "lstm" else None
    *inputs, output, values, d_output, d_h_n, d_c_n = arguments
    x, h_0, c_0, *_, lengths = inputs
    kept = kernels.Reserve(
        mode,
        _array(x),
        _array(h_0),
        _array(c_0),
        [_array(w) for w in _weights_of(inputs)],
        1,
        _array(lengths),
        inputs[_H2R_WEIGHT] is not None,
        None,
        None,
        None,
        False,
        _tf32(x),
        None,
        _array(output),
        _array(values),
    )
    kernels.backward(
        kept,
        *map(_array, (d_output, d_h_n, d_c_n)),
        out=kernels.Gradients(d_x, d_h_0, d_c_0, d_others),
        **_resources(x),
    )
    return made


def _keep(ctx: Any, inputs: Tuple[Any, ...], output: Outcome) -> None:
    """Save what backward reads."""
    mode, *arrays, reserve = inputs
    y, _, _, values = output
    ctx.mode, ctx.reserve = mode, reserve
    ctx.set_materialize_grads(False)  # the kernels take no gradient of a final state for zeros
    ctx.mark_non_differentiable(values)
    if reserve:
        ctx.save_for_backward(*arrays, y, values)


def _differentiate(ctx: Any, *heads: Optional[Tensor]) -> Tuple[Optional[Tensor], ...]:
    if not ctx.reserve:
        raise RuntimeError(_NO_RESERVE)
    d_output, d_h_n, d_c_n, _ = heads
    *arrays, output, values = ctx.saved_tensors
    if d_output is None:
        if d_h_n is None and d_c_n is None:
            return (None,) * (len(arrays) + 2)
        d_output = torch.zeros_like(output)
    d_c_n = d_c_n if ctx.mode == "lstm" else None
    found = iter(
        torch.ops.fastrnn.layer_backward(ctx.mode, *arrays, output, values, d_output, d_h_n, d_c_n)
    )
    d_x, d_h_0 = next(found), next(found)
    d_c_0 = next(found) if ctx.mode == "lstm" else None
    d_weights = [None if weight is None else next(found) for weight in arrays[_WEIGHTS]]
    d_states = [None if s is None else d for s, d in zip(arrays[1:3], (d_h_0, d_c_0))]
    return (None, d_x, *d_states, *d_weights, None, None)


def _refuse(ctx: Any, *gradients: Any) -> None:
    raise RuntimeError(_SECOND_DERIVATIVE)


# ---- arrays, threads and streams ----------------------------------------------------------------


def _array(tensor: Optional[Tensor]) -> Any:
    """Return a tensor's memory as the kernels read or write it: dense, row-major.

    It is ready on PyTorch's current stream, on which the kernels run. A NumPy array would keep
    FSDP from freeing the memory.
    """
    return None if tensor is None else to_dlpack(tensor.contiguous())


def _resources(x: Tensor) -> Dict[str, Any]:
    """Return what PyTorch runs its own operators on: a number of threads, or a stream."""
    if x.is_cuda:
        return {"stream": torch.cuda.current_stream(x.device)}
    return {"threads": torch.get_num_threads()}


def _tf32(x: Tensor) -> Optional[bool]:
    """Return False where PyTorch's recurrent layers may not use TF32, else fastrnn's default."""
    if not x.is_cuda:
        return None
    cudnn = torch.backends.cudnn
    if hasattr(cudnn.rnn, "fp32_precision"):  # from PyTorch 2.9 on
        return None if cudnn.rnn.fp32_precision == "tf32" else False
    return None if cudnn.allow_tf32 else False


for _device in ("CPU", "CUDA"):
    _library.impl("layer", _forward, _device)
    _library.impl("layer_backward", _backward, _device)
torch.library.register_fake("fastrnn::layer", _results, lib=_library)
torch.library.register_fake("fastrnn::layer_backward", _gradients, lib=_library)
torch.library.register_autograd("fastrnn::layer", _differentiate, setup_context=_keep, lib=_library)
torch.library.register_autograd("fastrnn::layer_backward", _refuse, lib=_library)
