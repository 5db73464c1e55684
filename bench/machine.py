"""What a run was made on and with."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Sequence

if TYPE_CHECKING:  # what names the commit alone shall need no NumPy
    from bench.peers import Peer

ROOT = Path(__file__).resolve().parents[1]
# What the figures depend on. Results and other files may lie about in the work tree.
SOURCES = [
    *("CMakeLists.txt", "pyproject.toml", "setup.py", "build_backend", "csrc", "fastrnn"),
    *("bench", ":!bench/results"),
]
UNKNOWN = "unknown"


def has_gpu() -> bool:
    """Whether an NVIDIA driver has a device here. Asks neither PyTorch nor MXNet."""
    # Containers have one of the two, or both.
    places = [("/proc/driver/nvidia/gpus", "*"), ("/dev", "nvidia[0-9]*")]
    return any(any(Path(folder).glob(name)) for folder, name in places)


def commit(root: Path = ROOT) -> str:
    """The commit of the sources; BENCH_COMMIT says it where git cannot."""
    given = os.environ.get("BENCH_COMMIT")
    if given:
        return given
    git = ["git", "-C", str(root)]
    try:
        found = _output([*git, "rev-parse", "HEAD"])
        changed = _output([*git, "status", "--porcelain", "--", *SOURCES])
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN
    return found + (" with changes" if changed else "")


def _output(command: List[str]) -> str:
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return result.stdout.decode().strip()


def processor() -> str:
    """The CPU's name and how many of its processors there are for this process."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.machine()])[0]}, {len(os.sched_getaffinity(0))} processors"


def about(device: str, peers: Sequence[Peer], missing: Dict[str, str]) -> Dict[str, Any]:
    """Facts about a run on ``cpu`` or ``cuda``."""
    facts: Dict[str, Any] = {
        "kind": device,
        "device": processor() if device == "cpu" else _gpu()["device"],
        "commit": commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "Python": platform.python_version(),
        "threads": os.environ.get("OMP_NUM_THREADS", "each library's own choice"),
        "versions": {peer.group or peer.name: peer.version() for peer in peers},
        "missing": missing,
    }
    if device == "cuda":
        from fastrnn._native import library

        facts["driver"] = _gpu()["driver"]
        facts["CUDA toolkit"] = library().build_info()["cuda_toolkit"]
        facts["device facts"] = library().device_facts(0)  # which the kernels are picked by
    return facts


def cublas() -> List[str]:
    """Path and version of each cuBLAS in this process, which products have loaded."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    paths = sorted(set(re.findall(r"/\S*/libcublas\.so\S*", maps)))
    return [f"{path} {_cublas_version(path)}" for path in paths]


def _cublas_version(path: str) -> str:
    get_property, value = ctypes.CDLL(path).cublasGetProperty, ctypes.c_int()
    numbers = []
    for part in range(3):  # MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL
        status = get_property(part, ctypes.byref(value))
        numbers.append(str(value.value) if status == 0 else "?")
    return ".".join(numbers)


def _gpu() -> Dict[str, str]:
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    name, driver = _output(command).splitlines()[0].split(", ")
    return {"device": name, "driver": driver}
