"""What a layer runs on: fastrnn's kernels or PyTorch's own, and why."""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple, Optional

import torch

from fastrnn import _native, plans

# Why a call runs on PyTorch's layer if its arguments are not those of a usual call.
UNUSUAL = "PyTorch's layer takes, or refuses, arguments that the kernels do not have"
COVERED = "the kernels cover it"
# Types of layers on the CPU that run on the kernels only if these are asked for.
LEFT_TO_PYTORCH = {
    "float64": "in float64 PyTorch's layer has second derivatives, and is about as fast; "
    "backend='native' takes the kernels",
    **{
        name: f"in {name} the kernels have not been timed against PyTorch's layer; "
        "backend='native' takes them"
        for name in ("float16", "bfloat16")
    },
}
CHOICES = ("auto", "native", "torch")


class Backend(NamedTuple):
    """What a layer runs on, and the reason.

    Attributes
    ----------
    name : {'native', 'torch'}
        fastrnn's kernels, or PyTorch's layer of the same name.
    reason : str
        Why.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def checked(choice: Any) -> str:
    """Return the argument ``backend`` of a layer.

    Raises
    ------
    ValueError
        It is not one of `CHOICES`.
    """
    if choice not in CHOICES:
        raise ValueError(f"backend is {choice!r}, expected one of {', '.join(CHOICES)}")
    return str(choice)


@torch.compiler.assume_constant_result
def obstacle(dtype: Any, device_type: str, index: int) -> Optional[str]:
    """Return why the kernels cannot run a layer whose arrays are of a type and on a device."""
    return _obstacle_of_arrays(str(dtype)[len("torch.") :], device_type, index)


@functools.lru_cache(maxsize=None)
def _obstacle_of_arrays(dtype: str, device_type: str, index: int) -> Optional[str]:
    library, reason = _native.find()
    if library is None:
        return reason
    if device_type not in ("cpu", "cuda"):
        return f"the kernels do not run on a device of type {device_type}"
    if device_type == "cpu" and library.build_info()["onednn"] is None:
        return "the native library was built without oneDNN, and so without kernels for the CPU"
    if device_type == "cuda" and library.build_info()["cuda_toolkit"] is None:
        return "the native library was built without CUDA"
    try:  # the library knows the types of each device
        plans.reason(
            "lstm", 1, 1, 1, 1, dtype=dtype, device="cpu" if device_type == "cpu" else index
        )
    except (ValueError, RuntimeError) as error:
        return re.sub(r" \(csrc/.*\)$", "", str(error))
    return None


class _Least(NamedTuple):
    """The smallest sizes for which calls on the CPU run on the kernels.

    Measured by bench/pytorch_calls.py: processor time of a call and of one with its backward pass,
    PyTorch 2.13 and fastrnn in turn, one thread, for 16 to 1024 units, 1 to 64 rows and 1 to 100
    steps. From these sizes on the kernels take 0.07 to 1.16 of PyTorch's time. Below them, what a
    call costs in Python outweighs what they gain: PyTorch calls its own layers in C++. Its LSTM is
    oneDNN's, which starts slowly and is fast from then on.
    """

    steps: int
    packed_steps: int
    units: int = 1  # of sequences that are not packed


_LEAST = {
    "LSTM": _Least(1, 10, 128),
    "GRU": _Least(4, 10),
    "RNN_TANH": _Least(12, 20),
    "RNN_RELU": _Least(12, 20),
}


def slower(mode: str, hidden: int, steps: int, packed: bool) -> Optional[str]:
    """Return why a call on the CPU is left to PyTorch's layer, which is faster, or None."""
    least = _LEAST[mode]
    fewest = least.packed_steps if packed else least.steps
    if steps < fewest:
        return f"PyTorch's layer is faster below {fewest} steps, and there are {steps}"
    if not packed and hidden < least.units:
        return f"PyTorch's layer is faster below {least.units} units, and there are {hidden}"
    return None


def rule(mode: str, hidden: int) -> str:
    """Return in words what `slower` leaves to PyTorch's layer for a layer on the CPU."""
    least = _LEAST[mode]
    if hidden < least.units:
        sizes = f"for all inputs that are not packed, as the layer has below {least.units} units,"
    elif least.steps > 1:
        sizes = f"below {least.steps} steps,"
    else:
        return f"PyTorch's layer is faster, and runs, below {least.packed_steps} packed steps"
    return (
        f"PyTorch's layer is faster, and runs, {sizes} and below {least.packed_steps} packed steps"
    )
