"""The cost model: its terms, and its steps beside those of a simulator."""

from __future__ import annotations

import dataclasses
import itertools
import re
import statistics
from pathlib import Path
from typing import NamedTuple, Tuple

import pytest

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from fastrnn._native import library
from fastrnn.kernels import plan
from fastrnn.plans import DEVICES

COUNTS = Path(__file__).resolve().parents[3] / "csrc" / "cuda" / "step_counts.inc"
CLOCKS_PER_US = 1700  # the model's, of an H100
L2_CLOCKS = 270
NARROW = "persistent:row_tiles=2,batch_tiles=1,tagged=0"
WIDE = "persistent:row_tiles=4,batch_tiles=1,tagged=0"
SCATTER = "persistent:backward_row_tiles=1,batch_tiles=1"
NARROW_ROW = "Pass::kForward, 4, 2, 1, Reduction::kNone, false, Signal::kFlags"
SCATTER_ROW = "Pass::kBackward, 4, 1, 1, Reduction::kScatter, false, Signal::kFlags"
COLUMNS = ("float16", "tf32", "float32")


@pytest.fixture(autouse=True)
def _defaults(monkeypatch):
    for name in ("FASTRNN_ALGORITHM", "FASTRNN_TF32", "NVIDIA_TF32_OVERRIDE"):
        monkeypatch.delenv(name, raising=False)


def counts(math, row):
    """Return a kernel's instructions and latency, and those of a further part."""
    (line,) = re.findall(rf"^{{{row},\n {{(.*)}}}},$", COUNTS.read_text(), re.MULTILINE)
    found = re.findall(r"{([\d, ]+)}", line)[COLUMNS.index(math)]
    return [int(number) for number in found.split(", ")]


def lstm(backward, rows, hidden, math, algorithm, device="H100", steps=100):
    """Return the plan of a pass over an LSTM layer."""
    dtype = "float16" if math == "float16" else "float32"
    options = {"dtype": dtype, "tf32": math == "tf32", "algorithm": algorithm, "device": device}
    both = plan("lstm", steps, rows, hidden, **options)
    return both.backward if backward else both.forward


# ---- simulated steps ----------------------------------------------------------------------------


class Simulated(NamedTuple):
    """An LSTM layer of which GPGPU-Sim ran the kernels' PTX, and the cycles of a step.

    The kernels lacked the techniques of docs/machine_code.md. `latency` is what step_path.py counts
    of them, in place of the table's. float16's had two tiles of rows, as no kernel has today.
    """

    backward: bool
    sizes: Tuple[int, int]  # N, H
    math: str
    algorithm: str
    cycles: int
    latency: int


SIMULATED = {
    "float32 N=3 H=33": Simulated(False, (3, 33), "float32", NARROW, 4100, 1568),
    "float32 N=3 H=33 backward": Simulated(True, (3, 33), "float32", SCATTER, 5240, 3987),
    "float32 N=8 H=256": Simulated(False, (8, 256), "float32", NARROW, 8740, 2336),
    "float16 N=8 H=256": Simulated(False, (8, 256), "float16", WIDE, 3510, 1578),
    "TF32 N=3 H=33": Simulated(False, (3, 33), "tf32", NARROW, 2440, 1559),
}
# The simulator executes PTX in its order. In IEEE float32 a slice has 48 loads from shared memory,
# 32 of them with addresses of any space, each before the multiply-adds that need it; ptxas moves
# them ahead. Here eight warps have two slices each, and in the other rows at most one.
UNSCHEDULED = "float32 N=8 H=256"
# From a flag's release to its acquire: simulated with the load that follows, 16 blocks.
EXCHANGE = 970 - L2_CLOCKS


def modelled(of):
    """Return the model's clocks of a step of the kernel that was simulated."""
    facts = dataclasses.replace(DEVICES["H100"], exchange_us=EXCHANGE / CLOCKS_PER_US)
    found = lstm(of.backward, *of.sizes, of.math, of.algorithm, facts)
    return of.latency + (found.step_us - found.path_us) * CLOCKS_PER_US


def test_simulated_steps_have_the_models_order_and_ratio():
    ratios = {name: of.cycles / modelled(of) for name, of in SIMULATED.items()}
    scheduled = {name: ratio for name, ratio in ratios.items() if name != UNSCHEDULED}
    # One factor for what ptxas schedules, and the simulator does not.
    scale = statistics.geometric_mean(scheduled.values())
    assert 1 < scale < 1.5
    assert all(1 / 1.5 < ratio / scale < 1.5 for ratio in scheduled.values()), ratios
    assert ratios[UNSCHEDULED] / scale > 1.5  # else the exception is not needed
    # What the model holds to be slower by a tenth is slower.
    compared = 0
    for one, other in itertools.permutations(map(SIMULATED.get, scheduled), 2):
        if modelled(one) > 1.1 * modelled(other):
            assert one.cycles > other.cycles, (one, other)
            compared += 1
    assert compared == 3


# ---- terms --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("math", "hidden", "slices"),
    # A slice has 16 units, and eight warps share the slices.
    [("float32", 33, 1), ("float32", 256, 2), ("tf32", 33, 1), ("tf32", 256, 2), ("tf32", 512, 4)],
)
def test_a_path_is_what_was_counted(math, hidden, slices):
    found = lstm(False, 3, hidden, math, NARROW)
    instructions, latency, of_slice, slice_latency = counts(math, NARROW_ROW)
    # A scheduler issues the instructions of two warps.
    clocks = max(latency - slice_latency, 2 * (instructions - of_slice))
    clocks += max(slices * slice_latency, 2 * slices * of_slice)
    # The sums of eight warps are written and read, 128 bytes in a clock.
    clocks += 8 * 2 * 4 * 32 * 8 / 128
    assert found.path_us * CLOCKS_PER_US == pytest.approx(clocks)


def test_more_slices_than_are_in_flight_take_another_trip_to_l2():
    within, beyond = (
        lstm(False, 1, hidden, "tf32", NARROW).path_us * CLOCKS_PER_US for hidden in (512, 640)
    )
    # Four slices of a warp are in flight, and the fifth is not.
    assert beyond - within == pytest.approx(L2_CLOCKS + counts("tf32", NARROW_ROW)[3])


def test_a_scatter_kernels_path_grows_with_its_tiles():
    few, more = (
        lstm(True, 8, hidden, "tf32", SCATTER).path_us * CLOCKS_PER_US for hidden in (128, 256)
    )
    assert more - few == pytest.approx(counts("tf32", SCATTER_ROW)[3])


def test_a_product_that_fills_the_tensor_cores_takes_as_long():
    # By four tiles of rows and two of the batch, eight warps have 64 K's multiply-adds each.
    wide = "persistent:row_tiles=4,batch_tiles=2"
    few, more = (
        lstm(False, 16, hidden, "float16", wide).path_us * CLOCKS_PER_US for hidden in (512, 768)
    )
    assert more - few == pytest.approx(64 * 16 * 256 / 1024)


def before_the_steps(backward, hidden):
    """Return the time of a persistent pass before its steps."""
    found = lstm(backward, 8, hidden, "float16", "persistent:cluster=0,tagged=0", steps=2)
    return found.total_us - 2 * found.step_us


def test_a_projection_is_a_second_product():
    def cost(backward, projection):
        layer = (backward, "lstm", "float32", 100, 32, 1000, 1, True)
        return library().plan(*layer, "stepwise", dataclasses.asdict(DEVICES["A100"]), projection)

    for backward in (False, True):
        projected = cost(backward, 250)
        assert projected["flops"] == 2 * 32 * (4000 * 250 + 250 * 1000)
        assert projected["synchronizations"] == 4
        assert cost(backward, 1000)["step_us"] > cost(backward, 0)["step_us"]


def test_weights_that_are_aligned_are_loaded_sooner():
    # By 16 bytes, forward, if H is a multiple of 8.
    assert before_the_steps(False, 1000) < before_the_steps(False, 1001) - 1
    assert before_the_steps(True, 1000) == pytest.approx(before_the_steps(True, 1001), abs=0.5)
    # Zeros and a cooperative launch come first.
    assert before_the_steps(False, 8) > 2.5 + 2 * 2.0 + 1.4


def test_a_tagged_exchange_saves_a_trip():
    flags, tags = (lstm(False, 8, 64, "float16", f"persistent:tagged={t}") for t in (0, 1))
    outside = [p.step_us - p.path_us for p in (flags, tags)]
    # The load that follows a flag is in its path; polling the words is the load.
    assert outside[1] < outside[0] + L2_CLOCKS / CLOCKS_PER_US
    assert tags.step_us < flags.step_us
