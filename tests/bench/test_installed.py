"""Which fastrnn the benchmarks measure: never sources that are not built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastrnn

_C = pytest.importorskip("fastrnn._C", reason="installed without the native library")


ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(tmp_path):
    """Sources as git has them, with an installed fastrnn elsewhere on Python's path."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "fastrnn").symlink_to(Path(fastrnn.__file__).parent)
    folder = tmp_path / "sources"
    ignored = shutil.ignore_patterns("results", "__pycache__")
    shutil.copytree(ROOT / "bench", folder / "bench", ignore=ignored)
    (folder / "fastrnn").mkdir()
    for source in (ROOT / "fastrnn").glob("*.py"):
        shutil.copy(source, folder / "fastrnn")
    return folder


def measured(tree):
    """Run pytest in the sources as a module, which puts them first; return the file it names."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "bench", "--collect-only"]
    outcome = subprocess.run(
        [*command, "--device", "cpu"],
        check=False,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree.parent / "site")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert outcome.returncode == 0, outcome.stdout
    (line,) = [one for one in outcome.stdout.splitlines() if one.startswith("fastrnn: ")]
    return Path(line[len("fastrnn: ") :])


def test_sources_that_are_not_built_do_not_hide_the_installed_package(tree):
    assert measured(tree) == tree.parent / "site" / "fastrnn" / Path(_C.__file__).name


def test_sources_that_are_built_are_measured(tree):
    library = tree / "fastrnn" / Path(_C.__file__).name
    library.symlink_to(_C.__file__)
    assert measured(tree) == library
