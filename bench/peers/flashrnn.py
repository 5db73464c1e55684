"""FlashRNN's function (PyPI ``flashrnn``): a recurrence of 16-bit types, behind a product."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, List, Optional

from bench.cases import GATES, Case
from bench.data import Data, Results, named
from bench.peers.base import Layer, Peer
from bench.peers.pytorch import to_host

FUNCTIONS = {"lstm": "lstm", "gru": "gru", "rnn_tanh": "elman"}


class FlashrnnLayer(Layer):
    """One head, so that the recurrent matrix is dense.

    Its input is [N, T, G, heads, H], so the input's product is PyTorch's, as it is for its users.
    Its GRU takes as fourth bias the one of the new gate's input, and the recurrent part first.
    """

    def __init__(self, torch: Any, function: Any, case: Case, data: Data, device: str):
        self._torch, self._function, self._case = torch, function, case
        kind = getattr(torch, case.dtype)

        def put(array: Any) -> Any:
            return torch.from_numpy(array).to(device, kind).requires_grad_(case.train)

        self._weights = [put(w) for w in data.weights]
        self._xs = [put(x) for x in data.xs]
        self._d_outputs = [put(d).detach() for d in data.d_outputs]
        states = 2 if case.cell == "lstm" else 1
        shape = (states, case.batch, 1, 1, case.hidden)
        self._zeros = torch.zeros(shape, device=device, dtype=kind)
        self._latest: List[Any] = []

    def _recurrent(self, h2h: Any, i2h_bias: Any, h2h_bias: Any) -> Any:
        """R [G, 1, H, H] and b, in FlashRNN's order of gates."""
        gates, hidden = GATES[self._case.cell], self._case.hidden
        matrix = h2h.view(gates, 1, hidden, hidden)
        if self._case.cell != "gru":
            return matrix, (i2h_bias + h2h_bias).view(gates, 1, hidden)
        of_input, of_state = i2h_bias.view(3, 1, hidden), h2h_bias.view(3, 1, hidden)
        parts = [of_state[2:], of_input[:2] + of_state[:2], of_input[2:]]
        return matrix.roll(1, 0), self._torch.cat(parts)

    def _forward(self, x: Any) -> Any:
        case, torch, output = self._case, self._torch, x
        shape = (case.batch, case.steps, GATES[case.cell], 1, case.hidden)
        for k in range(0, len(self._weights), 4):
            i2h, *recurrent = self._weights[k : k + 4]
            gates = torch.nn.functional.linear(output, i2h).transpose(0, 1).reshape(shape)
            matrix, bias = self._recurrent(*recurrent)
            states, _ = self._function(
                gates,
                matrix,
                bias,
                states=self._zeros,
                function=FUNCTIONS[case.cell],
                backend="cuda" if case.cell == "gru" else "cuda_fused",
                dtype=case.dtype,
            )
            output = states[0][:, :, 0].transpose(0, 1)
        return output

    def run(self, number: int) -> None:
        torch, x = self._torch, self._xs[number]
        if self._case.train:
            output = self._forward(x)
            gradients = torch.autograd.grad(output, [x, *self._weights], self._d_outputs[number])
            self._latest = [output, *gradients]
        else:
            with torch.no_grad():
                self._latest = [self._forward(x)]

    def results(self) -> Results:
        arrays = [to_host(tensor) for tensor in self._latest]
        if not self._case.train:
            return {"output": arrays[0]}
        return named(arrays[0], arrays[1], arrays[2:])


class Flashrnn(Peer):
    """FlashRNN."""

    name = "FlashRNN"

    def available(self, device: str) -> Optional[str]:
        if device != "cuda":
            return "FlashRNN is for GPUs"
        return None if find_spec("flashrnn") else "flashrnn is not installed"

    def version(self) -> str:
        return version("flashrnn")

    def supports(self, case: Case, device: str) -> Optional[str]:
        if case.cell not in FUNCTIONS:
            return f"it has no {case.cell}"
        if case.dtype == "float32":
            return "its fused kernels are for 16-bit types"
        for option in ("bidirectional", "ragged", "hybridize"):
            if getattr(case, option):
                return f"it has no {option} form"
        return None

    def build(self, case: Case, data: Data, device: str) -> Layer:
        import torch
        from flashrnn import flashrnn

        return FlashrnnLayer(torch, flashrnn, case, data, device)
