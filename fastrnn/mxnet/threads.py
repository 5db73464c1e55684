"""What a layer needs so that several threads can call it."""

from __future__ import annotations

import os
import threading
from typing import Any, Callable, Dict, List, Tuple

from fastrnn.mxnet.stack import Recorder

# MXNet initializes parameters, traces a block and runs its graph for the first time without regard
# to other threads.
_FIRST_CALLS = threading.RLock()


def _renew_lock() -> None:
    """Replace the lock in a forked child: a thread that the child lacks may hold it."""
    global _FIRST_CALLS  # noqa: PLW0603
    _FIRST_CALLS = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


def first_call() -> Any:
    """Return the lock to hold in a layer's first call."""
    return _FIRST_CALLS


_MOST_RECORDERS = 4  # with static_alloc, each keeps memory


class Kept(threading.local):
    """What a layer keeps between calls, by thread: a graph of MXNet serves one thread at a time.

    It belongs to one layer in one process, so a copy starts without anything.
    """

    def __init__(self) -> None:
        self._recorders: Tuple[Any, Dict[Any, Recorder]] = (None, {})  # `_graph` and its recorders
        self.zeros: Tuple[Any, List[Any]] = (None, [])  # the latest, and what they are for
        self.graph: Any = None  # `_graph` of the layer, once the thread has run that

    def recorder(self, graph: Any, key: Any, make: Callable[[], Recorder]) -> Recorder:
        """Return the recorder of a key, which `make` makes; `graph` is `_graph` of the layer."""
        if self._recorders[0] is not graph:
            self._recorders = (graph, {})
        recorders = self._recorders[1]
        if key not in recorders:
            if len(recorders) == _MOST_RECORDERS:
                del recorders[next(iter(recorders))]
            recorders[key] = make()
        return recorders[key]

    def forget_recorders(self) -> None:
        """Give back the memory of this thread's recorders."""
        self._recorders = (None, {})

    def __deepcopy__(self, memo: Any) -> Kept:
        return Kept()

    def __reduce__(self) -> Tuple[Any, ...]:
        return Kept, ()
