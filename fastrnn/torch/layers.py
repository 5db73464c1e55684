"""PyTorch's recurrent layers, with the same arguments, parameters and numbers."""

from __future__ import annotations

from typing import Any, List, Optional, Sequence, Tuple

import torch
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from fastrnn.torch import backend as backends
from fastrnn.torch import operators
from fastrnn.torch.backend import Backend

Tensor = Any  # PyTorch may be missing where types are checked


class _Layer(torch.nn.RNNBase):
    """What the three layers share. In the MRO it comes before PyTorch's layer."""

    _choice: str

    def __init__(self, *args: Any, backend: str = "auto", **kwargs: Any) -> None:
        choice = backends.checked(backend)
        super().__init__(*args, **kwargs)
        self._choice = choice
        if choice == "native" and self.backend.name != "native":
            raise ValueError(f"backend is 'native', but {self.backend.reason}")

    @property
    def backend(self) -> Backend:
        """What the layer runs on for inputs of its parameters' type and device, and why."""
        weight = getattr(self, self._all_weights[0][0])
        why_not = self._obstacle(weight.dtype, weight.device)
        if why_not is not None:
            return Backend("torch", why_not)
        if self._choice == "native" or weight.device.type != "cpu":
            return Backend("native", backends.COVERED)
        rule = backends.rule(self.mode, self.hidden_size)
        return Backend("native", f"{backends.COVERED}; {rule}")

    def backend_for(self, input: Any, hx: Any = None) -> Backend:
        """Tell what a call with these arguments runs on, and why, without making it.

        Parameters
        ----------
        input, hx
            As for a call of the layer.
        """
        why_not = self._why_not(input, hx)
        if why_not is not None:
            return Backend("torch", why_not)
        return Backend("native", backends.COVERED)

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Run the layer; arguments and results are those of PyTorch's layer."""
        if self._why_not(input, hx) is not None:
            return super().forward(input, hx)
        if isinstance(input, PackedSequence):
            return self._run_packed(input, hx)
        batched = input.dim() == 3
        states = self._as_list(hx)
        if not batched:
            input, states = input.unsqueeze(1), [state.unsqueeze(1) for state in states]
        transposed = batched and self.batch_first
        x = input.transpose(0, 1) if transposed else input
        output, finals = self._run(x, states, None)
        if transposed:
            output = output.transpose(0, 1)
        if not batched:
            output, finals = output.squeeze(1), [final.squeeze(1) for final in finals]
        return output, self._as_hx(finals)

    def _run_packed(self, packed: PackedSequence, hx: Any) -> Tuple[PackedSequence, Any]:
        """Run the layer on sequences whose steps lie one after the other, the longest first."""
        data, batch_sizes, order, original_order = packed
        if hx is not None:
            hx = self.permute_hidden(hx, order)
        x, lengths = pad_packed_sequence(PackedSequence(data, batch_sizes))
        equal = bool(lengths[-1] == lengths[0])
        on_device = None if equal else lengths.to(data.device, torch.int32)
        output, finals = self._run(x, self._as_list(hx), on_device)
        values = pack_padded_sequence(output, lengths).data
        hx = self.permute_hidden(self._as_hx(finals), original_order)
        return PackedSequence(values, batch_sizes, order, original_order), hx

    def _run(
        self, x: Tensor, states: Sequence[Tensor], lengths: Optional[Tensor]
    ) -> Tuple[Tensor, List[Tensor]]:
        """Call the kernels.

        Parameters
        ----------
        x
            [T, N, I].
        states
            [L*D, N, P], and for an LSTM [L*D, N, H]; none for zeros.
        lengths
            [N] of int32 on the input's device; None: every row has T steps.

        Returns
        -------
        output, states
            [T, N, D*P], and the final states in the shapes of the initial ones.
        """
        weights = [getattr(self, name) for of_cell in self._all_weights for name in of_cell]
        tensors = [x, *states, *weights]
        reserve = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        dtype = _computed_in(x)
        x, *states = (_of_type(tensor, dtype) for tensor in (x, *states))
        weights = [_of_type(weight, dtype) for weight in weights]
        weights = self._with_five(weights)
        mode, layers, x = self.mode.lower(), self.num_layers, x.contiguous()
        directions = 2 if self.bidirectional else 1
        drops = self.training and self.dropout > 0
        own = (
            [state.split(directions) for state in states] if layers > 1 else [(s,) for s in states]
        )
        finals = []
        for k in range(layers):
            if drops and k > 0:
                x = dropout(x, self.dropout)
            of_layer = weights[5 * directions * k : 5 * directions * (k + 1)]
            x, after = operators.layer(mode, x, [s[k] for s in own], of_layer, lengths, reserve)
            finals.append(after)
        return x, finals[0] if layers == 1 else [torch.cat(after) for after in zip(*finals)]

    def _with_five(self, weights: List[Tensor]) -> List[Optional[Tensor]]:
        """Add what a direction's weights lack: zeros for biases, and None for a projection."""
        count = len(self._all_weights[0])
        biases: List[Tensor] = [] if self.bias else [weights[0].new_zeros(weights[0].shape[0])] * 2
        projection = [] if self.proj_size else [None]
        before = 4 if self.bias else 2  # the projection's weights come last
        return [
            each
            for k in range(0, len(weights), count)
            for each in (
                *weights[k : k + before],
                *biases,
                *weights[k + before : k + count],
                *projection,
            )
        ]

    def _as_list(self, hx: Any) -> List[Tensor]:
        """Return the states of an argument `hx`."""
        if hx is None:
            return []
        return list(hx) if self.mode == "LSTM" else [hx]

    def _as_hx(self, states: Sequence[Tensor]) -> Any:
        return tuple(states) if self.mode == "LSTM" else states[0]

    # ---- the choice -----------------------------------------------------------------------------

    def _obstacle(self, dtype: Any, device: Any) -> Optional[str]:
        """Return why the kernels cannot compute in a type on a device, or None."""
        if self._choice == "torch":
            return "backend='torch'"
        found: Optional[str] = backends.obstacle(dtype, device.type, device.index)
        if found is None and self._choice == "auto" and device.type == "cpu":
            return backends.LEFT_TO_PYTORCH.get(str(dtype)[len("torch.") :])
        return found

    def _why_not(self, input: Any, hx: Any) -> Optional[str]:
        """Return why a call does not run on the kernels, or None."""
        packed = isinstance(input, PackedSequence)
        data = input.data if packed else input
        if not isinstance(data, torch.Tensor):
            return backends.UNUSUAL
        batch_sizes = input.batch_sizes if packed else None
        return (
            self._program()
            or self._obstacle(_computed_in(data), data.device)
            or self._unusual(data, hx, batch_sizes)
            or self._slower(data, batch_sizes)
        )

    @staticmethod
    def _program() -> Optional[str]:
        """Return why what the call becomes a part of needs PyTorch's operators, or None."""
        if torch.jit.is_tracing() or torch.onnx.is_in_onnx_export():
            return "programs of TorchScript and of ONNX consist of PyTorch's operators"
        if torch.compiler.is_compiling():
            return None
        if torch._C._are_functorch_transforms_active():
            return "the kernels do not have the transforms of torch.func"
        if torch.autograd.forward_ad._current_level >= 0:
            return "the kernels do not have forward-mode derivatives"
        return None

    def _slower(self, data: Tensor, batch_sizes: Optional[Tensor]) -> Optional[str]:
        """Return why the kernels would be slower than PyTorch's layer, or None."""
        # A compiled program serves other sizes, too, and PyTorch's layer cannot be compiled.
        if self._choice == "native" or data.is_cuda or torch.compiler.is_compiling():
            return None
        if batch_sizes is not None:
            return backends.slower(self.mode, self.hidden_size, len(batch_sizes), True)
        steps = data.shape[1 if self.batch_first and data.dim() == 3 else 0]
        return backends.slower(self.mode, self.hidden_size, steps, False)

    def _unusual(self, data: Tensor, hx: Any, batch_sizes: Optional[Tensor]) -> Optional[str]:
        """Return a reason if the call is empty or not a valid one, else None."""
        rows = self._rows(data, batch_sizes)
        fits = rows is not None and self._states_fit(data, hx, rows, batch_sizes is not None)
        return None if fits else backends.UNUSUAL

    def _rows(self, data: Tensor, batch_sizes: Optional[Tensor]) -> Optional[int]:
        """Return N; None if the input is empty or is not one for the layer's parameters."""
        dimensions = data.dim()
        if dimensions != 2 and (batch_sizes is not None or dimensions != 3):
            return None
        weights = (getattr(self, name) for of_cell in self._all_weights for name in of_cell)
        fits = all(_fits(weight, data) for weight in weights)
        if not fits or data.shape[-1] != self.input_size:
            return None
        # A compiled program may be called with other sizes, which this must not look at.
        if not torch.compiler.is_compiling() and data.numel() == 0:
            return None
        if batch_sizes is not None:
            return int(batch_sizes[0])
        if dimensions == 2:
            return 1
        rows: int = data.shape[0 if self.batch_first else 1]
        return rows

    def _states_fit(self, data: Tensor, hx: Any, rows: int, packed: bool) -> bool:
        """Whether the initial states are those of a valid call."""
        if hx is None:
            return True
        lstm = self.mode == "LSTM"
        if lstm and not (isinstance(hx, (tuple, list)) and len(hx) == 2):
            return False
        states = hx if lstm else (hx,)
        if not all(isinstance(state, torch.Tensor) for state in states):
            return False
        count = self.num_layers * (1 + self.bidirectional)
        leading = (count, rows) if packed or data.dim() == 3 else (count,)
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)
        return all(
            state.shape == (*leading, size) and _fits(state, data)
            for state, size in zip(states, sizes)
        )


def _is_converted(tensor: Tensor) -> bool:
    """Whether autocast converts a tensor: it leaves float64, integers and other devices alone."""
    kind = tensor.device.type
    of_autocast = (torch.float32, torch.float16, torch.bfloat16)
    if kind not in ("cpu", "cuda") or tensor.dtype not in of_autocast:
        return False
    enabled: bool = torch.is_autocast_enabled(kind)
    return enabled


def _fits(tensor: Tensor, data: Tensor) -> bool:
    """Whether a parameter or state is on the input's device, and of its type or converted to it."""
    typed = tensor.dtype == data.dtype or (_is_converted(tensor) and _is_converted(data))
    return typed and tensor.device == data.device


def _computed_in(data: Tensor) -> Any:
    """Return the type that a call computes in, which autocast sets where it is enabled."""
    return torch.get_autocast_dtype(data.device.type) if _is_converted(data) else data.dtype


def _of_type(tensor: Tensor, dtype: Any) -> Tensor:
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


class LSTM(_Layer, torch.nn.LSTM):
    """Long short-term memory: a drop-in replacement for `torch.nn.LSTM`.

    It takes the same arguments, and `backend`: ``'native'`` for fastrnn's kernels, ``'torch'`` for
    PyTorch's layer, ``'auto'`` (the default) for the kernels wherever they cover the call and are
    no slower. The property `backend` tells which one runs, and why.
    """


class GRU(_Layer, torch.nn.GRU):
    """Gated recurrent unit: a drop-in replacement for `torch.nn.GRU`.

    It takes the same arguments, and `backend`, as for `LSTM`.
    """


class RNN(_Layer, torch.nn.RNN):
    """Elman network, tanh or ReLU: a drop-in replacement for `torch.nn.RNN`.

    It takes the same arguments, and `backend`, as for `LSTM`.
    """
