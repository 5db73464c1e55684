"""Where MXNet puts the gradients of parameters."""

from __future__ import annotations

from ctypes import CFUNCTYPE, byref, c_int, c_void_p
from typing import Any, Dict, List

from fastrnn.mxnet import import_mxnet

mx = import_mxnet()

_OF_ARRAY = CFUNCTYPE(c_int, c_void_p, c_void_p)
_get_gradient = _OF_ARRAY(("MXNDArrayGetGrad", mx.base._LIB))
_get_data = _OF_ARRAY(("MXNDArrayGetData", mx.base._LIB))
_free = CFUNCTYPE(c_int, c_void_p)(("MXNDArrayFree", mx.base._LIB))


def has_gradient(array: Any) -> bool:
    """Whether a gradient was attached to an array; `array.grad` would make an array of it."""
    gradient = c_void_p()
    mx.base.check_call(_get_gradient(array.handle, byref(gradient)))
    if gradient:
        mx.base.check_call(_free(gradient))
    return bool(gradient)


def added_to(parameters: Dict[str, Any], arrays: Dict[str, Any], device: Any) -> List[str]:
    """Return the names of the parameters to whose gradients `backward` may have to add.

    Only MXNet knows how it writes to a gradient that was attached to a parameter's array and is not
    the parameter's own. `device` is that of the arrays.
    """
    check, found = mx.base.check_call, []
    gradient, data, own = c_void_p(), c_void_p(), c_void_p()
    for name, parameter in parameters.items():
        request = parameter.grad_req
        if request == "add":
            found.append(name)
        if request != "write":
            continue
        check(_get_gradient(arrays[name].handle, byref(gradient)))
        if not gradient:
            continue
        try:
            check(_get_data(gradient, byref(data)))
        finally:
            check(_free(gradient))
        check(_get_data(parameter.grad(device).handle, byref(own)))
        if data.value != own.value:
            found.append(name)
    return found


def only_upper_layers_learn(names: List[List[List[str]]], params: Dict[str, Any]) -> bool:
    """Whether the lowest layer is frozen, and another is not.

    MXNet can then leave out backward passes of lower layers, if they are operators of their own.
    """
    lowest, *above = (
        [params[name].grad_req == "null" for direction in layer for name in direction]
        for layer in names
    )
    return all(lowest) and not all(frozen for layer in above for frozen in layer)
