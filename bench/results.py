"""The file of results: written whole or not at all, and continued by a later run."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from bench import machine

# What has to be the same for rows to stand in one file. A date may differ, and so may peaks.
IDENTITY = ("device", "commit")

Row = Dict[str, Any]


class OtherResultsError(Exception):
    """The file holds results of something else, or would not say of what they are."""


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it never holds a part of the text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def read(path: Path) -> Dict[str, Any]:
    """Return the content of a file of results.

    Raises
    ------
    ValueError
        If it is not such a file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or not {"about", "rows"} <= set(content):
        raise ValueError(f"{path} is not a file of results: expected an object with about and rows")
    return content


def _write(path: Path, content: Dict[str, Any]) -> None:
    write_whole(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def give_up(path: Path) -> Optional[str]:
    """Make a failure of the row that was begun and has not ended, and return its case's name.

    For the caller that has ended the process which measured it: a later one goes on with the other
    rows.
    """
    content = read(path) if path.exists() else {}
    row = content.pop("begun", None)
    if row is None:
        return None
    content["rows"].append({**row, "failures": ["it did not end, and was ended"]})
    _write(path, content)
    return row["case"]


class Store:
    """Rows by the name of their case.

    Parameters
    ----------
    path : Path, optional
        Where to write; nowhere by default.
    about : dict
        What the rows have in common: device, commit, versions, date, and so on. ``seconds``, what
        all runs took together, is added.

    Raises
    ------
    OtherResultsError
        If the file has rows of another device or commit, or the commit is not known.
    """

    def __init__(
        self,
        path: Optional[Path],
        about: Dict[str, Any],
        clock: Callable[[], float] = time.monotonic,
    ):
        self.path = path
        self.about = about
        self.rows: List[Row] = []
        self._clock, self._begun, self._before = clock, clock(), 0.0
        if path is None:
            return
        if about["commit"] == machine.UNKNOWN:
            raise OtherResultsError(
                "git cannot tell the commit here, and results without it say nothing: set "
                "BENCH_COMMIT"
            )
        if not path.exists():
            return
        content = read(path)
        for key in IDENTITY:
            if content["about"].get(key) != about[key]:
                raise OtherResultsError(
                    f"{path} has results of {key} {content['about'].get(key)!r}, expected "
                    f"{about[key]!r}: name another file, or remove it"
                )
        self.rows = content["rows"]
        self._before = content["about"].get("seconds", 0.0)

    def done(self, case: str) -> bool:
        """Whether there is a row already."""
        return any(row["case"] == case for row in self.rows)

    def failures(self) -> List[str]:
        """What went wrong with mandatory peers, in this run and in those before."""
        return [f"{row['case']}: {said}" for row in self.rows for said in row.get("failures", [])]

    def begin(self, row: Row) -> None:
        """Write into the file what row is measured now, without its peers."""
        self._save(begun=row)

    def add(self, row: Row) -> None:
        """Add a row, and write the file."""
        self.rows.append(row)
        self._save()

    def _save(self, **more: Any) -> None:
        self.about["seconds"] = round(self._before + self._clock() - self._begun, 1)
        if self.path is not None:
            _write(self.path, {"about": self.about, "rows": self.rows, **more})
