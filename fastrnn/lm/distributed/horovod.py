"""Horovod as one of MXNet's key-value stores; to import this registers it as ``horovod``.

MXNet 1.9.1 names the store in its documentation, and its packages do not have it.
"""

from __future__ import annotations

import importlib
from typing import Any, List

from fastrnn.mxnet import import_mxnet

mx: Any = import_mxnet()
hvd: Any = importlib.import_module("horovod.mxnet")


@mx.kvstore.KVStoreBase.register
class Horovod(mx.kvstore.KVStoreBase):
    """Sums by Horovod's allreduce, without servers."""

    type = "horovod"

    def __init__(self) -> None:
        hvd.init()

    @property
    def rank(self) -> int:
        return hvd.rank()

    @property
    def num_workers(self) -> int:
        return hvd.size()

    @staticmethod
    def is_capable(capability: str) -> bool:
        return False

    def broadcast(self, key: int, value: Any, out: Any, priority: int = 0) -> None:
        found = hvd.broadcast(value, root_rank=0, name=str(key), priority=priority)
        for array in _listed(out):
            array[:] = found

    def pushpull(self, key: int, value: Any, out: Any = None, priority: int = 0) -> None:
        values = _listed(value)
        total = mx.nd.add_n(*(array.as_in_context(values[0].context) for array in values))
        hvd.allreduce_(total, average=False, name=str(key), priority=priority)
        for array in values if out is None else _listed(out):
            array[:] = total


def _listed(arrays: Any) -> List[Any]:
    return list(arrays) if isinstance(arrays, (list, tuple)) else [arrays]
