"""Where texts lie: the names on a command line as a list of files, in an order that stays."""

from __future__ import annotations

import glob
import os
import re
from typing import Dict, List, NamedTuple, Sequence

from fastrnn.lm.errors import InputError
from fastrnn.lm.files import explained

# Between the names of several texts in one setting. No path holds it.
SEPARATOR = "\0"
# What stands beside exported chats and is not text.
_NO_TEXT = re.compile(
    r"\.(aac|amr|avi|bmp|gif|heic|jpe?g|m4a|mkv|mov|mp[34]|og[ag]|opus|pdf|png|thumb|vcf|wav|webm"
    r"|webp|zip|3gp)$",
    re.IGNORECASE,
)


class Found(NamedTuple):
    """Files, and lines about what was left out."""

    files: List[str]
    notes: List[str]


def together(names: Sequence[str]) -> str:
    """Several names as one setting."""
    return SEPARATOR.join(names)


def several(data: str) -> bool:
    """Whether `data` may be more than one file."""
    return SEPARATOR in data or os.path.isdir(data) or _is_pattern(data)


def find(data: str) -> Found:
    """The files that `data` names, each once: in the order of the names, in a folder by name.

    Hidden files are left out, and in a folder also folders, pictures, recordings and films.
    """
    files: Dict[str, None] = {}
    notes: List[str] = []
    for name in data.split(SEPARATOR):
        if os.path.isdir(name):
            found = _in_folder(name)
            files.update(dict.fromkeys(found.files))
            notes += found.notes
        elif _is_pattern(name):
            matching = sorted(
                path for path in glob.glob(name, recursive=True) if os.path.isfile(path)
            )
            if not matching:
                raise InputError(f"data: {name}: no file has such a name")
            files.update(dict.fromkeys(matching))
        else:
            files[name] = None
    once: Dict[str, str] = {}
    for path in files:
        once.setdefault(os.path.abspath(path), path)
    return Found(list(once.values()), notes)


def _is_pattern(name: str) -> bool:
    return glob.has_magic(name) and not os.path.exists(name)


def _in_folder(folder: str) -> Found:
    with explained(f"data: {folder}: cannot be read"):
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    paths = [os.path.join(folder, name) for name in names]
    paths = [path for path in paths if os.path.isfile(path)]
    files = [path for path in paths if not _NO_TEXT.search(path)]
    if not files:
        raise InputError(f"data: {folder}: there is no text in this folder")
    left = len(paths) - len(files)
    return Found(files, [f"{folder}: left out {left:,} files that are not text"] if left else [])
