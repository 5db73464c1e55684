"""What one worker knows of the others, and what they tell each other."""

from __future__ import annotations

import hashlib
import importlib.util
from typing import Any, Dict, Sequence

import numpy as np

from fastrnn.lm.distributed.variables import chosen
from fastrnn.lm.errors import InputError
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()

# The keys of our own values; a Trainer numbers its parameters from 0. A store takes numbers or
# strings, and not both.
_FIRST_KEY = 1_000_000


class Workers:
    """The processes that train one model together, as one of them sees them.

    Parameters
    ----------
    store : mxnet.kvstore.KVStoreBase, str or None
        Of several workers, a store that MXNet made. Of one worker alone, the name of what adds up
        its devices' gradients, or None for the usual one.

    Attributes
    ----------
    rank, count : int
        The number of this worker, from 0, and how many there are.
    apart : bool
        Whether a store adds up what several processes have, even if this is the only one.
    asynchronous : bool
        Whether no worker's update waits for the others. The optimizer then runs in the store, which
        gives away neither its state nor a sum over the workers.
    """

    def __init__(self, store: Any = None) -> None:
        self.store = store
        self.apart = isinstance(store, mx.kvstore.KVStoreBase)
        self.rank: int = store.rank if self.apart else 0
        self.count: int = store.num_workers if self.apart else 1
        self.asynchronous = self.apart and "async" in store.type
        self._next_key = _FIRST_KEY
        self._sums: Dict[str, int] = {}

    def share(self, rows: int) -> slice:
        """Which of `rows` are this worker's; two workers' numbers of rows differ by at most one."""
        return slice(rows * self.rank // self.count, rows * (self.rank + 1) // self.count)

    def from_first(self, values: Any) -> np.ndarray:
        """The first worker's `values`: numbers in floating point, of one shape on all workers."""
        values = np.asarray(values)
        return values if self.count == 1 else self._broadcast(values)[1]

    def _broadcast(self, values: np.ndarray) -> Any:
        # A distributed store broadcasts a key once only.
        self._next_key += 1
        array = mx.nd.array(values, dtype=values.dtype)
        self.store.broadcast(self._next_key, array, out=array)
        return self._next_key, array.asnumpy()

    def bytes_from_first(self, data: bytes) -> bytes:
        """The first worker's `data`, for which the others give anything."""
        if self.count == 1:
            return data
        size = int(self.from_first(np.array([len(data)], np.float64))[0])
        numbers = np.zeros(-(-size // 4), np.float32)
        if self.rank == 0:
            numbers.view(np.uint8)[:size] = np.frombuffer(data, np.uint8)
        return self.from_first(numbers).tobytes()[:size]

    def summed(self, name: str, values: Sequence[float]) -> np.ndarray:
        """The sum of all workers' `values`; of asynchronous workers, the first one's.

        The values of one name always have one length.
        """
        found = np.asarray(values, np.float64)
        if self.count == 1:
            return found
        if self.asynchronous:
            return self.from_first(found)
        if name not in self._sums:
            self._sums[name], _ = self._broadcast(np.zeros_like(found))
        array = mx.nd.array(found, dtype=found.dtype)
        self.store.pushpull(self._sums[name], array)
        return array.asnumpy()

    def check_equal(self, what: str, description: str) -> None:
        """Fail unless the first worker's `description` is the same.

        Raises
        ------
        InputError
            The message says that this worker has another `what`.
        """
        own = np.frombuffer(hashlib.sha256(description.encode("utf-8")).digest(), np.uint8)
        if not np.array_equal(self.from_first(own.astype(np.float32)), own):
            raise InputError(f"{what}: worker {self.rank} has other ones than worker 0")

    def leave(self) -> None:
        """Let this process end without waiting for the others, which cannot go on without it."""
        if self.count > 1 and isinstance(self.store, mx.kvstore.KVStore):
            library = mx.base._LIB
            mx.base.check_call(library.MXKVStoreSetBarrierBeforeExit(self.store.handle, 0))


ALONE = Workers()
# What `mxnet.kv.create` names. It takes any other name for "local".
_ON_ONE_MACHINE = ("local", "device", "nccl")
_DISTRIBUTED = ("dist_sync", "dist_async", "dist_device_sync")


def join(name: str) -> Workers:
    """Find the other workers.

    Parameters
    ----------
    name : str
        As for ``mxnet.kv.create``, or ``auto``: ``dist_sync`` in a process that has MXNet's
        variables (``DMLC_ROLE`` and others), and one worker in any other.

    Raises
    ------
    InputError
        A name that MXNet does not know here, or a variable that is not set.
    """
    name = chosen(name)
    if name == "horovod" and importlib.util.find_spec("horovod"):
        importlib.import_module("fastrnn.lm.distributed.horovod")
    if name in ("", *_ON_ONE_MACHINE):
        return Workers(name or None)
    known = (*_DISTRIBUTED, *mx.kvstore.KVStoreBase.kv_registry)
    if name not in known:
        here = ", ".join(["auto", *_ON_ONE_MACHINE, *known])
        raise InputError(f"kvstore: got {name!r}, wanted one of {here}")
    return Workers(mx.kv.create(name))
