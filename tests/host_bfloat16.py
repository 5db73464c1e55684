"""Arrays of bfloat16 on the host, which NumPy does not have."""

from __future__ import annotations

import ctypes

import numpy as np

_BFLOAT = 4  # DLPack's code of the type
_CODE_OFFSET = 20  # of the code in a DLTensor


class HostBfloat16:
    """An array whose only face is DLPack."""

    def __init__(self, array):
        """Round numbers to the nearest, ties to even."""
        bits = np.asarray(array, np.float32, order="C").view(np.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        self.bits = np.where(np.isnan(array), 0x7FC0, rounded).astype(np.uint16)

    def __dlpack__(self):
        capsule = self.bits.__dlpack__()
        pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
        pointer_of.restype = ctypes.c_void_p
        pointer_of.argtypes = (ctypes.py_object, ctypes.c_char_p)
        address = pointer_of(capsule, b"dltensor") + _CODE_OFFSET
        ctypes.c_uint8.from_address(address).value = _BFLOAT
        return capsule

    def numbers(self):
        """Return the numbers in float32."""
        return (self.bits.astype(np.uint32) << 16).view(np.float32)
