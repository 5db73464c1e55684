"""Peaks and limits: arithmetic by hand, and against the plans of fastrnn's kernels."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

_C = pytest.importorskip("fastrnn._C", reason="installed without the native library")

from clocks import Machine

from bench import cases
from bench.calls.process import in_process
from bench.cases import Case
from bench.limits import roofline
from bench.limits.roofline import Peaks, cold_bytes, exchanges, flops, limit, set_bytes, warm_bytes
from fastrnn import kernels
from fastrnn.plans import DEVICES

PEAKS = Peaks(1e12, 1e11, 1e-6, 0)
H100 = DEVICES["H100"]
H100_PEAKS = Peaks(4e14, 2.8e12, 1.1e-6, H100.l2_bytes)


def test_the_best_of_calls_for_a_second():
    machine = Machine()
    seconds = iter([0.5, 0.25, 0.125, *[0.375] * 10])

    def once():
        taken = next(seconds)
        machine.now += taken
        return taken

    assert roofline.best(once, 1.5, machine.clock) == 0.125
    assert machine.now == 1.625  # ROUNDS calls, which is more than 1.5 seconds


def small_peaks():
    roofline.CPU_SIZE, roofline.CPU_LAYER = 64, (4, 2, 8)
    roofline.COPY_BYTES, roofline.CPU_SECONDS = 1 << 20, 0.0
    return roofline.cpu_peaks()


def test_peaks_of_the_cpu_of_another_process():
    found = in_process(small_peaks)
    assert list(found.peaks) == ["float32"]
    one = found.peaks["float32"]
    assert one.flops == max(found.notes["products, FLOP/s"].values()) > 1e6
    assert one.bandwidth > 1e6
    assert one.exchange is None
    assert one.cache == roofline.cache_bytes("cpu") >= 1 << 18
    assert roofline.CPU_SIZE == 2048


class TimedGpu(Machine):
    """A PyTorch whose copies take 4 seconds, sums 1, and products as many as their width."""

    float32 = float16 = bfloat16 = None

    def __init__(self):
        super().__init__()
        self.cuda = self.backends = self
        self.matmul = Products(self)

    def Event(self, enable_timing):  # noqa: N802
        return self.event()

    def zeros(self, *sizes, **options):
        copy, read = (self.call(name, seconds) for name, seconds in (("copy", 4.0), ("sum", 1.0)))
        return SimpleNamespace(copy_=copy, sum=lambda: read(None))

    ones_like = zeros

    def randn(self, *sizes, **options):
        return SimpleNamespace(to=lambda kind: sizes[0])


class Products:
    """``torch.matmul``, and where its arithmetic is said."""

    def __init__(self, gpu):
        self.gpu, self.allow_tf32 = gpu, None

    def __call__(self, a, b):
        self.gpu.now += a / (2 if self.allow_tf32 else 1)


def test_of_the_bandwidths_and_of_the_products_the_larger_counts(monkeypatch):
    monkeypatch.setattr(roofline, "GPU_SECONDS", 0.0)
    monkeypatch.setattr(roofline, "cache_bytes", lambda device: 7)
    found = roofline.gpu_peaks(TimedGpu(), 1e-6)
    assert list(found) == ["float32", "tf32", "float16", "bfloat16"]
    size = 4 * roofline.COPY_BYTES
    assert found["tf32"] == (4 * 8192**2, size / 1.0, 1e-6, 7)
    assert found["float16"].flops == 2 * 8192**2


def test_limits_are_counted_by_hand():
    case = Case("lstm", layers=1, inputs=2, hidden=3, batch=5, steps=7, train=False)
    of_input, recurrent = 12 * 2, 12 * 3
    # Initial states are zero: six of seven steps have a recurrent product.
    assert flops(case) == 2 * 5 * (of_input * 7 + recurrent * 6)
    assert set_bytes(case) == 4 * 35 * 2
    same = of_input + recurrent + 35 * 3
    assert warm_bytes(case, 1, 0) == 4 * (35 * 2 + same)
    assert warm_bytes(case, 2, 100) == (4 * (2 * 35 * 2 + same) - 100) / 2
    assert warm_bytes(case, 2, 1 << 20) == 0
    one_step = replace(case, steps=1)
    assert flops(one_step) == 2 * 5 * of_input
    assert warm_bytes(one_step, 1, 0) == 4 * (5 * 2 + of_input + 5 * 3)
    two = replace(case, layers=2, bidirectional=True, train=True, dtype="float16")
    of_input, recurrent = 24 * 2 + 24 * 6, 2 * 24 * 3
    assert flops(two) == 3 * 2 * 5 * (of_input * 7 + recurrent * 6)
    assert set_bytes(two) == 2 * 35 * (2 + 6)
    same = 2 * (of_input + recurrent) + 35 * 6 + 35 * 2
    assert warm_bytes(two, 1, 0) == 2 * (35 * 8 + same)
    read = 2 * (of_input + recurrent + 35 * 8)
    computed = 2 * (of_input + recurrent + 35 * 6 + 35 * 2)
    assert cold_bytes(two, 0) == read + computed
    assert cold_bytes(two, 100) == read + computed - 100
    assert cold_bytes(two, 1 << 20) == read
    # In a language model, layers of the same call compute the input and the output's gradient.
    model = replace(two, bidirectional=False, task="lm training")
    of_input, recurrent = 12 * 2 + 12 * 3, 2 * 12 * 3
    assert cold_bytes(model, 0) == 2 * (2 * (of_input + recurrent) + 35 * 2 * (2 + 3))
    assert cold_bytes(model, 1 << 20) == 2 * (of_input + recurrent)
    ragged = replace(case, ragged=True)
    assert flops(ragged) < flops(case)


@pytest.mark.parametrize(
    "options, count",
    [
        ({"steps": 1, "layers": 1}, 0),
        ({"steps": 7, "layers": 1}, 6),
        ({"steps": 7, "layers": 2}, 7),
        ({"steps": 7, "layers": 1, "bidirectional": True}, 6),
        ({"steps": 7, "layers": 2, "bidirectional": True}, 13),
        ({"steps": 7, "layers": 2, "train": True}, 14),
    ],
)
def test_the_chain_of_exchanges(options, count):
    assert exchanges(Case("gru", **{"train": False, **options})) == count


def test_the_largest_bound_is_the_limit():
    case = Case("lstm")
    assert limit(case, PEAKS, 2) == (flops(case) / 1e12, "math")
    moved = warm_bytes(case, 2, 0)
    assert limit(case, PEAKS._replace(bandwidth=1.0), 2) == (moved, "memory")
    assert limit(case, PEAKS._replace(bandwidth=1.0, cache=1 << 40), 2).bound == "math"
    cold = cold_bytes(case, 1 << 20)
    assert limit(case, PEAKS._replace(bandwidth=1.0, cache=1 << 20), None) == (cold, "memory")
    assert limit(case, PEAKS._replace(exchange=1.0), 2) == (200.0, "exchange")
    assert limit(case, PEAKS._replace(exchange=None), 2).bound == "math"
    with pytest.raises(ValueError, match="bandwidth is 0, expected more than 0"):
        limit(case, PEAKS._replace(bandwidth=0), 2)


def plan(case, algorithm="auto"):
    """Of the case, with measured rates and without the host."""
    rates = {"exchange_us": 0.94, "memory_bytes_per_us": 2.8e6, "host_us": 1e-9}
    device = replace(H100, **rates, products_per_us=4e14 / 2 / 1e6 / H100.multiprocessors)
    sizes = (case.cell, case.steps, case.batch, case.hidden)
    options = {"directions": case.directions, "dtype": case.dtype}
    return kernels.plan(*sizes, **options, tf32=case.tf32, algorithm=algorithm, device=device)


@pytest.fixture(autouse=True)
def _defaults(monkeypatch):
    for name in ("FASTRNN_ALGORITHM", "NVIDIA_TF32_OVERRIDE"):
        monkeypatch.delenv(name, raising=False)


def test_a_persistent_pass_is_its_steps_and_the_products_beside_them():
    case = Case("lstm", layers=1, hidden=256, dtype="float16")
    found = plan(case)
    assert found.forward.algorithm == found.backward.algorithm == "persistent"
    of_input = 2 * 32 * 100 * 4 * 256 * 50
    of_weights = of_input + 2 * 32 * 99 * 4 * 256 * 256
    forward = found.forward.total_us / 1e6 + of_input / 4e14
    of_inference = roofline.steps_seconds(replace(case, train=False), H100_PEAKS, H100)
    assert of_inference == pytest.approx(forward)
    backward = found.backward.total_us / 1e6 + (of_input + of_weights) / 4e14
    assert roofline.steps_seconds(case, H100_PEAKS, H100) == pytest.approx(forward + backward)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_stepwise_directions_at_once_may_hide_their_products(bidirectional):
    sizes = {"layers": 1, "batch": 256, "bidirectional": bidirectional}
    case = Case("lstm", dtype="float16", train=False, **sizes)
    found = plan(case).forward
    assert found.algorithm == "stepwise"
    products = 0 if bidirectional else roofline.flops_beside_steps(case)[0] / 4e14
    wanted = found.total_us / 1e6 + products
    assert roofline.steps_seconds(case, H100_PEAKS, H100) == pytest.approx(wanted)


def test_no_plan_is_below_the_limit():
    algorithms = ["auto", "stepwise", "persistent"]
    algorithms += [f"persistent:{one}" for one in ("groups=1", "cluster=0", "batch_tiles=2")]
    compared = 0
    for case in cases.grid("cuda", full=True):
        least = roofline.steps_seconds(case, H100_PEAKS, H100)
        for algorithm in algorithms:
            try:
                found = plan(case, algorithm)
            except ValueError:
                continue  # no such plan fits
            beside = [flops / 4e14 for flops in roofline.flops_beside_steps(case)]
            passes = zip((found.forward, found.backward), beside)
            taken = sum(roofline.pass_seconds(case, *one) for one in passes)
            assert 0 < least <= taken * (1 + 1e-9)
            compared += 1
    assert compared > 300


@pytest.mark.parametrize("worse", [{"exchange": 2e-6}, {"bandwidth": 1e12}, {"flops": 1e14}])
def test_every_peak_counts(worse):
    case = Case("lstm", hidden=512, dtype="float16")
    least = roofline.steps_seconds(case, H100_PEAKS, H100)
    assert roofline.steps_seconds(case, H100_PEAKS._replace(**worse), H100) > least


def test_the_limit_of_a_row_is_the_larger_one():
    case = Case("lstm", hidden=512, dtype="float16")
    anyone = limit(case, H100_PEAKS, None)
    found = roofline.limits_of(case, H100_PEAKS, None, H100)
    own = roofline.steps_seconds(case, H100_PEAKS, H100)
    assert (found["limit"], found["bound"]) == (own, "steps")
    assert (found["any_limit"], found["any_bound"]) == anyone
    assert found["limit"] > found["any_limit"]
    # Without a cache and warm, little memory traffic is left that steps do not have.
    slow = H100_PEAKS._replace(bandwidth=1e6, cache=0)
    found = roofline.limits_of(case, slow, 2, H100)
    assert (found["limit"], found["bound"]) == limit(case, slow, 2)
    assert found["bound"] == found["any_bound"] == "memory"
    found = roofline.limits_of(case, H100_PEAKS, 2, None)
    assert found == dict(zip(("limit", "bound"), limit(case, H100_PEAKS, 2)))
