"""How many threads MXNet gets in the command ``fastrnn``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# If the user sets one of these, MXNet follows it.
_DECIDING = ("OMP_NUM_THREADS", "MXNET_OMP_MAX_THREADS", "MXNET_CPU_WORKER_NTHREADS")
_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def give_mxnet_all_cores() -> None:
    """Let MXNet use each physical core, unless the environment says something of threads.

    MXNet assumes two hardware threads in a core and uses half of the processors. It reads the
    environment only when it is loaded.
    """
    if "mxnet" not in sys.modules and not any(name in os.environ for name in _DECIDING):
        cores = physical_cores()
        if cores:
            os.environ["MXNET_OMP_MAX_THREADS"] = str(cores)


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
