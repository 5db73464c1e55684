"""What a machine offers to a native build. Each function looks, and returns a find or a `Missing`.

Nothing here decides anything or raises: that is `plan`, whose input is the `Machine` made here.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.metadata
import importlib.util
import platform
import re
import shlex
import shutil
import site
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import List, Mapping, Optional, Sequence, Tuple, Union

MXNET_VERSION = "1.9.1"
ONEDNN_WHEELS = ("onednn-cpu-gomp", "onednn-devel-cpu-gomp")


@dataclass(frozen=True)
class Missing:
    """Something the build looked for and did not find, and why."""

    reason: str


@dataclass(frozen=True)
class Compiler:
    """A C++17 compiler that knows OpenMP."""

    command: str


@dataclass(frozen=True)
class Nvcc:
    """The CUDA compiler and its version, (major, minor)."""

    path: Path
    version: Tuple[int, int]


@dataclass(frozen=True)
class Tools:
    """CMake, the program it drives (None: make) and pybind11's CMake files."""

    cmake: Path
    ninja: Optional[Path]
    pybind11: Path


@dataclass(frozen=True)
class OneDnn:
    """oneDNN's headers and library. Licences are set when the library has to be shipped."""

    include: Path
    library: Path
    licences: Tuple[Path, ...] = ()


@dataclass(frozen=True)
class MxNet:
    """The folder of an installed `mxnet` package with the sources of its operator interface."""

    folder: Path
    version: str


@dataclass(frozen=True)
class Machine:
    """Everything that the decisions of the build depend on, apart from the settings."""

    python: Tuple[int, int]
    platform: str
    compiler: Union[Compiler, Missing]
    nvcc: Union[Nvcc, Missing]
    onednn: Union[OneDnn, Missing]
    mxnet: Union[MxNet, Missing]
    tools: Union[Tools, Missing]
    gpus: Tuple[str, ...] = ()  # their compute capabilities, such as "80"

    @classmethod
    def here(cls, environ: Mapping[str, str]) -> Machine:
        """Look around on this machine, for the environment that pip is installing into."""
        return cls(
            python=sys.version_info[:2],
            platform=platform_name(),
            compiler=find_compiler(environ),
            nvcc=find_nvcc(environ),
            onednn=find_onednn(environ),
            mxnet=find_mxnet([target_site_packages(), sys.path]),
            tools=find_tools(),
            gpus=find_gpus(),
        )


def platform_name() -> str:
    """Return the platform as in a wheel's name, "linux-x86_64", with "musl" told from glibc."""
    name = sysconfig.get_platform()
    if name.startswith("linux") and platform.libc_ver()[0] != "glibc":
        return name.replace("linux", "musllinux")
    return name


def find_compiler(environ: Mapping[str, str]) -> Union[Compiler, Missing]:
    """Find a C++ compiler and Python's headers. $CXX comes first, GCC next: it shares libgomp."""
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    if not header.is_file():
        return Missing(f"Python's C headers were not found ({header}); install python3-dev")
    candidates = [environ["CXX"]] if environ.get("CXX") else ["g++", "c++", "clang++"]
    found = [c for c in candidates if c.strip() and shutil.which(shlex.split(c)[0])]
    if not found:
        return Missing(f"no C++ compiler was found (looked for {', '.join(candidates)})")
    return Compiler(found[0])


def probe_compiler(compiler: Compiler) -> Union[Compiler, Missing]:
    """Compile and link a small C++17 program with OpenMP."""
    program = "#include <omp.h>\n#include <any>\nint main() { return !omp_get_max_threads(); }\n"
    command = [*shlex.split(compiler.command), "-std=c++17", "-fopenmp"]
    error = _compile_error(command, "probe.cc", program)
    if error is None:
        return compiler
    return Missing(f"{compiler.command} cannot build a C++17 program with OpenMP: {error}")


def find_nvcc(environ: Mapping[str, str]) -> Union[Nvcc, Missing]:
    """Find nvcc: $CUDACXX, $CUDA_HOME, $CUDA_PATH, the search path, then /usr/local/cuda."""
    homes = [environ.get("CUDA_HOME"), environ.get("CUDA_PATH")]
    candidates = [environ.get("CUDACXX"), *(f"{home}/bin/nvcc" for home in homes if home)]
    for candidate in [*candidates, "nvcc", "/usr/local/cuda/bin/nvcc"]:
        path = shutil.which(candidate) if candidate else None
        if path is None:
            continue
        result = subprocess.run([path, "--version"], check=False, stdout=subprocess.PIPE, text=True)
        version = parse_nvcc_version(result.stdout)
        if version is None:
            return Missing(f"{path} --version does not name a CUDA release")
        return Nvcc(Path(path), version)
    return Missing("nvcc was not found (set CUDA_HOME, or put nvcc on the PATH)")


def parse_nvcc_version(text: str) -> Optional[Tuple[int, int]]:
    """Read (major, minor) from what `nvcc --version` prints."""
    match = re.search(r"release (\d+)\.(\d+)", text)
    return (int(match.group(1)), int(match.group(2))) if match else None


def probe_nvcc(nvcc: Nvcc) -> Union[Nvcc, Missing]:
    """Compile a small kernel: this fails when nvcc does not accept the host compiler."""
    program = "__global__ void kernel() {}\nint main() { return cudaDeviceSynchronize(); }\n"
    error = _compile_error([str(nvcc.path), "-std=c++17"], "probe.cu", program)
    return nvcc if error is None else Missing(f"{nvcc.path} cannot build a small program: {error}")


def _compile_error(command: Sequence[str], name: str, program: str) -> Optional[str]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, name)
        source.write_text(program)
        result = subprocess.run(
            [*command, str(source), "-o", str(source.with_suffix(".out"))],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            text=True,
        )
    if result.returncode == 0:
        return None
    lines = [line for line in result.stdout.splitlines() if "error" in line.lower()]
    return (lines or [f"exit status {result.returncode}"])[0]


def find_gpus() -> Tuple[str, ...]:
    """Return the compute capabilities of the GPUs that the driver shows."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    count, device, value = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    major, minor = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_...
    found = []
    for index in range(count.value):
        driver.cuDeviceGet(ctypes.byref(device), index)
        numbers = []
        for attribute in (major, minor):
            driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
            numbers.append(str(value.value))
        found.append("".join(numbers))
    return tuple(sorted(set(found), key=int))


def find_onednn(environ: Mapping[str, str]) -> Union[OneDnn, Missing]:
    """Find oneDNN 3: in $DNNL_ROOT if that is set, else as PyPI's wheels or the system's."""
    root = environ.get("DNNL_ROOT")
    if root:
        wanted = "lib*/libdnnl.so.3 and include/oneapi/dnnl/dnnl.hpp"
        return _onednn_in(root) or Missing(f"DNNL_ROOT={root} holds no oneDNN 3 ({wanted})")
    found = _onednn_wheels() or _onednn_in("/usr/local") or _onednn_in("/usr")
    return found or Missing(
        f"oneDNN 3 was not found (pip install {' '.join(ONEDNN_WHEELS)}, or set DNNL_ROOT)"
    )


def _onednn_in(folder: str) -> Optional[OneDnn]:
    root = Path(folder).absolute()
    libraries = sorted(root.glob("lib*/libdnnl.so.3")) + sorted(root.glob("lib/*/libdnnl.so.3"))
    if libraries and (root / "include/oneapi/dnnl/dnnl.hpp").is_file():
        return OneDnn(root / "include", libraries[0])
    return None


def _onednn_wheels() -> Optional[OneDnn]:
    files: List[Path] = []
    for name in ONEDNN_WHEELS:
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            return None
        listed = [str(distribution.locate_file(f)) for f in distribution.files or ()]
        files += [Path(f).resolve() for f in listed]
    headers = [f for f in files if f.match("include/oneapi/dnnl/dnnl.hpp")]
    libraries = [f for f in files if f.name == "libdnnl.so.3"]
    if not (headers and libraries):
        return None
    licences = dict.fromkeys(f for f in files if f.match("doc/onednn/*") and f.name != "README")
    return OneDnn(headers[0].parents[2], libraries[0], tuple(licences))


def target_site_packages() -> List[str]:
    """Return where the environment that pip installs into keeps packages.

    pip's build isolation takes these folders off `sys.path`, but runs that environment's Python.
    A virtual environment sees the base installation's packages only if it was made that way.
    """
    folders = site.getsitepackages()
    if sys.prefix == sys.base_prefix or sys.base_prefix in site.PREFIXES:
        folders.append(site.getusersitepackages())
    return folders


def find_mxnet(search_paths: Sequence[Sequence[str]]) -> Union[MxNet, Missing]:
    """Find MXNet 1.9 without importing it, in the first of several search paths that has it."""
    reason = f"MXNet was not found (pip install mxnet=={MXNET_VERSION})"
    for search_path in search_paths:
        spec = importlib.machinery.PathFinder.find_spec("mxnet", list(search_path))
        if spec is None or spec.origin is None:
            continue
        folder = Path(spec.origin).parent
        version = _mxnet_version(folder)
        if version.startswith("1.9.") and (folder / "src/lib_api.cc").is_file():
            return MxNet(folder, version)
        reason = f"MXNet {version} in {folder} lacks the operator interface of {MXNET_VERSION}"
    return Missing(reason)


def _mxnet_version(folder: Path) -> str:
    text = (folder / "libinfo.py").read_text() if (folder / "libinfo.py").is_file() else ""
    match = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    return match.group(1) if match else "of unknown version"


def find_tools() -> Union[Tools, Missing]:
    """Find CMake, Ninja and pybind11, on the search path or as packages of this Python."""
    cmake, ninja = _find_program("cmake"), _find_program("ninja")
    pybind11 = importlib.util.find_spec("pybind11")
    if cmake is None:
        return Missing("CMake was not found (pip install cmake)")
    if pybind11 is None or pybind11.origin is None:
        return Missing("pybind11 was not found (pip install pybind11)")
    if ninja is None and shutil.which("make") is None:
        return Missing("neither Ninja nor make was found (pip install ninja)")
    return Tools(cmake, ninja, Path(pybind11.origin).parent / "share/cmake/pybind11")


def _find_program(name: str) -> Optional[Path]:
    # Build isolation puts its programs on the search path; without it, those of an environment that
    # is not activated are in its folder alone.
    path = shutil.which(name) or shutil.which(name, path=sysconfig.get_path("scripts"))
    return Path(path) if path else None
