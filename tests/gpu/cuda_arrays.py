"""A pytest plugin (`-p cuda_arrays`) that has tests of fastrnn.kernels run on the GPU.

NumPy arrays that a test gives to the kernels go there as PyTorch tensors, with their strides, and
the results come back as NumPy arrays; uint16 stands for bfloat16, as it does for tests on the
emulator, whose module `emulated` is this one here. Tests marked `host_arrays` or `emulator` are
left out.
"""

from __future__ import annotations

import sys
from typing import Any, List

import numpy as np
import pytest
import torch

from fastrnn import kernels

FORWARD, BACKWARD = kernels.forward, kernels.backward


def to_device(value: Any) -> Any:
    """Copy a NumPy array, or those of a list, to the GPU; leave anything else as it is."""
    if isinstance(value, (list, tuple)):
        return [to_device(item) for item in value]
    if not isinstance(value, np.ndarray):
        return value
    bfloat16 = value.dtype == np.uint16
    host = torch.from_numpy(value.view(np.int16) if bfloat16 else value)
    device = torch.empty_strided(host.shape, host.stride(), dtype=host.dtype, device="cuda")
    device.copy_(host)
    return device.view(torch.bfloat16) if bfloat16 else device


def to_host(value: Any) -> Any:
    """Copy an array that the kernels returned, or those of a list, into NumPy arrays."""
    if isinstance(value, list):
        return [to_host(item) for item in value]
    if value is None:
        return None
    host = torch.from_dlpack(value).cpu()
    if host.dtype == torch.bfloat16:
        return host.view(torch.int16).numpy().view(np.uint16)
    return host.numpy()


def forward(*arguments: Any, **options: Any) -> kernels.Result:
    """kernels.forward, whose reserve keeps what is on the GPU."""
    options = {name: to_device(value) for name, value in options.items()}
    result = FORWARD(*map(to_device, arguments), **options)
    return kernels.Result(*map(to_host, result[:3]), result.reserve)


def backward(reserve: Any, *arguments: Any, **options: Any) -> kernels.Gradients:
    """kernels.backward."""
    options = {name: to_device(value) for name, value in options.items()}
    return kernels.Gradients(
        *map(to_host, BACKWARD(reserve, *map(to_device, arguments), **options))
    )


kernels.forward, kernels.backward = forward, backward
sys.modules["emulated"] = sys.modules[__name__]


def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Item]) -> None:
    """Leave out what is about arrays on the CPU, or about the emulated device."""
    left_out = [
        item
        for item in items
        if item.get_closest_marker("host_arrays") or item.get_closest_marker("emulator")
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
