"""A pytest plugin (`-p emulated_library`) that puts an emulated build in the place of `fastrnn._C`.

FASTRNN_EMULATED_LIBRARY is the path of the build's `_C`. With FASTRNN_EMULATED_OPERATORS=1 the
package is imported with it, and MXNet's operators on the CPU are those of the emulated GPU.
Otherwise the rest of the package stays unimported: it would bring MXNet, whose threads and
allocations are not what the sanitizers are to look at.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

PACKAGE = Path(__file__).resolve().parents[2] / "fastrnn"


def _load() -> None:
    if os.environ.get("FASTRNN_EMULATED_OPERATORS") != "1":
        package = ModuleType("fastrnn")
        package.__path__ = [str(PACKAGE)]
        package.__spec__ = ModuleSpec("fastrnn", None, is_package=True)
        sys.modules["fastrnn"] = package
    path = os.environ["FASTRNN_EMULATED_LIBRARY"]
    os.environ.setdefault("FASTRNN_CUBLAS", str(Path(path).resolve().parent / "libcublas.so"))
    spec = importlib.util.spec_from_file_location("fastrnn._C", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"FASTRNN_EMULATED_LIBRARY is {path!r}, expected a Python extension")
    module = importlib.util.module_from_spec(spec)
    sys.modules["fastrnn._C"] = module
    spec.loader.exec_module(module)
    if module.build_info()["cuda_toolkit"] != "emulator":
        raise ImportError(f"{path} is not an emulated build")


_load()
