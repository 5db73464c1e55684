"""The file of results: written whole or not at all, and continued by a later run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, List, Optional

# What has to be the same for rows to stand in one file. A date may differ, and so may peaks.
IDENTITY = ("device", "commit")


class OtherResultsError(Exception):
    """The file holds results of something else."""


def read(path: Path) -> Dict[str, Any]:
    """Return the content of a file of results.

    Raises
    ------
    ValueError
        If it is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict) or not {"about", "rows"} <= set(content):
        raise ValueError(f"{path} is no file of results: expected an object with about and rows")
    return content


class Store:
    """Rows by the name of their case.

    Parameters
    ----------
    path : Path, optional
        Where to write; nowhere by default.
    about : dict
        What the rows have in common: device, commit, versions, date, and so on.

    Raises
    ------
    OtherResultsError
        If the file has rows of another device or commit.
    """

    def __init__(self, path: Optional[Path], about: Dict[str, Any]):
        self.path = path
        self.about = about
        self.rows: List[Dict[str, Any]] = []
        if path is None or not path.exists():
            return
        content = read(path)
        for key in IDENTITY:
            if content["about"].get(key) != about[key]:
                raise OtherResultsError(
                    f"{path} has results of {key} {content['about'].get(key)!r}, expected "
                    f"{about[key]!r}: name another file, or remove it"
                )
        self.rows = content["rows"]

    def done(self, case: str) -> bool:
        """Whether there is a row already."""
        return any(row["case"] == case for row in self.rows)

    def add(self, row: Dict[str, Any]) -> None:
        """Add a row, and write the file."""
        self.rows.append(row)
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_name(self.path.name + ".part")
        text = json.dumps({"about": self.about, "rows": self.rows}, indent=1, allow_nan=False)
        unfinished.write_text(text + "\n", encoding="utf-8")
        os.replace(unfinished, self.path)
