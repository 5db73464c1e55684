"""What ``fastrnn check`` found on a device, kept in the user's cache; layers read it.

A verdict is for one model of GPU (or CPU), driver, build of the native library, MXNet and cuDNN.
It is a JSON file, written whole or not at all. A process reads it once, so a check that runs
meanwhile changes nothing in it.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import math
import os
import re
import threading
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from fastrnn import _native
from fastrnn._cache import cache_folder
from fastrnn.check.kinds import CAPABILITY, CPU, Device, Kind, tf32_is_wanted

PASSED, FAILED, UNFINISHED = "passed", "failed", "unfinished"
_WORSE = (PASSED, UNFINISHED, FAILED)
# A native layer that takes up to this many times as long as MXNet's is not called slower: times
# vary by that much.
MARGIN = 1.05
_RATES = {"exchange_us", "host_us"}
_FORMAT = 1
_OF_TIMES = ("mxnet", "cudnn")  # names of the identity
_LOG = logging.getLogger("fastrnn")


class Time(NamedTuple):
    """Seconds of a call of a layer: the native operator's and MXNet's."""

    hidden: int
    backward: bool  # whether both passes were run, or forward alone
    native: float
    mxnet: float

    @property
    def slower(self) -> bool:
        """Whether the native operator is."""
        return self.native > MARGIN * self.mxnet


@dataclass
class Verdict:
    """What is known of a device.

    Attributes
    ----------
    identity
        What it is for.
    date
        Of the latest check.
    classes
        For each kind of layer, by its name: for each of its classes, by name, the result and
        details. A kind that is not there was not reached.
    times
        For each kind, by its name.
    rates
        Measured constants of the cost model, by the names of `fastrnn.plans.DeviceFacts`.
    threads
        On which the CPU's kernels were fastest; 0: fastrnn's own choice; None: not measured.
    """

    identity: Dict[str, Any]
    date: str = ""
    classes: Dict[str, Dict[str, List[str]]] = field(default_factory=dict)
    times: Dict[str, List[Time]] = field(default_factory=dict)
    rates: Dict[str, float] = field(default_factory=dict)
    threads: Optional[int] = None

    def result(self, kind: Kind) -> List[str]:
        """Return the result of a kind of layer, and the details: its worst class's."""
        found = self.classes.get(str(kind), {})
        if not found:
            return [UNFINISHED, "not reached"]
        name, (result, details) = max(found.items(), key=lambda item: _WORSE.index(item[1][0]))
        return [PASSED, ""] if result == PASSED else [result, f"{name}: {details}"]

    def slower(self, kind: Kind, hidden: int) -> Optional[Time]:
        """Return the time that shows the native operator slower, near a hidden size."""
        times = self.times.get(str(kind), [])
        if not times:
            return None
        nearest = min((t.hidden for t in times), key=lambda h: max(h / hidden, hidden / h))
        return next((t for t in times if t.hidden == nearest and t.slower), None)

    def obstacle(self, kind: Kind, hidden: int) -> Optional[str]:
        """Return why layers of this kind should not be native on this GPU, or None."""
        device = self.identity["device"]
        result, details = self.result(kind)
        if result == FAILED:
            return _wrong(self.identity, details)
        if result != PASSED:
            return f"`fastrnn check` did not finish {kind} on this {device}: run it with --full"
        if not self.times.get(str(kind)):
            return f"`fastrnn check` did not time {kind} on this {device}: run it with --full"
        slower = self.slower(kind, hidden)
        if slower is None:
            return None
        which = "training" if slower.backward else "inference"
        return (
            f"`fastrnn check` found MXNet's operator faster on this {device}: "
            f"{slower.native / slower.mxnet:.2f} times as fast in {which} at H={slower.hidden}"
        )

    def summary(self) -> str:
        """Return what was found, in a few words."""
        results = [
            max(self.classes[kind].values(), key=lambda entry: _WORSE.index(entry[0]))[0]
            for kind in self.classes
            if self.classes[kind]
        ]
        counts = [f"{results.count(result)} {result}" for result in _WORSE if result in results]
        return f"{self.identity['device']}: {', '.join(counts)} (kinds of layers, {self.date})"

    def merged(self, newer: Verdict) -> Verdict:
        """Return this verdict with a newer one's results; what that did not finish stays."""
        classes = {name: dict(found) for name, found in self.classes.items()}
        for name, found in newer.classes.items():
            before = classes.get(name, {})
            classes[name] = {
                cls: before[cls] if entry[0] == UNFINISHED and cls in before else entry
                for cls, entry in found.items()
            }
        times, rates = {**self.times, **newer.times}, {**self.rates, **newer.rates}
        threads = self.threads if newer.threads is None else newer.threads
        return Verdict(newer.identity, newer.date, classes, times, rates, threads)


# ---- what it is for -----------------------------------------------------------------------------


def identity_of(device: Device) -> Dict[str, Any]:
    """Return what a verdict on a device depends on."""
    found: Dict[str, Any] = {"library": _library_hash(), **_mxnet_versions()}
    if device == CPU:
        return {"device": _cpu_model(), "processors": processors(), **found}
    answer = _native.library().cuda_devices()
    gpu = answer["devices"][device]
    return {
        "device": gpu["name"],
        "compute_capability": gpu["compute_capability"],
        "multiprocessors": gpu["multiprocessors"],
        "driver": f"{_driver_version()} (CUDA {answer['driver']})",
        **found,
    }


@lru_cache(maxsize=1)
def _library_hash() -> str:
    digest = hashlib.sha256()
    with open(_native.library().__file__, "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def _mxnet_versions() -> Dict[str, Any]:
    from fastrnn.mxnet import import_mxnet, installed

    if not installed():
        return {"mxnet": None, "cudnn": None}
    mx = import_mxnet()
    try:
        cudnn = mx.base._LIB.cudnnGetVersion  # the one that MXNet is linked to
    except AttributeError:
        return {"mxnet": mx.__version__, "cudnn": None}
    cudnn.restype = ctypes.c_size_t
    return {"mxnet": mx.__version__, "cudnn": int(cudnn())}


def _driver_version() -> str:
    try:
        return Path("/sys/module/nvidia/version").read_text().strip()
    except OSError:  # as under WSL
        return "unknown"


def processors() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # another system than Linux
        return os.cpu_count() or 1


def _cpu_model() -> str:
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else "CPU"


# ---- the file -----------------------------------------------------------------------------------


def path_of(identity: Mapping[str, Any]) -> Path:
    """Return where a verdict is kept: one file for each device and build of the library."""
    device = re.sub(r"[^A-Za-z0-9]+", "-", str(identity["device"])).strip("-")
    return cache_folder() / "check" / f"{device}-{identity['library'][:12]}.json"


def save(verdict: Verdict) -> Path:
    """Write a verdict, and return where.

    Raises
    ------
    fastrnn.lm.errors.FileError
        It cannot be written.
    """
    from fastrnn.lm.errors import FileError
    from fastrnn.lm.files import explained, write_atomically

    content = {
        "format": _FORMAT,
        "identity": verdict.identity,
        "date": verdict.date,
        "classes": verdict.classes,
        "times": verdict.times,
        "rates": verdict.rates,
        "threads": verdict.threads,
    }
    path = path_of(verdict.identity)
    with explained(f"{path}: not written, so the verdict is not kept", FileError):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, indent=1).encode("ascii"))
    return path


class Reading(NamedTuple):
    """A verdict, or why there is none."""

    verdict: Optional[Verdict]
    reason: str = ""


def load(device: Device, kernels_alone: bool = False) -> Reading:
    """Read the verdict on a device.

    Parameters
    ----------
    kernels_alone
        Whether it may be of another MXNet or cuDNN, which matter to the times alone.
    """
    try:
        if not (cache_folder() / "check").is_dir():  # spares the library's hash
            return Reading(None, _not_checked(device))
        identity = identity_of(device)
    except RuntimeError as error:
        return Reading(None, f"{_not_checked(device)} ({error})")
    except OSError as error:
        return Reading(None, f"the native library cannot be read: {error.strerror}")
    needed = [name for name in identity if not (kernels_alone and name in _OF_TIMES)]
    return _read(path_of(identity), identity, needed)


def _not_checked(device: Any) -> str:
    if device == CPU:
        return "not run on this machine's CPU"
    name = "this GPU" if isinstance(device, int) else f"this {device}"
    return f"the native kernels were not checked on {name}: `fastrnn check` would enable them"


def _read(path: Path, identity: Mapping[str, Any], needed: Sequence[str]) -> Reading:
    try:
        verdict = _parsed(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return Reading(None, _not_checked(CPU if "processors" in identity else identity["device"]))
    except OSError as error:
        return Reading(None, f"the verdict in {path} cannot be read: {error.strerror}")
    except (ValueError, TypeError, KeyError, AttributeError):
        return Reading(None, f"the verdict in {path} is damaged: run `fastrnn check` again")
    for name in needed:
        other = verdict.identity.get(name)
        if other != identity[name]:
            what = f"is for another {name} ({other}, here {identity[name]})"
            return Reading(None, f"the verdict in {path} {what}: run `fastrnn check` again")
    return Reading(verdict)


def _parsed(content: Dict[str, Any]) -> Verdict:
    """Return the verdict in a file, or raise what a damaged one causes."""
    if content["format"] != _FORMAT:
        raise ValueError("another format")
    classes = {
        str(kind): {str(name): [str(r), str(d)] for name, (r, d) in found.items()}
        for kind, found in content["classes"].items()
    }
    if any(r not in (PASSED, FAILED, UNFINISHED) for f in classes.values() for r, _ in f.values()):
        raise ValueError("unknown result")
    times = {
        str(kind): [Time(int(h), bool(b), float(n), float(m)) for h, b, n, m in found]
        for kind, found in content["times"].items()
    }
    rates = {str(name): float(rate) for name, rate in content["rates"].items()}
    if not set(rates) <= _RATES or not all(0.0 < rate < math.inf for rate in rates.values()):
        raise ValueError("unknown or impossible rate")
    threads = None if content["threads"] is None else int(content["threads"])
    if threads is not None and threads < 0:
        raise ValueError("impossible number of threads")
    identity, date = dict(content["identity"]), str(content["date"])
    return Verdict(identity, date, classes, times, rates, threads)


# ---- this process -------------------------------------------------------------------------------

_lock = threading.Lock()


@lru_cache(maxsize=None)
def _once(device: Device) -> Reading:
    return load(device)


@lru_cache(maxsize=None)
def _say_once(reason: str) -> None:
    _LOG.warning("fastrnn: layers run on MXNet's operators: %s", reason)


def of_process(device: Device) -> Reading:
    """Return the verdict on a device that holds until this process ends."""
    with _lock:
        return _once(device)


class LayerKind(NamedTuple):
    """A kind of layer as it is known without a device."""

    cell: str
    dtype: str
    directions: int
    lengths: bool
    projected: bool
    clipped: bool
    noise: bool
    layer_norm: bool

    def on(self, capability: int) -> Kind:
        """Return the kind on a GPU of this compute capability, 10 * major + minor."""
        tf32 = self.dtype == "float32" and capability >= CAPABILITY["tf32"] and tf32_is_wanted()
        return Kind(self.cell, "tf32" if tf32 else self.dtype, *self[2:])


def obstacle(kind: LayerKind, hidden: int, cuda: bool, gpus: int) -> Optional[str]:
    """Return why ``auto`` should not take the native operator, or None.

    On GPUs it is taken where a verdict speaks for it, on the CPU where none speaks against it.

    Parameters
    ----------
    hidden
        The layer's H.
    cuda
        Whether the operator's kernels are CUDA's.
    gpus
        The number of GPUs that a traced graph has to serve.
    """
    if not cuda:
        found = of_process(CPU).verdict
        result, details = (PASSED, "") if found is None else found.result(kind.on(0))
        return _wrong(found.identity, details) if found and result == FAILED else None
    devices = _native.library().cuda_devices()["devices"]
    for device in range(max(gpus, 1)):  # MXNet does not see an emulated GPU
        reading = of_process(device)
        if reading.verdict is None:
            with _lock:
                _say_once(reading.reason)
            return reading.reason
        major, minor = map(int, devices[device]["compute_capability"].split("."))
        reason = reading.verdict.obstacle(kind.on(10 * major + minor), hidden)
        if reason is not None:
            return reason
    return None


def _wrong(identity: Mapping[str, Any], details: str) -> str:
    return f"`fastrnn check` found wrong results on this {identity['device']} ({details})"


def forget() -> None:
    """Have the process read verdicts again. For tests: a process should never change its mind."""
    with _lock:
        _once.cache_clear()
        _say_once.cache_clear()
        _library_hash.cache_clear()
