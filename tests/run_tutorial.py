"""Runs ``docs/tutorial.ipynb`` and keeps what its cells print and draw in it: ``make notebook``."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "tutorial.ipynb"


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def digest(notebook):
    """Of the code, so that outputs which another code made can be told."""
    sources = "\n\n".join("".join(cell["source"]) for cell in code_cells(notebook))
    return hashlib.sha256(sources.encode("utf-8")).hexdigest()


def execute(notebook, folder, timeout=1800):
    """Run all cells in a new kernel; nbclient's CellExecutionError if one fails."""
    from nbclient import NotebookClient

    NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=timeout,
        record_timing=False,  # the file would differ each time
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    for cell in code_cells(notebook):
        cell["outputs"] = _joined(cell["outputs"])
    notebook["metadata"]["language_info"] = {"name": "python"}
    notebook["metadata"]["executed_code"] = digest(notebook)


def _joined(outputs):
    """With what is printed in one piece: how it arrives in several depends on the time."""
    joined = []
    for output in outputs:
        before = joined[-1] if joined else {}
        if output["output_type"] == "stream" and before.get("name") == output["name"]:
            before["text"] += output["text"]
        else:
            joined.append(output)
    return joined


def main():
    try:
        import ipykernel  # noqa: F401
        import nbformat
        from nbclient.exceptions import CellExecutionError
    except ImportError as missing:
        print(
            f"the notebook needs {missing.name}, which is not installed: "
            f"pip install 'fastrnn[notebook]'",
            file=sys.stderr,
        )
        return 2
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    try:
        execute(notebook, NOTEBOOK.parent)
    except CellExecutionError as error:
        print(f"{NOTEBOOK.name} is left as it was: {error}", file=sys.stderr)
        return 1
    nbformat.write(notebook, NOTEBOOK)
    return 0


if __name__ == "__main__":
    sys.exit(main())
