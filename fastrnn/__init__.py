"""Fast recurrent layers for Apache MXNet, and the language model built on them."""

from __future__ import annotations

import warnings
from typing import Any

from fastrnn import _mxnet
from fastrnn._version import __version__

__all__ = ["GRU", "LSTM", "RNN", "__version__", "features"]

if _mxnet.installed():
    from fastrnn.layers import GRU, LSTM, RNN
else:
    # Not an error yet: `fastrnn.kernels` and `fastrnn info` work without MXNet.
    warnings.warn(_mxnet.MISSING, stacklevel=2)


def __getattr__(name: str) -> Any:
    if name in ("GRU", "LSTM", "RNN"):
        raise ImportError(_mxnet.MISSING)
    if name == "features":
        from fastrnn._info import features

        return features
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
