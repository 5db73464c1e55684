"""The floors of fastrnn's plans, which are the limits of a GPU's rows."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest
import sources  # noqa: F401

_C = pytest.importorskip("fastrnn._C", reason="installed without the native library")

from bench import cases, floors, limits
from bench.cases import Case
from bench.limits import Limit, Peaks
from fastrnn import kernels
from fastrnn.plans import DEVICES, DeviceFacts

H100 = DEVICES["H100"]
PEAKS = Peaks(4e14, 2.8e12, 1.1e-6, H100.l2_bytes)


@pytest.fixture(autouse=True)
def _defaults(monkeypatch):
    for name in ("FASTRNN_ALGORITHM", "NVIDIA_TF32_OVERRIDE"):
        monkeypatch.delenv(name, raising=False)


def floor(case, peaks=PEAKS, facts=H100):
    return floors.floor_seconds(case, peaks, facts)


def plan(case, algorithm="auto", exchange=1.1, memory=2.8e6, flops=4e14):
    """Of the case, with measured rates and without the host."""
    rates = {"exchange_us": exchange, "memory_bytes_per_us": memory}
    products = flops / 2 / 1e6 / H100.multiprocessors
    device = replace(H100, **rates, products_per_us=products, host_us=1e-9)
    sizes = (case.cell, case.steps, case.batch, case.hidden)
    options = {"directions": case.directions, "dtype": case.dtype}
    return kernels.plan(*sizes, **options, tf32=case.tf32, algorithm=algorithm, device=device)


def test_a_persistent_pass_is_its_steps_and_the_products_beside_them():
    case = Case("lstm", layers=1, hidden=256, dtype="float16")
    found = plan(case)
    assert found.forward.algorithm == found.backward.algorithm == "persistent"
    of_input = 2 * 32 * 100 * 4 * 256 * 50
    of_weights = of_input + 2 * 32 * 99 * 4 * 256 * 256
    forward = found.forward.total_us / 1e6 + of_input / 4e14
    assert floor(replace(case, train=False)) == pytest.approx(forward)
    backward = found.backward.total_us / 1e6 + (of_input + of_weights) / 4e14
    assert floor(case) == pytest.approx(forward + backward)
    assert sum(limits.flops_beside_steps(case)) == 2 * of_input + of_weights


@pytest.mark.parametrize("bidirectional", [False, True])
def test_stepwise_directions_at_once_may_hide_their_products(bidirectional):
    sizes = {"layers": 1, "batch": 256, "bidirectional": bidirectional}
    case = Case("lstm", dtype="float16", train=False, **sizes)
    found = plan(case).forward
    assert found.algorithm == "stepwise"
    steps = case.layers * found.total_us / 1e6
    products = 0 if bidirectional else limits.flops_beside_steps(case)[0] / 4e14
    assert floor(case) == pytest.approx(steps + products)


def test_a_stepwise_pass_counts_where_products_make_the_persistent_one_slower():
    sizes = {"hidden": 256, "inputs": 8192, "bidirectional": True}
    case = Case("lstm", dtype="float16", train=False, **sizes)
    assert plan(case).forward.algorithm == "persistent"
    assert floor(case) == pytest.approx(2e-6 * plan(case, "stepwise").forward.total_us)


def test_every_plan_is_above_the_floor():
    algorithms = ["auto", "stepwise", "persistent"]
    algorithms += [f"persistent:{one}" for one in ("groups=1", "cluster=0", "batch_tiles=2")]
    compared = 0
    for case in cases.grid("cuda", full=True):
        least = floor(case)
        for algorithm in algorithms:
            try:
                found = plan(case, algorithm)
            except ValueError:
                continue  # no such plan fits
            beside = [flops / PEAKS.flops for flops in limits.flops_beside_steps(case)]
            passes = zip((found.forward, found.backward), beside)
            taken = sum(floors._pass_seconds(case, *one) for one in passes)
            assert 0 < least <= taken * (1 + 1e-9)
            compared += 1
    assert compared > 300


@pytest.mark.parametrize("worse", [{"exchange": 2e-6}, {"bandwidth": 1e12}, {"flops": 1e14}])
def test_every_peak_counts(worse):
    case = Case("lstm", hidden=512, dtype="float16")
    assert floor(case, PEAKS._replace(**worse)) > floor(case)


def test_an_exchange_that_was_not_measured_is_nominal():
    case = Case("lstm", hidden=512, dtype="float16")
    nominal = floor(case, PEAKS._replace(exchange=None))
    assert nominal == floor(case, PEAKS._replace(exchange=0.9e-6)) < floor(case)


def test_neither_the_host_nor_the_environment_count(monkeypatch):
    few, many = (Case("lstm", layers=1, hidden=128, steps=t, train=False) for t in (4, 40))
    with_host = kernels.plan("lstm", 4, 32, 128, device="H100", algorithm="stepwise").forward
    assert with_host.step_us == 5.0
    before = [floor(few), floor(many)]
    assert before[0] < 4 * 3e-6
    monkeypatch.setenv("FASTRNN_ALGORITHM", "stepwise")
    assert [floor(few), floor(many)] == before


def test_the_limit_of_a_row_is_the_larger_one():
    case = Case("lstm", hidden=512, dtype="float16")
    anyone = limits.limit(case, PEAKS, None)
    found = floors.limits_of(case, PEAKS, None, H100)
    assert (found["limit"], found["bound"]) == (floor(case), "steps")
    assert (found["any_limit"], found["any_bound"]) == anyone
    assert found["limit"] > found["any_limit"]
    # Without a cache and warm, little memory traffic is left that steps do not have.
    slow = PEAKS._replace(bandwidth=1e6, cache=0)
    found = floors.limits_of(case, slow, 2, H100)
    assert Limit(found["limit"], found["bound"]) == limits.limit(case, slow, 2)
    assert found["bound"] == found["any_bound"] == "memory"


def test_without_a_gpu_the_limit_is_that_of_any_algorithm():
    case = Case("lstm")
    assert floors.facts_of("cpu") is None
    anyone = limits.limit(case, PEAKS, 2)
    found = floors.limits_of(case, PEAKS, 2, None)
    assert found == {"limit": anyone.seconds, "bound": anyone.bound}


def test_facts_of_a_gpu(monkeypatch):
    said = "fastrnn sees no GPU"
    monkeypatch.setattr(floors.Fastrnn, "available", lambda self, device: said)
    assert floors.facts_of("cuda") is None
    said = None
    known = {key: value for key, value in dataclasses.asdict(H100).items() if value}
    monkeypatch.setattr(_C, "device_facts", lambda device: known)
    assert floors.facts_of("cuda") == H100
    assert floors.facts_of("cpu") is None
    assert isinstance(H100, DeviceFacts)
