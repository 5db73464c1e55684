"""Machines that builds are planned for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from fastrnn_build.detect import Compiler, Machine, Missing, MxNet, Nvcc, OneDnn, Tools

COMPLETE = Machine(
    python=(3, 11),
    platform="linux-x86_64",
    compiler=Compiler("g++"),
    nvcc=Nvcc(Path("/cuda/bin/nvcc"), (12, 4)),
    onednn=OneDnn(Path("/include"), Path("/lib/libdnnl.so.3"), (Path("/doc/LICENSE"),)),
    mxnet=MxNet(Path("/site/mxnet"), "1.9.1"),
    tools=Tools(Path("/bin/cmake"), Path("/bin/ninja"), Path("/pybind11")),
)
NO_COMPILER = Missing("no C++ compiler was found")
NO_NVCC = Missing("nvcc was not found")
NO_ONEDNN = Missing("oneDNN was not found")
NO_MXNET = Missing("MXNet was not found")


def machine(**found):
    return dataclasses.replace(COMPLETE, **found)
