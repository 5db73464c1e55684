"""The emulated builds: how to make them, and the environment in which tests use one."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Dict, Sequence

ROOT = Path(__file__).resolve().parents[2]
HERE = Path("tests", "emulator")  # from ROOT
BUILDS = ROOT / "build" / "emulated"
COMPILER = os.environ.get("CXX", "g++")
NO_LEAKS = {"ASAN_OPTIONS": "detect_leaks=0"}  # Python's own memory is never all given back.


def build(jobs: int, targets: Sequence[str] = ("all",)) -> None:
    """Compile what has changed. This Python has pybind11, and the PATH CMake and Ninja."""
    import pybind11

    mxnet = find_spec("mxnet")
    folders = mxnet.submodule_search_locations if mxnet else None
    definitions = {
        "FASTRNN_EMULATE": "ON",
        "FASTRNN_WERROR": "ON",
        "FASTRNN_VERSION": "emulated",
        "FASTRNN_MXNET": folders[0] if folders else "",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
    }
    arguments = [f"-D{name}={value}" for name, value in definitions.items()]
    configure = ["cmake", "-S", str(ROOT), "-B", str(BUILDS), "-G", "Ninja"]
    variables = {**os.environ, "CXX": COMPILER}
    subprocess.run([*configure, "--log-level=WARNING", *arguments], env=variables, check=True)
    compile_all = ["cmake", "--build", str(BUILDS), "--parallel", str(jobs), "--target", *targets]
    subprocess.run([*compile_all, "--", "--quiet"], check=True)


def has_mxnet() -> bool:
    """Tell whether this Python has MXNet."""
    return find_spec("mxnet") is not None


def environment(build: str, schedule: str) -> Dict[str, str]:
    """Return the environment of tests with the build's library in the place of fastrnn's own."""
    (library,) = (BUILDS / build).glob("_C*.so")
    return {
        **os.environ,
        "FASTRNN_EMULATED_BUILDS": str(BUILDS),
        "FASTRNN_EMULATED_LIBRARY": str(library),
        "FASTRNN_EMULATOR_SCHEDULE": schedule,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT / HERE)]),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        **NO_LEAKS,
        "TSAN_OPTIONS": "halt_on_error=1",
        "LD_PRELOAD": preload(build),
    }


def preload(build: str) -> str:
    """Return the sanitizers' runtimes, which have to be in the process before Python is."""
    return find(
        *{"address": ("libasan.so", "libubsan.so"), "thread": ("libtsan.so",)}.get(build, ())
    )


def find(*names: str) -> str:
    """Return the paths of the compiler's libraries."""
    commands = [[COMPILER, f"-print-file-name={name}"] for name in names]
    return " ".join(subprocess.check_output(command, text=True).strip() for command in commands)


def pytest(*arguments: str) -> Sequence[str]:
    """Return the command that runs tests with the library of `environment`."""
    options = ("--tb=short", "-p", "emulated_library", "-p", "no:cacheprovider")
    return (sys.executable, "-m", "pytest", *options, *arguments)
