"""Fast recurrent layers for Apache MXNet, and the language model built on them."""

from __future__ import annotations

import warnings
from typing import NoReturn

from fastrnn import _mxnet
from fastrnn._info import features
from fastrnn._version import __version__

__all__ = ["GRU", "LSTM", "RNN", "__version__", "features"]

if _mxnet.installed():
    from fastrnn.layers import GRU, LSTM, RNN
else:
    # Not an error yet: `fastrnn.kernels` and `fastrnn info` work without MXNet.
    warnings.warn(_mxnet.MISSING, stacklevel=2)

    def __getattr__(name: str) -> NoReturn:
        if name in ("GRU", "LSTM", "RNN"):
            raise ImportError(_mxnet.MISSING)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
