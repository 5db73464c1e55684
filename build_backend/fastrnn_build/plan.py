"""The decisions of the build: pure functions of the settings and of what the machine offers.

A part that was asked for and is missing raises `BuildError`; under "auto" it is left out and the
report says why. Only what detection found decides: once a part is in the plan, it has to compile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Mapping, Optional, Sequence, Tuple, Union

from .detect import (
    MXNET_VERSION,
    ONEDNN_WHEELS,
    Compiler,
    Machine,
    Missing,
    MxNet,
    Nvcc,
    OneDnn,
    Tools,
)
from .settings import BuildError, Settings

ONEDNN_VERSION = "2023.2.0"
PLATFORMS = ("linux-x86_64", "linux-aarch64")
ONEDNN_WHEEL_PLATFORM = "linux-x86_64"
# MXNet pins numpy<2, which has no wheel for this Python: asking for it would compile NumPy.
FIRST_PYTHON_WITHOUT_MXNET = (3, 13)
ARCHITECTURES = ("70", "75", "80", "86", "90", "100", "120")
# Rough seconds of one processor that the build takes with CUDA 13.0: the host's part, the CUDA part
# for its first architecture, and for each one more.
HOST_SECONDS, CUDA_SECONDS, ARCHITECTURE_SECONDS = 70, 140, 60


@dataclass(frozen=True)
class Native:
    """What the native library is made of; None is a part left out."""

    compiler: Compiler
    tools: Tools
    onednn: Optional[OneDnn]
    mxnet: Optional[MxNet]
    nvcc: Optional[Nvcc]
    cuda_architectures: Tuple[str, ...]

    def seconds(self) -> int:
        """Return about how long one processor takes to build it."""
        more = len(self.cuda_architectures) - 1
        return HOST_SECONDS + (CUDA_SECONDS + more * ARCHITECTURE_SECONDS if more >= 0 else 0)


@dataclass(frozen=True)
class Plan:
    """What to build (None: Python only), and the reason for each part that is off."""

    native: Optional[Native]
    off: Mapping[str, str]

    def describe(self, processors: int) -> str:
        """Return on one line what is built, how long that takes, and why parts are left out."""
        without = "; ".join(f"without {part}: {reason}" for part, reason in self.off.items())
        if self.native is None:
            return f"fastrnn is built in Python only: {self.off[PARTS[0]]}"
        text = f"fastrnn is built with {', '.join(p for p in PARTS if p not in self.off)}"
        architectures = self.native.cuda_architectures
        if architectures:
            text += f" for compute capability {', '.join(architectures)} and newer"
        minutes = self.native.seconds() / processors / 60
        text += f", in about {max(1, round(minutes))} min on {processors} processors"
        return f"{text}; {without}" if without else text


PARTS = ("native", "onednn", "mxnet_operators", "cuda")


def requirements(settings: Settings, machine: Machine) -> List[str]:
    """Return what pip has to put into the build environment.

    Called before anything of it is there, so CMake, pybind11 and the oneDNN wheels still count as
    obtainable; MXNet is asked for only where the target environment has none.
    """
    compiler = _compiler(settings, machine)
    nvcc = _nvcc(settings, machine)
    if isinstance(compiler, Missing):
        return []
    if isinstance(nvcc, Nvcc):
        cuda_architectures(settings, nvcc, machine.gpus)
    onednn = _onednn(settings, machine)
    wheel = machine.platform == ONEDNN_WHEEL_PLATFORM and not settings.dnnl_root
    if not wheel and isinstance(onednn, Missing) and isinstance(nvcc, Missing):
        _refuse_if_asked(settings, onednn)
        return []
    packages = ["cmake>=3.18", "ninja", "pybind11>=2.13"]
    if wheel:
        packages += [f"{name}=={ONEDNN_VERSION}" for name in ONEDNN_WHEELS]
    if isinstance(machine.mxnet, Missing) and machine.python < FIRST_PYTHON_WITHOUT_MXNET:
        packages.append(f"mxnet=={MXNET_VERSION}")
    return packages


def make_plan(settings: Settings, machine: Machine) -> Plan:
    """Decide what to build, from what is there now."""
    compiler = _compiler(settings, machine)
    nvcc = _nvcc(settings, machine)
    if isinstance(compiler, Missing):
        return _python_only(compiler)
    if isinstance(machine.tools, Missing):
        _refuse_if_asked(settings, machine.tools)
        return _python_only(machine.tools)
    onednn = _onednn(settings, machine)
    if isinstance(onednn, Missing) and isinstance(nvcc, Missing):
        neither = Missing(f"{onednn.reason}; CUDA: {nvcc.reason}")
        _refuse_if_asked(settings, neither)
        return _python_only(neither)
    mxnet = _mxnet(machine)
    parts = {"onednn": onednn, "mxnet_operators": mxnet, "cuda": nvcc}
    return Plan(
        Native(
            compiler,
            machine.tools,
            None if isinstance(onednn, Missing) else onednn,
            None if isinstance(mxnet, Missing) else mxnet,
            None if isinstance(nvcc, Missing) else nvcc,
            () if isinstance(nvcc, Missing) else cuda_architectures(settings, nvcc, machine.gpus),
        ),
        {part: found.reason for part, found in parts.items() if isinstance(found, Missing)},
    )


def cuda_architectures(settings: Settings, nvcc: Nvcc, gpus: Sequence[str] = ()) -> Tuple[str, ...]:
    """Return the compute capabilities to compile for, the newest last.

    Those asked for; else those of the GPUs that are there, each as the newest that is known and not
    newer; else all of the toolkit's. sm_86 came with CUDA 11.1. sm_90 came with 11.8; the kernels
    are compiled for it from 12.0 on, and with clusters from 12.1 on (csrc/cuda/runtime/launch.cuh).
    Before, Hopper runs what was compiled for older ones. sm_100 and sm_120 came with 12.8, and 13.0
    dropped sm_70.
    """
    first = {"86": (11, 1), "90": (12, 0), "100": (12, 8), "120": (12, 8)}
    last = {"70": (12, 99)}
    known = tuple(
        a
        for a in ARCHITECTURES
        if first.get(a, (11, 0)) <= nvcc.version <= last.get(a, nvcc.version)
    )
    for architecture in settings.cuda_architectures:
        if architecture in ARCHITECTURES and architecture not in known:
            raise BuildError(
                f"FASTRNN_CUDA_ARCHITECTURES asks for {architecture}, which CUDA "
                f"{nvcc.version[0]}.{nvcc.version[1]} cannot compile for; it can {';'.join(known)}"
            )
    if settings.cuda_architectures:
        return settings.cuda_architectures
    here = {max((a for a in known if int(a) <= int(gpu)), key=int, default="") for gpu in gpus}
    return tuple(a for a in known if a in here) or known


def _compiler(settings: Settings, machine: Machine) -> Union[Compiler, Missing]:
    if settings.native == "0":
        return Missing("left out by FASTRNN_NATIVE=0")
    found = machine.compiler
    if machine.platform not in PLATFORMS:
        found = Missing(f"not available for {machine.platform} (only {', '.join(PLATFORMS)})")
    if isinstance(found, Missing):
        _refuse_if_asked(settings, found)
    return found


def _onednn(settings: Settings, machine: Machine) -> Union[OneDnn, Missing]:
    if settings.dnnl_root and isinstance(machine.onednn, Missing):
        raise BuildError(f"the build cannot use the oneDNN it was given: {machine.onednn.reason}")
    return machine.onednn


def _nvcc(settings: Settings, machine: Machine) -> Union[Nvcc, Missing]:
    if settings.cuda == "0":
        return Missing("left out by FASTRNN_CUDA=0")
    if settings.cuda == "1" and isinstance(machine.nvcc, Missing):
        raise BuildError(f"FASTRNN_CUDA=1 asks for the CUDA part, but {machine.nvcc.reason}")
    return machine.nvcc


def _mxnet(machine: Machine) -> Union[MxNet, Missing]:
    if isinstance(machine.mxnet, Missing) and machine.python >= FIRST_PYTHON_WITHOUT_MXNET:
        command = f"pip install --no-deps mxnet=={MXNET_VERSION}"
        return Missing(
            f"{machine.mxnet.reason}; on this Python the build does not fetch it: "
            f"run `{command}` first, then install fastrnn again"
        )
    return machine.mxnet


def _refuse_if_asked(settings: Settings, missing: Missing) -> None:
    asked = [
        f"FASTRNN_{name}=1"
        for name, value in (("NATIVE", settings.native), ("CUDA", settings.cuda))
        if value == "1"
    ]
    if asked:
        verb = "asks" if len(asked) == 1 else "ask"
        raise BuildError(
            f"{' and '.join(asked)} {verb} for the native library, but {missing.reason}"
        )


def _python_only(missing: Missing) -> Plan:
    return Plan(None, dict.fromkeys(PARTS, missing.reason))
