"""fastrnn's kernels as a module of PyTorch that learns: a language model's layers on a GPU."""

from __future__ import annotations

from typing import Any, Optional, Sequence, Tuple

import numpy as np
import torch

from fastrnn import kernels


def _stream(tensor: Any) -> Any:
    return torch.cuda.current_stream() if tensor.is_cuda else None


def _tensors(arrays: Sequence[Any]) -> Tuple[Any, ...]:
    return tuple(None if array is None else torch.from_dlpack(array) for array in arrays)


class _Recurrence(torch.autograd.Function):
    """All layers. The reserve keeps what backward needs, in place of autograd's saved tensors."""

    @staticmethod
    def forward(
        ctx: Any, cell: str, tf32: bool, layers: int, x: Any, h_0: Any, c_0: Any, *weights: Any
    ) -> Tuple[Any, ...]:
        x, h_0, c_0, *detached = (
            None if a is None else a.detach() for a in (x, h_0, c_0, *weights)
        )
        how = {"layers": layers, "tf32": tf32, "reserve": True, "stream": _stream(x)}
        result = kernels.forward(cell, x, detached, h_0, c_0, **how)
        ctx.reserve = result.reserve
        ctx.set_materialize_grads(False)  # the kernels take no gradient of a final state for zeros
        return _tensors(result[: 3 if cell == "lstm" else 2])

    @staticmethod
    def backward(ctx: Any, d_output: Any, d_h_n: Any, d_c_n: Any = None) -> Tuple[Any, ...]:
        if d_output is None:
            d_output = torch.zeros_like(torch.from_dlpack(ctx.reserve.output))
        heads = (None if d is None else d.contiguous() for d in (d_output, d_h_n, d_c_n))
        found = kernels.backward(ctx.reserve, *heads, stream=_stream(d_output))
        ctx.reserve = None
        found_for = [None, None, None, found.x, found.h_0, found.c_0, *found.weights]
        return _tensors(
            [one if needed else None for one, needed in zip(found_for, ctx.needs_input_grad)]
        )


class KernelsStack(torch.nn.Module):
    """Layers in one direction, called as ``torch.nn.LSTM`` and its siblings are.

    Parameters
    ----------
    weights
        As `data.Data` has them.
    """

    def __init__(self, cell: str, weights: Sequence[np.ndarray], device: str, tf32: bool):
        super().__init__()
        self.cell, self.tf32 = cell, tf32
        self.weights = torch.nn.ParameterList(
            torch.nn.Parameter(torch.from_numpy(w.copy()).to(device)) for w in weights
        )

    def forward(self, x: Any, states: Optional[Any] = None) -> Tuple[Any, Any]:
        """Output [T, N, H], and the final states [L, N, H]: of an LSTM both, as a tuple."""
        weights, layers = list(self.weights), len(self.weights) // 4
        if states is not None and self.cell != "lstm":
            states = (states,)
        h_0, c_0 = [*(states or ()), None, None][:2]
        if torch.is_grad_enabled():
            found = _Recurrence.apply(self.cell, self.tf32, layers, x, h_0, c_0, *weights)
        else:
            how = {"layers": layers, "tf32": self.tf32, "stream": _stream(x)}
            detached = [w.detach() for w in weights]
            result = kernels.forward(self.cell, x, detached, h_0, c_0, **how)
            found = _tensors(result[: 3 if self.cell == "lstm" else 2])
        output, *finals = found
        return output, tuple(finals) if self.cell == "lstm" else finals[0]
