"""Ctrl-C that arrives where no exception gets out."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import Any, Callable, Iterator, List


@contextmanager
def interrupts_kept() -> Iterator[Callable[[], None]]:
    """Yield a function that raises a KeyboardInterrupt again that Python ignored.

    MXNet frees arrays in ``__del__``. Python prints an exception that is raised there, and goes on.
    """
    ignored: List[Any] = []
    previous = sys.unraisablehook

    def keep(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            ignored.append(unraisable.exc_type)
        else:
            previous(unraisable)

    def raise_ignored() -> None:
        if ignored:
            raise KeyboardInterrupt

    sys.unraisablehook = keep
    try:
        yield raise_ignored
    finally:
        sys.unraisablehook = previous
