"""A stand-in of cuDNN for the benchmarks."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import sources  # noqa: F401

from fastrnn_build import detect

HERE = Path(__file__).resolve().parent


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
