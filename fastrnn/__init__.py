"""Fast recurrent layers for Apache MXNet, and the language model built on them."""

from __future__ import annotations

import os
import sys
import warnings
from typing import NoReturn

from fastrnn import _threads
from fastrnn import mxnet as _mxnet
from fastrnn._info import features
from fastrnn._version import __version__

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "__version__",
    "accelerate",
    "accelerated",
    "features",
    "portable",
    "restore",
]

_is_command = os.path.basename(sys.argv[0]) == "fastrnn"
if sys.argv[0] == "-m":  # sys.argv is not set up yet; another program's module may import this
    _is_command = "fastrnn" in getattr(sys, "orig_argv", ["fastrnn"])  # from Python 3.10 on
if _is_command:
    _threads.set_up_mxnet()
try:
    _mxnet.import_mxnet()
except ImportError as error:
    # Not fatal yet: `fastrnn.torch`, `fastrnn.kernels` and `fastrnn info` work without MXNet.
    _without_mxnet = error
    # An MXNet that does not load is a fault; none at all is a choice. The command line reports
    # both itself where MXNet is needed.
    if _mxnet.installed() and not _is_command:
        warnings.warn(str(error), stacklevel=2)

    def __getattr__(name: str) -> NoReturn:
        if name in __all__:
            raise ImportError(str(_without_mxnet)) from _without_mxnet
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
else:
    from fastrnn.acceleration import accelerate, accelerated, restore
    from fastrnn.cells import GRUCell, LSTMCell, RNNCell
    from fastrnn.export import onnx, portable
    from fastrnn.layers import GRU, LSTM, RNN

    onnx.register()
