"""What a run was made on and with."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, List

from bench.peers import Peer

ROOT = Path(__file__).resolve().parents[1]


def has_gpu() -> bool:
    """Whether an NVIDIA driver has a device here. Asks neither PyTorch nor MXNet."""
    # Containers have one of the two, or both.
    places = [("/proc/driver/nvidia/gpus", "*"), ("/dev", "nvidia[0-9]*")]
    return any(any(Path(folder).glob(name)) for folder, name in places)


def commit() -> str:
    """The commit of the sources; BENCH_COMMIT says it where git cannot."""
    given = os.environ.get("BENCH_COMMIT")
    if given:
        return given
    git = ["git", "-C", str(ROOT)]
    try:
        found = _output([*git, "rev-parse", "HEAD"])
        # Results themselves are not what was measured.
        changed = _output([*git, "status", "--porcelain", "--", ":!bench/results", ":!docs"])
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found + (" with changes" if changed else "")


def _output(command: List[str]) -> str:
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return result.stdout.decode().strip()


def processor() -> str:
    """The CPU's name and how many of its processors there are for this process."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.machine()])[0]}, {len(os.sched_getaffinity(0))} processors"


def about(device: str, peers: List[Peer], missing: Dict[str, str]) -> Dict[str, Any]:
    """Facts about a run on ``cpu`` or ``cuda``."""
    facts = {
        "kind": device,
        "device": processor() if device == "cpu" else _gpu()["device"],
        "commit": commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "Python": platform.python_version(),
        "threads": os.environ.get("OMP_NUM_THREADS", "each library's own choice"),
        "versions": {peer.name: peer.version() for peer in peers},
        "missing": missing,
    }
    if device == "cuda":
        facts["driver"] = _gpu()["driver"]
    return facts


def _gpu() -> Dict[str, str]:
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    name, driver = _output(command).splitlines()[0].split(", ")
    return {"device": name, "driver": driver}
