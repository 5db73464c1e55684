"""What everything in :mod:`fastrnn.lm` raises for bad input."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one line that says what and why."""


class FileError(InputError):
    """A file could not be read or written."""


class UnknownCharacterError(InputError):
    """A text has a character that a model does not know, and cannot have as unknown."""
