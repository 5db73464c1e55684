"""Loads the native library `fastrnn._C`; no other module does."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Any, Optional, Tuple

NOT_INSTALLED = "this is a pure-Python installation, without the native library"


def library() -> Any:
    """Return the library.

    Raises
    ------
    ModuleNotFoundError
        fastrnn was installed without it.
    ImportError
        The library does not load.
    """
    return importlib.import_module("fastrnn._C")


def find() -> Tuple[Optional[ModuleType], str]:
    """Return the library, or None and the reason."""
    if importlib.util.find_spec("fastrnn._C") is None:
        return None, NOT_INSTALLED
    try:
        return library(), ""
    except ImportError as error:
        return None, f"the native library does not load: {error}"
