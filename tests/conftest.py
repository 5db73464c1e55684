"""What the tests share."""

from __future__ import annotations

import sys

import pytest
from hypothesis import HealthCheck, settings

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


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", _backends())


@pytest.fixture(autouse=True)
def _seeded():
    # The emulator's tests run without MXNet, even where it is installed.
    mxnet = sys.modules.get("mxnet")
    if mxnet is not None:
        mxnet.random.seed(11)
