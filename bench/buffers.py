"""Memory that the benchmarks hand to cuDNN: a buffer is an array in a device's memory.

Types are "float32", "float16", "bfloat16", "int32" and "uint8"; the latter is for bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Tuple

import numpy as np

Shape = Tuple[int, ...]

ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int32": 4, "uint8": 1}


class Layout(NamedTuple):
    """What there is to know about a buffer."""

    address: int
    shape: Shape
    dtype: str
    contiguous: bool


class Memory(ABC):
    """Allocates and copies buffers. Work on them is ordered by one stream."""

    @abstractmethod
    def stream(self) -> int:
        """Address of the CUDA stream that is in use now."""

    @abstractmethod
    def zeros(self, shape: Shape, dtype: str) -> Any:
        """Return a new buffer of zeros."""

    @abstractmethod
    def layout(self, buffer: Any) -> Layout:
        """Describe a buffer; TypeError if it is none, or in other memory."""

    @abstractmethod
    def piece(self, buffer: Any, offset: int, shape: Shape, dtype: str) -> Any:
        """Return the buffer in a buffer of bytes that begins at `offset`, in bytes."""

    @abstractmethod
    def write(self, buffer: Any, array: np.ndarray) -> None:
        """Copy an array from the host, rounded to the buffer's type."""

    @abstractmethod
    def read(self, buffer: Any) -> np.ndarray:
        """Return a copy on the host, of float32 for the types that NumPy lacks."""

    @abstractmethod
    def clear(self, buffer: Any) -> None:
        """Fill with zeros."""

    def put(self, array: np.ndarray, dtype: str) -> Any:
        """Return a new buffer with an array from the host, rounded to `dtype`."""
        buffer = self.zeros(np.shape(array), dtype)
        self.write(buffer, array)
        return buffer

    def address(self, name: str, buffer: Any, shape: Shape, dtype: str) -> int:
        """Return where a buffer is, which has to have this shape and type.

        Raises
        ------
        ValueError
            When it has not, or is not contiguous; `name` is what the message calls it.
        """
        layout = self.layout(buffer)
        if (layout.shape, layout.dtype) != (shape, dtype):
            raise ValueError(
                f"{name} has shape {layout.shape} and type {layout.dtype}, "
                f"expected {shape} and {dtype}"
            )
        if not layout.contiguous:
            raise ValueError(f"{name} is not contiguous")
        return layout.address


class TorchMemory(Memory):
    """PyTorch's memory, of the current GPU unless a device is named."""

    def __init__(self, device: str = "cuda"):
        import torch

        self._torch = torch
        self._device = torch.device(device)

    def stream(self) -> int:
        if self._device.type != "cuda":
            return 0
        return self._torch.cuda.current_stream(self._device).cuda_stream

    def zeros(self, shape: Shape, dtype: str) -> Any:
        return self._torch.zeros(shape, dtype=getattr(self._torch, dtype), device=self._device)

    def layout(self, buffer: Any) -> Layout:
        if not isinstance(buffer, self._torch.Tensor) or buffer.device.type != self._device.type:
            is_tensor = isinstance(buffer, self._torch.Tensor)
            where = f"one on {buffer.device}" if is_tensor else type(buffer).__name__
            raise TypeError(f"expected a tensor on {self._device}, got {where}")
        dtype = str(buffer.dtype).replace("torch.", "")
        return Layout(buffer.data_ptr(), tuple(buffer.shape), dtype, buffer.is_contiguous())

    def piece(self, buffer: Any, offset: int, shape: Shape, dtype: str) -> Any:
        size = int(np.prod(shape)) * ITEM_BYTES[dtype]
        return buffer[offset : offset + size].view(getattr(self._torch, dtype)).view(shape)

    def write(self, buffer: Any, array: np.ndarray) -> None:
        buffer.copy_(self._torch.from_numpy(np.ascontiguousarray(array)))

    def read(self, buffer: Any) -> np.ndarray:
        if buffer.is_floating_point():
            buffer = buffer.float()
        return buffer.cpu().numpy().copy()

    def clear(self, buffer: Any) -> None:
        buffer.zero_()
