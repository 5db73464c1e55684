"""The folder for what may be deleted at any time."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/fastrnn``, or ``~/.cache/fastrnn``; it need not exist.

    Raises
    ------
    RuntimeError
        The user has no home.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "fastrnn"
    except KeyError as error:  # before Python 3.10
        raise RuntimeError("the user has no home") from error
