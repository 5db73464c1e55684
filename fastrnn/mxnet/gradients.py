"""Where MXNet puts the gradients of parameters."""

from __future__ import annotations

import ctypes
from typing import Any

from fastrnn.mxnet import import_mxnet

mx = import_mxnet()


def has_other_gradient(parameter: Any, array: Any, device: Any) -> bool:
    """Whether a gradient was attached to a parameter's array that is not the parameter's own.

    `device` is the array's. Only MXNet knows how `backward` writes to such a gradient.
    """
    if parameter.grad_req == "null":
        return False
    gradient = mx.base.NDArrayHandle()
    _call("MXNDArrayGetGrad", array.handle, ctypes.byref(gradient))
    if not gradient.value:
        return False
    try:
        return _address(gradient) != _address(parameter.grad(device).handle)
    finally:
        _call("MXNDArrayFree", gradient)


def _address(array: Any) -> Any:
    address = ctypes.c_void_p()
    _call("MXNDArrayGetData", array, ctypes.byref(address))
    return address.value


def _call(function: str, *arguments: Any) -> None:
    mx.base.check_call(getattr(mx.base._LIB, function)(*arguments))
