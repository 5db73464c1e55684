"""The environment variables by which MXNet's processes find each other; nothing needs MXNet."""

from __future__ import annotations

import os

from fastrnn.lm.errors import InputError

ROLE = "DMLC_ROLE"  # scheduler, server or worker
ADDRESS, PORT = "DMLC_PS_ROOT_URI", "DMLC_PS_ROOT_PORT"  # of the scheduler
WORKERS, SERVERS = "DMLC_NUM_WORKER", "DMLC_NUM_SERVER"
OWN_ADDRESS = "DMLC_NODE_HOST"  # optional
# Stores with which each process of a launcher that sets these variables would train alone, and all
# would write to one folder.
_OTHERS = ("local", "device", "nccl", "horovod")
_REQUIRED = (ROLE, ADDRESS, PORT, WORKERS, SERVERS)


def chosen(name: str) -> str:
    """The store that ``--kvstore NAME`` means; ``auto`` is '' without MXNet's variables.

    Raises
    ------
    InputError
        A distributed store without the variables, with which MXNet would end the process, or
        another store with them.
    """
    if name == "auto":
        name = "dist_sync" if ROLE in os.environ else ""
    if name in _OTHERS and ROLE in os.environ:
        raise InputError(
            f"kvstore: got {name}, but {ROLE} is set: this process is one of several; wanted auto "
            f"or a distributed store"
        )
    missing = [variable for variable in _REQUIRED if variable not in os.environ]
    if "dist" in name and missing:
        raise InputError(
            f"kvstore: got {name}, which needs the environment variables {', '.join(missing)}; "
            f"on one machine, `fastrnn launch -n 2 -- train ...` sets them"
        )
    return name
