"""Loading the native library into MXNet, and every way in which it may not be there."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import SimpleNamespace

import pytest

import fastrnn
from fastrnn import native

REPORT = "import fastrnn; print(fastrnn.LSTM(4).backend)"


def library(**facts):
    info = {"mxnet_operators": True, "cuda_kernels": False, "onednn": "1.2.3", **facts}
    return SimpleNamespace(build_info=lambda: info, __file__="/nowhere/_C.so")


@pytest.fixture
def _with(monkeypatch):
    """Return a function that makes `native` find this library, and load it again."""

    def load(found):
        real = importlib.import_module

        def import_module(name):
            if name != "fastrnn._C":
                return real(name)
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(native.importlib, "import_module", import_module)
        monkeypatch.setattr(native.importlib.util, "find_spec", lambda name: found)
        return native._load()

    return load


def test_no_library(_with):
    assert _with(None) == native.Status(
        False, "this is a pure-Python installation, without the native library"
    )


def test_a_library_that_does_not_load_says_what_the_loader_said(_with):
    status = _with(ImportError("libdnnl.so.3: cannot open shared object file"))
    assert not status.usable
    assert status.reason.endswith("does not load: libdnnl.so.3: cannot open shared object file")


def test_a_library_without_mxnets_operators(_with):
    status = _with(library(mxnet_operators=False))
    assert status == native.Status(False, "the native library was built without MXNet's operators")


def test_a_library_without_onednn(_with, monkeypatch):
    monkeypatch.setattr(native, "_register", lambda path: None)
    status = _with(library(onednn=None))
    assert status == native.Status(False, "the native library was built without oneDNN")


def test_an_mxnet_that_does_not_take_the_library(_with, monkeypatch, tmp_path):
    broken = library()
    broken.__file__ = str(tmp_path / "_C.so")
    Path(broken.__file__).write_text("not a library")
    monkeypatch.setattr(native, "OPERATOR", "_fastrnn_of_another_day")
    status = _with(broken)
    assert not status.usable
    assert status.reason.startswith("MXNet does not load the operators: ")
    assert broken.__file__ in status.reason


def test_after_mixed_precision_was_started(_with, monkeypatch):
    monkeypatch.setattr(native, "mixed_precision", lambda: True)
    status = _with(library())
    assert not status.usable
    assert "amp.init()" in status.reason


@pytest.mark.parametrize(
    "gpus, kernels, usable", [(0, False, True), (2, False, False), (2, True, True)]
)
def test_no_cuda_kernels_where_mxnet_sees_a_gpu(_with, monkeypatch, gpus, kernels, usable):
    monkeypatch.setattr(native, "_register", lambda path: None)
    monkeypatch.setattr(native, "GPUS", gpus)
    status = _with(library(cuda_kernels=kernels))
    assert status.usable == usable
    if not usable:
        assert "no CUDA kernels, and MXNet sees 2 GPU(s)" in status.reason


def test_a_cuda_that_cannot_start_is_no_gpu(monkeypatch):
    def num_gpus():
        raise native.mx.MXNetError("CUDA driver version is insufficient")

    monkeypatch.setattr(native.mx.context, "num_gpus", num_gpus)
    assert native._visible_gpus() == 0


def test_loading_again_changes_nothing():
    before = native.STATUS
    assert before == importlib.reload(native).STATUS


# An editable installation also finds the library of the source folder, wherever the package is.
ALONE = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "")]
"""


def run(folder, code, **environment):
    paths = [str(folder), *(p for p in sys.path if p and Path(p, "fastrnn") != package())]
    return subprocess.run(
        [sys.executable, "-c", ALONE + code],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
        timeout=120,
    )


def package():
    return Path(fastrnn.__file__).parent


@pytest.fixture
def _pure(tmp_path):
    """A copy of the package without its native library."""
    names = [f"*{suffix}" for suffix in EXTENSION_SUFFIXES]
    ignore = shutil.ignore_patterns("__pycache__", "lib*", *names)
    shutil.copytree(str(package()), str(tmp_path / "fastrnn"), ignore=ignore)
    return tmp_path


def test_a_pure_installation_works(_pure):
    done = run(_pure, REPORT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("gluon: this is a pure-Python installation")


def test_a_damaged_library_is_reported_and_an_error_where_it_is_demanded(_pure):
    (_pure / "fastrnn" / f"_C{EXTENSION_SUFFIXES[0]}").write_bytes(b"\x7fELF damaged")
    done = run(_pure, REPORT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("gluon: the native library does not load: ")
    assert "_C" in done.stdout
    done = run(_pure, REPORT, FASTRNN_BACKEND="native")
    assert done.returncode == 1
    assert "ValueError: FASTRNN_BACKEND=native: the native library does not load" in done.stderr


def test_importing_is_quiet():
    done = subprocess.run(
        [sys.executable, "-c", "import fastrnn"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
