"""What the source archive and the wheel hold."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SWITCHES = ("FASTRNN_NATIVE", "FASTRNN_CUDA", "FASTRNN_CUDA_ARCHITECTURES", "DNNL_ROOT")
# What builds and tests leave behind in a working tree.
BUILT = (
    "fastrnn/_build.json",
    "fastrnn/_C.so",
    "fastrnn/libdnnl.so.3",
    "fastrnn/third_party/onednn/LICENSE",
    "csrc/_C.so",
    "tests/cases.pyc",
    "tests/__pycache__/notes.txt",
)


@pytest.fixture(scope="module")
def source_archive(tmp_path_factory):
    """Pack the working tree, copied so that nothing is left behind in it."""
    folder = tmp_path_factory.mktemp("sdist")
    ignored = shutil.ignore_patterns(".git", ".venv*", "build", "dist", "*.egg-info", ".*_cache")
    shutil.copytree(ROOT, folder / "tree", ignore=ignored)
    for name in BUILT:
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / name).touch()
    # setuptools takes over what an earlier build noted here.
    (folder / "tree/fastrnn.egg-info").mkdir()
    (folder / "tree/fastrnn.egg-info/SOURCES.txt").write_text("\n".join(BUILT))
    return folder / run_hook("build_sdist", folder / "tree", folder)


def run_hook(hook: str, tree: Path, output: Path, **environ: str) -> str:
    script = (
        "import sys; sys.path.insert(0, 'build_backend'); from fastrnn_build import backend;"
        f"print(); print(backend.{hook}({str(output)!r}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        cwd=str(tree),
        env={**{k: v for k, v in os.environ.items() if k not in SWITCHES}, **environ},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1]


def test_the_source_archive_is_complete_and_holds_nothing_built(source_archive):
    with tarfile.open(str(source_archive)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = ["CMakeLists.txt", "LICENSE", "Makefile", "README.md", "setup.py", "pyproject.toml"]
    folders = ("csrc", "fastrnn", "build_backend", "tests", "bench", "docs", ".ci")
    left_behind = ("_build.json", ".so", ".so.3")
    for folder in folders:
        files = [f for f in (ROOT / folder).rglob("*") if f.is_file()]
        wanted += [
            f.relative_to(ROOT).as_posix()
            for f in files
            if not f.name.endswith(left_behind)
            and not {"third_party", "__pycache__"} & set(f.parts)
        ]
    assert set(wanted) <= names, set(wanted) - names
    assert not set(BUILT) & names


def test_a_python_only_wheel_from_the_source_archive(source_archive, tmp_path):
    with tarfile.open(str(source_archive)) as archive:
        archive.extractall(str(tmp_path))
    tree = next(tmp_path.glob("fastrnn-*"))
    wheel = run_hook("build_wheel", tree, tmp_path, FASTRNN_NATIVE="0")
    assert wheel.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(str(tmp_path / wheel)) as archive:
        names = archive.namelist()
        report = json.loads(archive.read("fastrnn/_build.json").decode())
    assert report["off"]["native"] == "left out by FASTRNN_NATIVE=0"
    assert {"fastrnn/__init__.py", "fastrnn/py.typed", "fastrnn/_C.pyi"} <= set(names)
    scripts = {"server.js", "surprise.js", "keys.js", "keyboard.js"}
    page = {"index.html", "style.css", "icon.svg", *scripts}
    assert {f"fastrnn/lm/keyboard/page/{name}" for name in page} <= set(names)
    assert not [name for name in names if ".so" in name or name.startswith("tests/")]
    assert [name for name in names if name.endswith("LICENSE")]
