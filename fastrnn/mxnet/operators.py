"""Adds a library's operators to MXNet."""

from __future__ import annotations

import ctypes
from typing import Any, Sequence

from fastrnn.mxnet import import_mxnet

mx: Any = import_mxnet()


def load_operators(path: str, operators: Sequence[str]) -> None:
    """Load a library, and make the functions of its operators in `mx.nd._internal` and `mx.sym`'s.

    `mx.library.load` makes the functions of all of MXNet's operators again. That takes a quarter of
    the time of ``import fastrnn``, and drops what a program has put in their place.

    Parameters
    ----------
    path
        An absolute path.
    operators
        The operators' names, each with an underscore at its beginning.

    Raises
    ------
    MXNetError
        The library cannot be loaded, or does not have the operators.
    """
    base = mx.base
    base.check_call(base._LIB.MXLoadLib(base.c_str(path), base.mx_uint(0)))
    for kind, make in (
        (mx.nd, mx.nd.register._make_ndarray_function),
        (mx.sym, mx.sym.register._make_symbol_function),
    ):
        for name in operators:
            handle = base.OpHandle()
            base.check_call(base._LIB.NNGetOpHandle(base.c_str(name), ctypes.byref(handle)))
            setattr(kind._internal, name, make(handle, name, name))
