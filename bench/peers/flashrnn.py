"""FlashRNN's function (PyPI ``flashrnn``): a recurrence of 16-bit types, behind a product."""

from __future__ import annotations

from typing import Any, Tuple

from bench.cases import Case
from bench.data import Data
from bench.peers.base import AutogradLayer, Layer, Peer
from fastrnn.cell import GATES

FUNCTIONS = {"lstm": "lstm", "gru": "gru", "rnn_tanh": "elman"}


class FlashrnnLayer(AutogradLayer):
    """One head, so that the recurrent matrix is dense.

    Its input is [N, T, G, heads, H], so the input's product is PyTorch's, as it is for its users.
    Its GRU takes as fourth bias the one of the new gate's input, and the recurrent part first.
    """

    def __init__(self, torch: Any, function: Any, case: Case, data: Data, device: str):
        super().__init__(torch, case, data, device)
        self._function = function
        self.weights = [self.put(w).requires_grad_(case.train) for w in data.weights]
        states = 2 if case.cell == "lstm" else 1
        shape = (states, case.batch, 1, 1, case.hidden)
        self._zeros = torch.zeros(shape, device=device, dtype=self.dtype)

    def _recurrent(self, h2h: Any, i2h_bias: Any, h2h_bias: Any) -> Tuple[Any, Any]:
        """R [G, 1, H, H] and b, in FlashRNN's order of gates."""
        gates, hidden = GATES[self.case.cell], self.case.hidden
        matrix = h2h.view(gates, 1, hidden, hidden)
        if self.case.cell != "gru":
            return matrix, (i2h_bias + h2h_bias).view(gates, 1, hidden)
        of_input, of_state = i2h_bias.view(3, 1, hidden), h2h_bias.view(3, 1, hidden)
        parts = [of_state[2:], of_input[:2] + of_state[:2], of_input[2:]]
        return matrix.roll(1, 0), self.torch.cat(parts)

    def forward(self, x: Any) -> Any:
        case = self.case
        shape = (case.batch, case.steps, GATES[case.cell], 1, case.hidden)
        for k in range(0, len(self.weights), 4):
            i2h, *recurrent = self.weights[k : k + 4]
            gates = self.torch.nn.functional.linear(x, i2h).transpose(0, 1).reshape(shape)
            states, _ = self._function(
                gates,
                *self._recurrent(*recurrent),
                states=self._zeros,
                function=FUNCTIONS[case.cell],
                backend="cuda" if case.cell == "gru" else "cuda_fused",
                dtype=case.dtype,
            )
            x = states[0][:, :, 0].transpose(0, 1)
        return x


class Flashrnn(Peer):
    """FlashRNN, whose fused kernels are for 16-bit types."""

    name = "FlashRNN"
    package = "flashrnn"
    devices = ("cuda",)
    cells = tuple(FUNCTIONS)
    dtypes = ("float16", "bfloat16")
    lacks = ("bidirectional", "ragged", "hybridize")

    def build(self, case: Case, data: Data, device: str) -> Layer:
        import torch
        from flashrnn import flashrnn

        return FlashrnnLayer(torch, flashrnn, case, data, device)
