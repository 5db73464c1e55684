"""A text, and a run trained on it."""

from __future__ import annotations

import pytest
from cli_calls import TEXT, TINY

from fastrnn import cli


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    path = tmp_path_factory.mktemp("book") / "book.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(book):
    """The folder of a finished run."""
    folder = book.parent / "run"
    assert cli.main(["train", "--data", str(book), "--out", str(folder), *TINY]) == 0
    return folder
