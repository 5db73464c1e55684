"""Loading the native library into MXNet, and every way in which it may not be there."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import SimpleNamespace

import pytest

import fastrnn
from fastrnn import _native
from fastrnn import mxnet as _mxnet
from fastrnn.mxnet import native

REPORT = "import fastrnn; print(fastrnn.LSTM(4).backend)"


CPU = {"cpu": ("float32",)}
GPU = {**CPU, "gpu": ("float32", "float16")}


def library(devices=(), error=None, **facts):
    info = {
        "mxnet_operators": True,
        "onednn": "1.2.3",
        "operator_types": CPU,
        "cuda_toolkit": "13.0",
        "cuda_architectures": ["75", "80", "86"],
        **facts,
    }
    found = [{"name": "a GPU", "compute_capability": device} for device in devices]
    return SimpleNamespace(
        build_info=lambda: info,
        cuda_devices=lambda: {"devices": found, "error": error},
        __file__="/nowhere/_C.so",
    )


@pytest.fixture
def _with(monkeypatch):
    """Return a function that makes `native` find this library, and load it again."""

    def load(found):
        def import_library():
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(_native, "library", import_library)
        monkeypatch.setattr(_native.importlib.util, "find_spec", lambda name: found)
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
    status = _with(library(onednn=None, operator_types={}))
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
    "gpus, found, obstacle",
    [
        (0, library(), None),
        (0, library(operator_types={}), "without oneDNN"),
        (2, library(), "without CUDA, and MXNet sees 2 GPU"),
        (1, library(operator_types={"gpu": ("float32",)}), "without oneDNN"),
        (1, library(["8.0"], operator_types=GPU), None),
        (1, library(["8.9"], operator_types=GPU), None),  # runs what was built for 8.6
        (1, library(["9.0"], operator_types=GPU), None),  # compiles the PTX
        (1, library(["7.0"], operator_types=GPU), r"no machine code for a GPU \(sm_70\)"),
        (
            2,
            library(["8.0", "6.1"], operator_types=GPU),
            r"\(sm_61\); it was built for sm_75, sm_80",
        ),
        (1, library(error="no driver", operator_types=GPU), "cannot use the GPU: no driver"),
        (2, library(["8.0"], operator_types=GPU), "sees 1 of MXNet's 2"),
    ],
)
def test_the_operator_has_to_be_there_for_every_context(_with, monkeypatch, gpus, found, obstacle):
    monkeypatch.setattr(native, "_register", lambda path: None)
    monkeypatch.setattr(native, "GPUS", gpus)
    status = _with(found)
    assert status.usable == (obstacle is None)
    if obstacle is None:
        assert status.types == (("float32", "float16") if gpus else ("float32",))
    else:
        assert re.search(obstacle, status.reason)


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


def test_importing_leaves_mxnets_functions_alone():
    script = """
import runpy, sys
mx = runpy.run_path(sys.argv[1])["import_mxnet"]()
functions = [mx.nd.relu, mx.sym.relu, mx.nd._internal._plus_scalar, mx.sym.contrib.arange_like]
import fastrnn
now = [mx.nd.relu, mx.sym.relu, mx.nd._internal._plus_scalar, mx.sym.contrib.arange_like]
assert all(one is other for one, other in zip(functions, now))
"""
    subprocess.run([sys.executable, "-c", script, _mxnet.__file__], check=True)


@pytest.mark.skipif(not native.STATUS.usable, reason=native.STATUS.reason)
def test_a_library_that_the_program_has_loaded():
    script = """
import runpy, sys
mx = runpy.run_path(sys.argv[1])["import_mxnet"]()
mx.library.load(sys.argv[2], verbose=False)
import fastrnn
from mxnet.contrib.amp.lists import symbol_bf16, symbol_fp16
print(fastrnn.LSTM(4).backend.name)
print(*(lists.FP32_FUNCS.count("_fastrnn_layer") for lists in (symbol_bf16, symbol_fp16)))
"""
    command = [sys.executable, "-c", script, _mxnet.__file__, str(_native.library().__file__)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["native", "1", "1"]


def test_importing_is_quiet():
    done = subprocess.run(
        [sys.executable, "-c", "import fastrnn"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
