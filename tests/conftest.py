"""What the tests share."""

from __future__ import annotations

import ctypes
import os
import random
import sys
import tempfile
from collections import defaultdict

import pytest
from hypothesis import HealthCheck, settings

# Where pytest runs several processes, each has one thread, or waits passively for those that a test
# asks for: the processes share the processors. This comes before NumPy, MXNet and the kernels are
# loaded.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# The user's own cache may hold a verdict of `fastrnn check`, which decides what layers run on. The
# folder goes when the process ends.
_cache = tempfile.TemporaryDirectory(prefix="fastrnn-cache-")
os.environ["XDG_CACHE_HOME"] = _cache.name

# The same examples in every run, and no deadline: a first call also loads and traces.
settings.register_profile(
    "fastrnn",
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("fastrnn")


def _backends():
    from fastrnn.mxnet import native

    return ["native", "gluon"] if native.STATUS.usable else ["gluon"]


def pytest_addoption(parser):
    parser.addoption(
        "--two-cases",
        action="append",
        default=[],
        metavar="FOLDER",
        help="of each test in this folder of tests/ run two cases, drawn by Python's version",
    )


@pytest.hookimpl(trylast=True)  # after -k
def pytest_collection_modifyitems(config, items):
    folders = tuple(f"tests/{folder}/" for folder in config.getoption("--two-cases"))
    cases = defaultdict(list)
    for item in items:
        if item.nodeid.startswith(folders):
            cases[item.nodeid.partition("[")[0]].append(item)
    left_out = []
    for name, of_test in cases.items():
        random.Random(f"{sys.version_info[:2]} {name}").shuffle(of_test)
        left_out += of_test[2:]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", _backends())


@pytest.fixture(autouse=True)
def _seeded():
    # The emulator's tests run without MXNet, even where it is installed.
    mxnet = sys.modules.get("mxnet")
    if mxnet is not None:
        mxnet.random.seed(11)


@pytest.fixture(autouse=True)
def _two_threads(request):
    """Run the kernels' own tests on two threads, since some are about work that threads share."""
    name = request.module.__name__
    if not name.startswith("test_kernels") or name == "test_kernels_threads":
        yield
        return
    openmp = ctypes.CDLL("libgomp.so.1")
    before = openmp.omp_get_max_threads()
    openmp.omp_set_num_threads(2)
    yield
    openmp.omp_set_num_threads(before)
