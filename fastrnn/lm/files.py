"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Iterator


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when the block ends without an error.

    The data go to a neighbour with the suffix ``.partial``, reach the disk, and only then get the
    name: a reader sees the old file or the new one, also after a crash. After an error or Ctrl-C
    the neighbour is gone and `path` is as it was; one that a killed process left behind is
    overwritten by the next write.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        if partial.exists():
            partial.unlink()
        raise
    sync_folder(path.parent)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the content of `path` by `data` in one go."""
    with atomic_writer(path) as file:
        file.write(data)


def replace_by_link(source: Path, path: Path) -> None:
    """Let `path` name the same file as `source`, in one go.

    Both are only ever replaced, never written in place, so they can share their bytes.
    """
    partial = path.with_name(path.name + ".partial")
    if partial.exists():
        partial.unlink()
    os.link(source, partial)
    os.replace(partial, path)
    # os.replace does nothing when both already name one file
    if partial.exists():
        partial.unlink()
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` reach the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
