"""The switches of the build, read from the environment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Mapping, Tuple

SWITCH_VALUES = ("0", "1", "auto")


class BuildError(SystemExit):
    """A build that cannot go on. As a SystemExit it ends pip's output with the message alone."""

    def __init__(self, message: str) -> None:
        super().__init__(f"fastrnn: {message}")


@dataclass(frozen=True)
class Settings:
    """What the user asked for.

    Attributes
    ----------
    native, cuda
        "0" (leave it out), "1" (stop the build when it is missing) or "auto" (take it if found).
    cuda_architectures
        Compute capabilities without the dot, such as ("80", "90"). Empty: the GPUs that are there
        decide, or else the toolkit.
    dnnl_root
        Folder of the oneDNN to use. Empty: one is looked for, or fetched.
    """

    native: str = "auto"
    cuda: str = "auto"
    cuda_architectures: Tuple[str, ...] = ()
    dnnl_root: str = ""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Read FASTRNN_NATIVE, FASTRNN_CUDA, FASTRNN_CUDA_ARCHITECTURES and DNNL_ROOT.

        Raises
        ------
        BuildError
            If a value is not one of those allowed, or two of them contradict each other.
        """
        native = _switch(environ, "FASTRNN_NATIVE")
        cuda = _switch(environ, "FASTRNN_CUDA")
        if native == "0" and cuda == "1":
            raise BuildError(
                "FASTRNN_CUDA=1 asks for a part of the native library, "
                "which FASTRNN_NATIVE=0 leaves out; set only one of the two"
            )
        return cls(native, cuda, _architectures(environ), environ.get("DNNL_ROOT", ""))


def _switch(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "auto")
    if value not in SWITCH_VALUES:
        raise BuildError(f"{name}={value!r} is not one of {', '.join(SWITCH_VALUES)}")
    return value


def _architectures(environ: Mapping[str, str]) -> Tuple[str, ...]:
    name = "FASTRNN_CUDA_ARCHITECTURES"
    value = environ.get(name, "")
    if not value:
        return ()
    architectures = tuple(value.split(";"))
    for architecture in architectures:
        if not re.fullmatch(r"[1-9]\d{1,2}a?", architecture):
            raise BuildError(
                f"{name}={value!r} holds {architecture!r}; "
                'wanted compute capabilities without the dot, separated by ";", such as "80;90"'
            )
    return architectures
