"""Where MXNet puts the gradients of parameters."""

from __future__ import annotations

import ctypes
from typing import Any

from fastrnn.mxnet import import_mxnet

mx = import_mxnet()


def has_other_gradient(parameter: Any, array: Any) -> bool:
    """Whether a gradient was attached to a parameter's array that is not the parameter's own.

    Only MXNet knows how `backward` writes to it.
    """
    if parameter.grad_req == "null":
        return False
    gradient = array.grad  # a new object each time
    return gradient is not None and _address(gradient) != _address(parameter.grad(array.ctx))


def _address(array: Any) -> Any:
    address = ctypes.c_void_p()
    mx.base.check_call(mx.base._LIB.MXNDArrayGetData(array.handle, ctypes.byref(address)))
    return address.value
