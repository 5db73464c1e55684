"""The setuptools commands that carry out a `Plan`."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from setuptools import Extension
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

from .detect import Machine, Missing, OneDnn, probe_compiler, probe_nvcc
from .plan import Native, Plan, make_plan
from .settings import BuildError, Settings

ROOT = Path(__file__).resolve().parents[2]
REPORT = "_build.json"
LICENCE_FOLDER = Path("third_party", "onednn")
# Commands that only describe the project: they must work where nothing can be compiled.
DESCRIBING = {"egg_info", "dist_info", "sdist", "clean", "--version", "--name", "--help"}


def plan_for(arguments: Sequence[str], environ: Mapping[str, str]) -> Plan:
    """Look at the machine, try its compilers on a small program, and decide what to build."""
    if DESCRIBING & set(arguments):
        return Plan(None, {})
    settings = Settings.from_environment(environ)
    machine = Machine.here(environ)
    if settings.native != "0" and not isinstance(machine.compiler, Missing):
        machine = dataclasses.replace(machine, compiler=probe_compiler(machine.compiler))
        if settings.cuda != "0" and not isinstance(machine.nvcc, Missing):
            machine = dataclasses.replace(machine, nvcc=probe_nvcc(machine.nvcc))
    plan = make_plan(settings, machine)
    print(plan.describe(os.cpu_count() or 1), flush=True)
    return plan


def setup_arguments(plan: Plan) -> Dict[str, Any]:
    """Return the arguments of `setup()` that depend on the plan."""
    return {
        "ext_modules": [Extension("fastrnn._C", sources=[])] if plan.native else [],
        "cmdclass": {
            "build_py": type("build_py", (BuildPy,), {"plan": plan}),
            "build_ext": type("build_ext", (BuildExt,), {"plan": plan}),
        },
    }


class BuildPy(build_py):
    """Copies the Python files and notes beside them what was left out, for `features()`."""

    plan: Plan

    def run(self) -> None:
        """Build into an empty folder: a file of an earlier build must not get into the wheel."""
        folder = Path(self.get_package_dir("fastrnn"))
        if not self.editable_mode:
            folder = Path(self.build_lib, "fastrnn")
            if folder.exists():
                shutil.rmtree(folder)
        super().run()
        folder.mkdir(parents=True, exist_ok=True)
        stale = folder / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
        if self.plan.native is None and stale.exists():
            stale.unlink()
        (folder / REPORT).write_text(json.dumps({"off": self.plan.off}, indent=2) + "\n")


class BuildExt(build_ext):
    """Has CMake build the native library, and puts oneDNN and its licences beside it."""

    plan: Plan

    def build_extension(self, ext: Extension) -> None:
        """Configure, compile, and copy the result to where setuptools expects it."""
        native = self.plan.native
        assert native is not None, "setup_arguments() adds the extension only to native builds"
        build = Path(self.build_temp).resolve() / "cmake"
        build.mkdir(parents=True, exist_ok=True)
        cache = build / "CMakeCache.txt"
        if cache.exists():  # its paths may lead into an isolated build environment that is gone
            cache.unlink()
        environ = {**os.environ, "CXX": native.compiler.command}
        cmake = str(native.tools.cmake)
        definitions = cmake_definitions(native, self.distribution.get_version())
        extra = shlex.split(os.environ.get("CMAKE_ARGS", ""))
        _run([cmake, "-S", str(ROOT), "-B", str(build), *definitions, *extra], environ)
        _run([cmake, "--build", str(build), "--parallel", str(os.cpu_count() or 1)], environ)
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        self.copy_file(str(build / target.name), str(target))
        for source, name in bundled_files(native.onednn):
            destination = target.parent / name
            destination.parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(source), str(destination))

    def copy_extensions_to_source(self) -> None:
        """Copy oneDNN too when the package stays in the source folder (editable, in place)."""
        super().copy_extensions_to_source()
        native = self.plan.native
        package = Path(self.get_finalized_command("build_py").get_package_dir("fastrnn"))
        for source, name in bundled_files(native.onednn if native else None):
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(source), str(package / name))


def cmake_definitions(native: Native, version: str) -> List[str]:
    """Return CMake's -D arguments for a native build."""
    values = {
        "CMAKE_BUILD_TYPE": "Release",
        "FASTRNN_VERSION": version,
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": native.tools.pybind11,
    }
    if native.onednn:
        values["FASTRNN_ONEDNN_INCLUDE"] = native.onednn.include
        values["FASTRNN_ONEDNN_LIBRARY"] = native.onednn.library
        if not bundled_files(native.onednn):
            values["FASTRNN_ONEDNN_RPATH"] = native.onednn.library.parent
    if native.mxnet:
        values["FASTRNN_MXNET"] = native.mxnet.folder
        values["FASTRNN_MXNET_VERSION"] = native.mxnet.version
    if native.nvcc:
        values["CMAKE_CUDA_COMPILER"] = native.nvcc.path
        values["FASTRNN_CUDA_ARCHITECTURES"] = ";".join(native.cuda_architectures)
    generator = ["-G", "Unix Makefiles"]
    if native.tools.ninja:
        generator = ["-G", "Ninja"]
        values["CMAKE_MAKE_PROGRAM"] = native.tools.ninja
    return [*generator, *(f"-D{name}={value}" for name, value in values.items())]


def bundled_files(onednn: Optional[OneDnn]) -> List[Tuple[Path, Path]]:
    """Return the files of oneDNN to ship as (source, path inside the package).

    Only the wheel's library is shipped: its folder is gone once an isolated build ends, while any
    other stays where it is, and is found there by its RPATH.
    """
    if onednn is None or not onednn.licences:
        return []
    library = (onednn.library, Path(onednn.library.name))
    return [library, *((path, LICENCE_FOLDER / path.name) for path in onednn.licences)]


def _run(command: Sequence[str], environ: Mapping[str, str]) -> None:
    print(shlex.join(command), flush=True)
    status = subprocess.run(command, check=False, env=dict(environ)).returncode
    if status != 0:
        raise BuildError(
            f"the native build failed (status {status}); the lines above say why. "
            "FASTRNN_NATIVE=0 does without the native library"
        )
