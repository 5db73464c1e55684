"""PyTorch's recurrent layers on fastrnn's kernels, with the same arguments, parameters and numbers.

Importing it registers the operators `torch.ops.fastrnn.forward` and `torch.ops.fastrnn.backward`,
which programs that were exported or traced with these layers need. MXNet is not used.
"""

from __future__ import annotations

try:
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError(
        "fastrnn.torch needs PyTorch, which is not installed: pip install 'fastrnn[torch]'"
    ) from error

from fastrnn.torch.backend import Backend
from fastrnn.torch.layers import GRU, LSTM, RNN
from fastrnn.torch.replacement import accelerate, restore

__all__ = ["GRU", "LSTM", "RNN", "Backend", "accelerate", "restore"]
