"""The build backend: setuptools, with build requirements that depend on what will be built.

A native build needs CMake, pybind11, oneDNN and MXNet's operator sources. Build isolation would
hide those from the build, so they are asked for here, and only when such a build is wanted and
possible.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  # the hooks that are not below

from .detect import Machine
from .plan import requirements
from .settings import Settings

ConfigSettings = Optional[Dict[str, Any]]


def get_requires_for_build_wheel(config_settings: ConfigSettings = None) -> List[str]:
    """Return setuptools' requirements and those of the native build (PEP 517)."""
    return _native_requirements() + build_meta.get_requires_for_build_wheel(config_settings)


def get_requires_for_build_editable(config_settings: ConfigSettings = None) -> List[str]:
    """Return setuptools' requirements and those of the native build (PEP 660)."""
    return _native_requirements() + build_meta.get_requires_for_build_editable(config_settings)


def _native_requirements() -> List[str]:
    settings = Settings.from_environment(os.environ)
    return requirements(settings, Machine.here(os.environ))
