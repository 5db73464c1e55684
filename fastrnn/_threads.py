"""What threads MXNet gets in the command ``fastrnn``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Dict

# If the user sets one of these, MXNet follows it.
_DECIDING = ("OMP_NUM_THREADS", "MXNET_OMP_MAX_THREADS", "MXNET_CPU_WORKER_NTHREADS")
# If the user sets one of these, the native layers follow it.
_OF_LAYERS = _DECIDING[:2]
# Those of them that `set_up_mxnet` set, when the package was imported.
_own: Dict[str, str] = {}
# If the user sets one of these, OpenMP's idle threads wait as they say.
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def set_up_mxnet() -> None:
    """Let MXNet use each physical core, and its idle threads sleep.

    MXNet assumes two hardware threads in a core and uses half of the processors. Threads of its
    OpenMP team spin for milliseconds after each operator, on cores that the layers' own threads or
    other processes could use. What the environment says of either stays. MXNet reads it only when
    it is loaded.
    """
    if "mxnet" in sys.modules:
        return
    cores = 0 if any(name in os.environ for name in _DECIDING) else physical_cores()
    if cores:
        os.environ["MXNET_OMP_MAX_THREADS"] = _own["MXNET_OMP_MAX_THREADS"] = str(cores)
    if not any(name in os.environ for name in _WAITING):
        os.environ["OMP_WAIT_POLICY"] = "passive"


def are_given() -> bool:
    """Whether the user says how many threads the native layers take."""
    given = {name: os.environ[name] for name in _OF_LAYERS if name in os.environ}
    return any(_own.get(name) != value for name, value in given.items())


def physical_cores() -> int:
    """The number of cores that this process may use; 0 if the system does not tell.

    As csrc/cpu/threads.cc counts them, which an installation without the native library lacks.
    """
    try:
        processors = os.sched_getaffinity(0)
        return len({Path(_SIBLINGS.format(number)).read_text() for number in processors})
    except (AttributeError, OSError):  # another system than Linux, or no /sys
        return 0


def described() -> str:
    """What decides how many threads MXNet has."""
    found = [f"{name}={os.environ[name]}" for name in _DECIDING if name in os.environ]
    return ", ".join(found) or "as many as MXNet chooses"
