"""Imports MXNet on any NumPy from 1.17 to 2.x and any Python from 3.8 to 3.13.

MXNet 1.9.1 uses names that NumPy has since removed. This module puts them back on ``numpy`` before
it imports MXNet. They stay there because MXNet also uses some of them at run time. Names that NumPy
still has are not changed.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import warnings
from typing import Any, Callable, NoReturn

import numpy

_INSTALL = (
    "with the extra that fits the machine: pip install 'fastrnn[cpu]', or "
    "pip install 'fastrnn[cu112]' for an NVIDIA GPU"
)
MISSING = f"fastrnn's layers need MXNet, which is not installed. Install it {_INSTALL}"
_BROKEN = (
    "fastrnn's layers need MXNet, which is installed but does not load: {}. Install what is "
    f"missing, or install MXNet again {_INSTALL}"
)
_NO_DISTUTILS = (
    "MXNet 1.9.1 imports distutils, which Python {}.{} no longer has; setuptools brings it back: "
    "pip install setuptools"
)
_FINANCIAL = ("mirr", "npv", "pmt", "ppmt", "pv", "rate")


def _removed_function(name: str) -> Callable[..., NoReturn]:
    def removed(*args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(f"NumPy no longer has {name}; numpy_financial does")

    removed.__name__ = name
    return removed


def _msort(a: Any) -> Any:
    return numpy.sort(a, axis=0)


def _in1d(ar1: Any, ar2: Any, assume_unique: bool = False, invert: bool = False) -> Any:
    return numpy.isin(numpy.ravel(ar1), ar2, assume_unique=assume_unique, invert=invert)


def _removed_names() -> dict[str, Any]:
    """Every removed NumPy name that MXNet 1.9.1 uses, with its former value."""
    names: dict[str, Any] = {
        "bool": bool,
        "int": int,
        "float_": numpy.float64,
        "PZERO": 0.0,
        "NZERO": -0.0,
        "PINF": math.inf,
        "NINF": -math.inf,
        "Inf": math.inf,
        "infty": math.inf,
        "NaN": math.nan,
        "NAN": math.nan,
        "alltrue": numpy.all,
        "sometrue": numpy.any,
        "product": numpy.prod,
        "cumproduct": numpy.cumprod,
        "round_": numpy.around,
        "row_stack": numpy.vstack,
        "msort": _msort,
        "in1d": _in1d,
        "trapz": getattr(numpy, "trapezoid", None),
    }
    names.update((name, _removed_function(name)) for name in _FINANCIAL)
    return names


def restore_numpy_names() -> None:
    """Put the removed names that MXNet uses back on the ``numpy`` module. Safe to repeat."""
    with warnings.catch_warnings():
        # NumPy warns when a deprecated or removed name is looked up.
        warnings.simplefilter("ignore")
        for name, value in _removed_names().items():
            if not hasattr(numpy, name):
                setattr(numpy, name, value)


def installed() -> bool:
    """Whether a package named ``mxnet`` can be imported, without importing it."""
    return "mxnet" in sys.modules or importlib.util.find_spec("mxnet") is not None


def import_mxnet() -> Any:  # MXNet has no types
    """Import MXNet on the NumPy at hand.

    Returns
    -------
    module
        ``mxnet``.

    Raises
    ------
    ImportError
        MXNet is missing or does not load; the message says why, and names the extra to install, or
        setuptools if ``distutils`` is missing.
    """
    if not installed():
        raise ImportError(MISSING)
    restore_numpy_names()
    try:
        with warnings.catch_warnings():
            # NumPy 1.20 to 1.23 deprecate names that MXNet uses during its import.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            return importlib.import_module("mxnet")
    except (ImportError, OSError, RuntimeError) as error:
        # OSError: a shared library is missing or too old; RuntimeError: MXNet's own is missing.
        if isinstance(error, ImportError) and (error.name or "").split(".")[0] == "distutils":
            raise ImportError(_NO_DISTUTILS.format(*sys.version_info)) from error
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        raise ImportError(_BROKEN.format(first_line)) from error


def mixed_precision() -> bool:
    """Whether ``amp.init()`` was called: MXNet then casts the arguments of its operators."""
    return importlib.import_module("mxnet.contrib.amp.amp")._amp_initialized
