"""A process of its own for what would leave something behind in the one that times calls."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, Callable


def in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a module's function returns, called in a new process with this one's sys.path."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()
