"""What this installation can do, and why it cannot do the rest."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import platform
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from fastrnn import _native
from fastrnn import mxnet as _mxnet
from fastrnn._version import __version__
from fastrnn.check import verdict

_REPORT = Path(__file__).with_name("_build.json")
_NO_MXNET = "there is no MXNet"

_LABELS = {
    "fastrnn": "fastrnn",
    "python": "Python",
    "numpy": "NumPy",
    "mxnet": "MXNet",
    "mxnet_build": "MXNet's build",
    "mxnet_gpus": "GPUs that MXNet sees",
    "native_library": "native library",
    "compiler": "compiler",
    "onednn": "oneDNN",
    "mxnet_operators": "native MXNet operators",
    "cuda_toolkit": "CUDA toolkit",
    "cuda_architectures": "CUDA architectures",
    "driver": "CUDA of the driver",
    "devices": "CUDA devices",
    "check": "fastrnn check",
}


def features() -> Dict[str, Any]:
    """Return what this installation consists of and can do.

    Returns
    -------
    dict
        ``fastrnn``, ``python``, ``numpy``, ``mxnet``: versions. ``mxnet_build``: ``cpu``, ``cu112``
        or similar. ``mxnet_gpus``: number of GPUs that MXNet sees. ``native_library``: its path.
        ``compiler``, ``onednn``, ``cuda_toolkit``: versions. ``mxnet_operators``: whether MXNet
        runs the native operators. ``cuda_architectures``: those with machine code. ``driver``: the
        newest CUDA that the driver supports. ``devices``: a dict for each GPU. ``check``: for each
        GPU, or else the CPU, what ``fastrnn check`` found there. A missing item is None, False or
        empty, and the dict ``off`` has the reason under the same key.
    """
    off: Dict[str, str] = {}
    found: Dict[str, Any] = {
        "fastrnn": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        **_mxnet_facts(off),
        **_library_facts(off),
    }
    return {**found, "off": {key: off[key] for key in found if key in off}}


def format_features() -> str:
    """Return `features()` as the lines that ``fastrnn info`` prints."""
    found = features()
    off = found["off"]
    width = max(map(len, _LABELS.values()))
    return "\n".join(
        f"{label:{width}}  {_value(found[key], off.get(key))}" for key, label in _LABELS.items()
    )


def _value(value: Any, reason: Optional[str]) -> str:
    if isinstance(value, list):
        value = ", ".join(_device(v) if isinstance(v, dict) else v for v in value)
    text = "yes" if value is True else str(value or "none")
    return f"{text}: {reason}" if reason else text


def _device(device: Dict[str, Any]) -> str:
    return (
        f"{device['name']} (sm_{device['compute_capability'].replace('.', '')}, "
        f"{device['memory_bytes'] / 2**30:.0f} GiB, {device['multiprocessors']} multiprocessors)"
    )


def _mxnet_facts(off: Dict[str, str]) -> Dict[str, Any]:
    facts: Dict[str, Any] = {"mxnet": None, "mxnet_build": None, "mxnet_gpus": 0}
    try:
        mx = _mxnet.import_mxnet()
    except ImportError as error:
        off.update(dict.fromkeys(facts, _NO_MXNET))
        off["mxnet"] = str(error)
        return facts
    facts["mxnet"] = mx.__version__
    facts["mxnet_build"] = _mxnet_build(mx)
    if facts["mxnet_build"] == "cpu":
        off["mxnet_gpus"] = "MXNet was built for the CPU"
        return facts
    try:
        facts["mxnet_gpus"] = mx.context.num_gpus()
    except mx.MXNetError as error:
        off["mxnet_gpus"] = str(error).strip().splitlines()[-1]
    return facts


def _mxnet_build(mx: ModuleType) -> str:
    if not mx.runtime.Features().is_enabled("CUDA"):
        return "cpu"
    names = [d.metadata["Name"] or "" for d in importlib.metadata.distributions()]
    return next((n[len("mxnet-") :] for n in names if n.startswith("mxnet-cu")), "cuda")


def _library_facts(off: Dict[str, str]) -> Dict[str, Any]:
    facts: Dict[str, Any] = {
        "native_library": None,
        "compiler": None,
        "onednn": None,
        "mxnet_operators": False,
        "cuda_toolkit": None,
        "cuda_architectures": [],
        "driver": None,
        "devices": [],
        "check": [],
    }
    left_out = json.loads(_REPORT.read_text())["off"] if _REPORT.is_file() else {}
    library, reason = _native.find()
    if library is None:
        off.update(dict.fromkeys(facts, "there is no native library"))
        off["native_library"] = left_out.get("native", reason)
        return facts
    facts["native_library"] = library.__file__
    facts.update((key, value) for key, value in library.build_info().items() if key in facts)
    if facts["onednn"] is None:
        off["onednn"] = left_out.get("onednn", "left out of the build")
    why_not = _why_no_operators(facts["mxnet_operators"], left_out, "mxnet" not in off)
    if why_not:
        facts["mxnet_operators"] = False
        off["mxnet_operators"] = why_not
    if facts["cuda_toolkit"]:
        facts.update(_device_facts(library, facts["cuda_toolkit"], off))
    else:
        for key in ("cuda_architectures", "driver", "devices"):
            off[key] = "built without CUDA"
        off["cuda_toolkit"] = left_out.get("cuda", "left out of the build")
    facts["check"] = _check_facts(len(facts["devices"]), off)
    return facts


def _check_facts(gpus: int, off: Dict[str, str]) -> List[str]:
    """Return what verdicts there are; the reason is that of the first device without one."""
    found = []
    for device in range(gpus) if gpus else [verdict.CPU]:
        of_device, reason = verdict.of_process(device)
        if of_device is not None:
            found.append(of_device.summary())
        else:
            off.setdefault("check", reason)
    return found


def _why_no_operators(built: bool, left_out: Dict[str, str], mxnet: bool) -> Optional[str]:
    if not built:
        return left_out.get("mxnet_operators", "left out of the build")
    if not mxnet:
        return _NO_MXNET
    status = importlib.import_module("fastrnn.mxnet.native").STATUS
    return None if status.usable else status.reason


def _device_facts(library: Any, toolkit: str, off: Dict[str, str]) -> Dict[str, Any]:
    """Ask the CUDA runtime. A driver may be older than the toolkit within one major version."""
    answer = library.cuda_devices()
    driver = answer["driver"]
    if driver is None:
        off["driver"] = "no NVIDIA driver"
    elif _version(toolkit) > _version(driver):
        off["driver"] = f"toolkit newer than driver ({toolkit} and {driver})"
    if not answer["devices"]:
        off["devices"] = off.get("driver") or answer["error"] or "no GPU"
    return {"driver": driver, "devices": answer["devices"]}


def _version(text: str) -> Tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
