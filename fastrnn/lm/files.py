"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Iterator

from fastrnn.lm.errors import InputError


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when the block ends without an error.

    The data go to a neighbour with the suffix ``.partial``, reach the disk, and only then get the
    name: a reader sees the old file or the new one, also after a crash. After an error or Ctrl-C
    the neighbour is gone and `path` is as it was; one that a killed process left behind is
    overwritten by the next write.

    Raises
    ------
    InputError
        If the file cannot be written, for example because the disk is full.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    except BaseException as error:
        if partial.exists():
            partial.unlink()
        if isinstance(error, OSError):
            raise InputError(f"{path}: not written: {describe(error)}") from None
        raise


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the content of `path` by `data` in one go."""
    with atomic_writer(path) as file:
        file.write(data)


def _sync_folder(folder: Path) -> None:
    """Make the names in `folder` reach the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def describe(error: OSError) -> str:
    """What went wrong with a file, in words."""
    if error.errno == errno.ENOSPC:
        return "no space left on the disk"
    return error.strerror or str(error)
