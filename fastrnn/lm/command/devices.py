"""Devices by name: ``cpu``, ``gpu``, ``gpu:0,1`` or ``auto``."""

from __future__ import annotations

import re
from typing import Any, List

from fastrnn.lm.errors import InputError
from fastrnn.mxnet import import_mxnet
from fastrnn.mxnet.native import GPUS

mx = import_mxnet()


def parse_devices(name: str) -> List[Any]:
    """The MXNet contexts that `name` stands for.

    Parameters
    ----------
    name : str
        ``cpu``; ``gpu`` or ``gpu:1`` for one GPU; ``gpu:0,1`` for several, among which each batch
        is divided; ``auto`` for the first GPU if there is one, else the CPU. ``cpu:0,1`` divides
        the batch as several GPUs would, to try it out.

    Raises
    ------
    InputError
        For another name, a device named twice, or a GPU that MXNet does not see.
    """
    found = re.fullmatch(r"(cpu|gpu|auto)(?::(\d{1,3}(?:,\d{1,3})*))?", name)
    if not found or (found[1] == "auto" and found[2]):
        raise InputError(f"device: got {name!r}, wanted cpu, gpu, gpu:0, gpu:0,1 or auto")
    kind = found[1]
    if kind == "auto":
        kind = "gpu" if GPUS else "cpu"
    numbers = [int(number) for number in (found[2] or "0").split(",")]
    if len(set(numbers)) != len(numbers):
        raise InputError(f"device: {name!r} names a device twice")
    if kind == "gpu" and max(numbers) >= GPUS:
        raise InputError(f"device: got {name!r}, but MXNet sees {GPUS} GPUs here")
    return [mx.Context(kind, number) for number in numbers]
