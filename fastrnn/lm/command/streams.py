"""Standard streams that may be closed, or full."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def open_closed_streams() -> None:
    """Open the null device for each standard stream that the process was started without.

    In this order they get the descriptors 0 to 2. A checkpoint must not: libraries write messages
    to them.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - until the end


def say(message: str) -> None:
    """Write a line to stderr."""
    try:
        print(message, file=sys.stderr, flush=True)
    except OSError:
        silence(sys.stderr)  # the message is lost, the exit code is not


def silence(stream: TextIO) -> None:
    """Discard what is still buffered: to flush it at exit would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
