"""Builds the package. Its description is in pyproject.toml, its decisions in build_backend/."""

import os
import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).resolve().parent / "build_backend"))
from fastrnn_build.commands import plan_for, setup_arguments

setup(license="Apache-2.0", **setup_arguments(plan_for(sys.argv, os.environ)))
