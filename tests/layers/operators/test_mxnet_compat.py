"""MXNet on any NumPy, and no MXNet at all."""

from __future__ import annotations

import importlib
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from fastrnn import mxnet as _mxnet


def test_names_that_numpy_still_has_are_left_alone():
    kept = {name: getattr(np, name) for name in ("bool_", "sort", "inf", "nan", "float64")}
    _mxnet.restore_numpy_names()
    _mxnet.restore_numpy_names()
    for name, value in kept.items():
        assert getattr(np, name) is value


@pytest.mark.filterwarnings("ignore:.*removed from NumPy")
def test_removed_names_are_there_again(monkeypatch):
    for name in _mxnet._removed_names():
        if name in vars(np):
            monkeypatch.delattr(np, name)
    _mxnet.restore_numpy_names()
    for name in _mxnet._removed_names():
        assert hasattr(np, name), name


def test_removed_names_mean_what_they_meant():
    names = _mxnet._removed_names()
    assert names["PINF"] == names["Inf"] == names["infty"] == math.inf
    assert names["NINF"] == -math.inf
    assert math.copysign(1, names["NZERO"]) == -1
    assert math.isnan(names["NaN"])
    assert names["float_"] is np.float64
    assert names["alltrue"]([1, 1]) and not names["alltrue"]([1, 0])
    assert names["sometrue"]([0, 1]) and not names["sometrue"]([0, 0])
    assert names["product"]([2, 3]) == 6
    np.testing.assert_array_equal(names["cumproduct"]([2, 3]), [2, 6])
    assert names["round_"](1.26, 1) == 1.3
    np.testing.assert_array_equal(names["row_stack"]([[1], [2]]), [[1], [2]])
    np.testing.assert_array_equal(names["msort"]([[3, 1], [2, 4]]), [[2, 1], [3, 4]])
    np.testing.assert_array_equal(names["in1d"]([[1, 2], [3, 4]], [2, 3]), [0, 1, 1, 0])
    with pytest.raises(RuntimeError, match="no longer has npv; numpy_financial does"):
        names["npv"](0.1, [1, 2])


def test_mxnet_computes_on_this_numpy():
    mx = _mxnet.import_mxnet()
    assert mx.__version__ == "1.9.1"
    array = mx.nd.array(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert (array[1] * 2).asnumpy().tolist() == [6.0, 8.0, 10.0]
    assert mx.np.array([True, False], dtype="bool").dtype == np.bool_


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'requests'", name="requests"),
        ImportError("numpy.core.multiarray failed to import"),
        OSError("libgfortran.so.3: cannot open shared object file: No such file or directory"),
        RuntimeError("Cannot find the MXNet library.\nList of candidates:\n/lib/libmxnet.so"),
    ],
)
def test_what_keeps_mxnet_from_loading_is_said_with_the_extra(monkeypatch, error):
    def import_module(name):
        raise error

    monkeypatch.setattr(importlib, "import_module", import_module)
    with pytest.raises(ImportError, match="does not load: ") as caught:
        _mxnet.import_mxnet()
    message = str(caught.value)
    assert str(error).splitlines()[0] in message
    assert "pip install 'fastrnn[cpu]'" in message
    assert "\n" not in message
    assert caught.value.__cause__ is error


def test_without_distutils_setuptools_is_named(monkeypatch):
    def import_module(name):
        raise ModuleNotFoundError("No module named 'distutils'", name="distutils")

    monkeypatch.setattr(importlib, "import_module", import_module)
    with pytest.raises(ImportError, match="pip install setuptools"):
        _mxnet.import_mxnet()


WITHOUT = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "mxnet" else find(name, *rest)
"""


def run_without_mxnet(code):
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + code], capture_output=True, text=True, check=False
    )


def test_without_mxnet_the_import_says_nothing():
    done = run_without_mxnet("import fastrnn")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "use", ["fastrnn.LSTM", "from fastrnn import GRU", "import fastrnn.layers"]
)
def test_without_mxnet_layers_are_an_import_error(use):
    done = run_without_mxnet("import fastrnn\n" + use)
    assert done.returncode == 1
    assert "ImportError: fastrnn's layers need MXNet" in done.stderr
    assert all(f"fastrnn[{extra}]" in done.stderr.splitlines()[-1] for extra in ("cpu", "cu112"))


def test_without_mxnet_the_rest_is_there():
    done = run_without_mxnet(
        "import fastrnn, fastrnn.kernels\n"
        "print(fastrnn.__version__, fastrnn.features()['mxnet'], hasattr(fastrnn, 'nothing'))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1:] == ["None", "False"]


@pytest.fixture
def _broken(tmp_path):
    """Return a function that runs Python where MXNet lacks a system library."""
    (tmp_path / "mxnet").mkdir()
    (tmp_path / "mxnet" / "__init__.py").write_text("raise OSError('libgfortran.so.3: no file')\n")
    paths = [str(tmp_path), *sys.path]

    def run(*arguments):
        return subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )

    return run


def test_a_broken_mxnet_leaves_the_rest_working(_broken):
    done = _broken(
        "-c", "import fastrnn, fastrnn.kernels; print(fastrnn.features()['off']['mxnet'])"
    )
    assert done.returncode == 0, done.stderr
    for text in (done.stdout, done.stderr):
        assert "MXNet, which is installed but does not load: libgfortran.so.3: no file." in text
    done = _broken("-c", "import fastrnn; fastrnn.LSTM")
    assert done.returncode == 1
    assert "\nOSError: libgfortran.so.3: no file" in done.stderr  # where it comes from
    assert done.stderr.splitlines()[-1].startswith("ImportError: fastrnn's layers need MXNet")


def test_the_command_names_a_broken_mxnet_once(_broken):
    done = _broken("-m", "fastrnn", "info")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("libgfortran.so.3") == 1
    done = _broken("-m", "fastrnn", "train")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fastrnn: fastrnn's layers need MXNet")
    assert done.stderr.count("\n") == done.stderr.count("libgfortran.so.3") == 1
