"""The benchmarks' modules, and a stand-in of cuDNN for them."""

from __future__ import annotations

import importlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fastrnn_build import detect

HERE = Path(__file__).resolve().parent

# Not for good: the tests have modules of the same names.
sys.path.insert(0, str(HERE.parents[1] / "bench"))
importlib.import_module("cudnn")
sys.path.pop(0)


@pytest.fixture(scope="session")
def compiler():
    """The C++ compiler's command."""
    found = detect.find_compiler(os.environ)
    if isinstance(found, detect.Missing):
        pytest.skip(found.reason)
    return shlex.split(found.command)


@pytest.fixture(scope="session")
def fake_path(compiler, tmp_path_factory):
    """Path of the stand-in of cuDNN."""
    path = tmp_path_factory.mktemp("fake_cudnn") / "libfakecudnn.so"
    warnings = ["-Wall", "-Wextra", "-Werror"]
    command = [*compiler, "-std=c++17", "-O1", *warnings, "-shared", "-fPIC"]
    subprocess.run([*command, str(HERE / "fake_cudnn.cc"), "-o", str(path)], check=True)
    return str(path)


@pytest.fixture(params=[8906, 90100], ids=["cudnn8", "cudnn9"])
def fake(request, fake_path):
    """The stand-in, as either version; what is made of it has to be destroyed by the test."""
    from fake_cudnn import FakeCudnn

    fake = FakeCudnn(fake_path, request.param)
    host = fake.memory
    yield fake
    assert fake.live() == 0
    host.check_guards()
