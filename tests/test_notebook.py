"""The tutorial's notebook runs, and what is committed is what its cells print and draw."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import pytest
from run_tutorial import NOTEBOOK, code_cells, digest, execute

COMMITTED = json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def kinds(cell):
    """What a cell put out: printed lines, pictures, values."""
    return [
        (output["output_type"], output.get("name"), sorted(output.get("data", ())))
        for output in cell["outputs"]
    ]


def test_the_outputs_are_those_of_the_code():
    cells = code_cells(COMMITTED)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert COMMITTED["metadata"]["executed_code"] == digest(COMMITTED), "run `make notebook`"
    shown = [kind for cell in cells for kind in kinds(cell)]
    assert not [kind for kind in shown if "error" in kind or "stderr" in kind]
    assert sum("image/png" in data for _, _, data in shown) >= 6
    assert sum(kind == "stream" for kind, _, _ in shown) >= 15
    assert NOTEBOOK.stat().st_size < 600_000


def test_changed_code_is_noticed():
    changed = copy.deepcopy(COMMITTED)
    code_cells(changed)[3]["source"] = ["pass"]
    assert digest(changed) != digest(COMMITTED)


@pytest.mark.parametrize("text", ["builtin", "file"])
def test_it_runs(tmp_path, monkeypatch, text):
    nbformat = pytest.importorskip("nbformat")
    for module in ("nbclient", "ipykernel", "matplotlib"):
        pytest.importorskip(module)
    monkeypatch.setenv("FASTRNN_TUTORIAL", "quick")
    if text == "file":  # a text that has nothing of what English prose has
        (tmp_path / "chat.txt").write_text("что это было\nвот и всё тут, а?\n" * 300, "utf-8")
        monkeypatch.setenv("FASTRNN_TUTORIAL_TEXT", "chat.txt")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    execute(notebook, tmp_path, timeout=600)
    if text == "builtin":
        assert [*map(kinds, code_cells(notebook))] == [*map(kinds, code_cells(COMMITTED))]


def test_without_the_extra_a_line_says_so():
    code = """
import sys
sys.modules["nbformat"] = None
import run_tutorial
sys.exit(run_tutorial.main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=NOTEBOOK.parents[1] / "tests",
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "which is not installed: pip install 'fastrnn[notebook]'" in done.stderr
