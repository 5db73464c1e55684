"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Iterator, Type, Union

from fastrnn.lm.errors import FileError, InputError

_PARTIAL = ".partial"


@contextmanager
def explained(what: str, kind: Type[InputError] = InputError) -> Iterator[None]:
    """Turn an error of the system's into one of `kind` that begins with `what`."""
    try:
        yield
    except OSError as error:
        full = error.errno == errno.ENOSPC
        reason = "no space left on the disk" if full else error.strerror or str(error)
        raise kind(f"{what}: {reason}") from None


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when the block ends without an error.

    The data go to a neighbour whose name no other writer has, reach the disk, and only then get the
    name: a reader sees the old file or the new one, also after a crash. After an error or Ctrl-C
    the neighbour is gone and `path` is as it was; :func:`remove_partial` removes those that killed
    processes left behind.

    Raises
    ------
    FileError
        If the file cannot be written, for example because the disk is full.
    """
    partial = path.parent / f"{path.name}.{secrets.token_hex(8)}{_PARTIAL}"
    with explained(f"{path}: not written", FileError):
        try:
            # Not tempfile: its files are the owner's alone, and these get the usual permissions.
            with open(partial, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            _sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):  # the first error is the one the user has to know
                partial.unlink()
            raise


def write_atomically(path: Path, data: Union[bytes, memoryview]) -> None:
    """Replace the content of `path` by `data` in one go."""
    with atomic_writer(path) as file:
        file.write(data)


def remove_partial(path: Path) -> None:
    """Remove what killed writers of `path` left behind; no process may be writing it now."""
    for partial in path.parent.glob(f"{path.name}.*{_PARTIAL}"):
        partial.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the names in `folder` reach the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems, such as those of networks, cannot sync a folder.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
