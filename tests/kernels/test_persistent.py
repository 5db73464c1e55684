"""The persistent kernels against the oracle, cut in every way that there is."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from kernel_cases import KernelCase, assert_agrees, capability, devices, persistent

from fastrnn import _native

pytestmark = pytest.mark.skipif(
    "cuda" not in devices(), reason="no CUDA device, nor an emulated one"
)

# How products are computed: the arrays' type, and whether TF32 is allowed.
MATHS = {
    "float16": ("float16", False),
    "bfloat16": ("bfloat16", False),
    "tf32": ("float32", True),
    "float32": ("float32", False),
}


if "cuda" in devices():
    for name, needed in (("float16", 75), ("bfloat16", 80), ("tf32", 80)):
        if capability() < needed:
            del MATHS[name]


# The kernels that there are (csrc/cuda/plan.h): rows of weights and of the batch in a block, in
# tiles; and forward whether words are tagged, which is for tensor cores. The narrowest are for some
# maths only.
FORWARD_GATED = [(2, 1, 0), (4, 1, 0), (4, 1, 1), (4, 2, 0), (4, 4, 0)]
FORWARD_UNGATED = [(1, 1, 0), (1, 1, 1), (2, 1, 0), (2, 2, 0), (2, 4, 0)]
BACKWARD_UNGATED = [(1, 1), (2, 1), (2, 2), (2, 4)]
SIXTEEN_BITS = ("float16", "bfloat16")
# Backward, whether in clusters, too. Those with one tile of rows have a part of K in every block.
SCATTER = [(1, 1, 0), (1, 2, 0), (1, 4, 0)]
SHARED_K = {
    "float16": [(4, 2, 0), (4, 1, 1), (4, 2, 1)],
    "bfloat16": [(4, 2, 0), (4, 1, 1), (4, 2, 1)],
    "tf32": [(4, 1, 0), (4, 2, 0), (4, 2, 1)],
    "float32": [(2, 1, 0), (4, 1, 0)],
}


def backward_tiles(mode, math):
    """Return the rows of weights and of the batch, and whether in clusters, of the kernels."""
    if ref.GATES[mode] == 1:
        return [(*tiles, 0) for tiles in BACKWARD_UNGATED[math in SIXTEEN_BITS :]]
    return [t for t in (*SCATTER, *SHARED_K[math]) if not t[2] or capability() >= 90]


def forward_tiles(mode, math):
    """Return the rows of weights and of the batch, and whether words are tagged, of the kernels."""
    gated = ref.GATES[mode] > 1
    found = FORWARD_GATED if gated else FORWARD_UNGATED
    without_narrowest = SIXTEEN_BITS if gated else (*SIXTEEN_BITS, "tf32")
    found = found[math in without_narrowest :]
    return [t for t in found if not (t[2] and math == "float32")]


def tiles(mode, math):
    """Yield the tiles that there are kernels for, each of a pass with each of the other's."""
    for rows, batch, tagged in forward_tiles(mode, math):
        for backward, of_backward, cluster in backward_tiles(mode, math):
            if batch == of_backward:
                yield {
                    "row_tiles": rows,
                    "batch_tiles": batch,
                    "backward_row_tiles": backward,
                    "cluster": cluster,
                    "tagged": tagged,
                }


def streams(mode, math):
    """Yield the tiles of the batch of kernels that stream, and whether backward has them, too."""
    tensor16 = math in ("float16", "bfloat16")
    if ref.GATES[mode] == 1:
        return [(4, True)] if tensor16 else [(1, True), (2, True), (4, True)]
    if tensor16:
        return [(2, False), (4, False)]
    return [(1, True), (2, math == "tf32"), (4, False)]


def close(case, precision=None):
    """Fail unless the results of the case, cut as it says, are the oracle's."""
    if case.mode == "rnn_relu":
        # No pre-activation shall be so near 0 that rounding decides which side it is on.
        for h2h, bias in zip(case.weights[1::4], case.weights[2::4]):
            h2h[:] *= np.float32(0.125)
            bias[:] = np.where(np.arange(bias.size) % 2 == 0, 16, -16)
    assert_agrees(case, precision)


@pytest.mark.parametrize("math", MATHS)
@pytest.mark.parametrize("mode", ref.MODES)
def test_every_instance(mode, math):
    # 3 steps of 35 rows by 45 units: no size is a whole number of tiles, and K no whole number of
    # slices.
    dtype, tf32 = MATHS[math]
    for numbers in tiles(mode, math):
        case = KernelCase(
            mode,
            3,
            35,
            4,
            45,
            device="cuda",
            dtype=dtype,
            tf32=tf32,
            algorithm=persistent(**numbers),
        )
        close(case, math)


@pytest.mark.parametrize("math", MATHS)
@pytest.mark.parametrize("mode", ref.MODES)
@pytest.mark.parametrize("hidden", [1, 7, 33, 129])
def test_odd_sizes(mode, hidden, math):
    dtype, tf32 = MATHS[math]
    options = {"device": "cuda", "dtype": dtype, "tf32": tf32, "algorithm": "persistent"}
    close(KernelCase(mode, 4, 3, 5, hidden, 2, **options), math)


# Sizes and cuts by which warps have several slices of K, in registers, in shared memory, and from
# L2: each warp has up to 6 of them.
LONG = [
    ("lstm", "float16", 20, 600, {"row_tiles": 4, "backward_row_tiles": 4, "batch_tiles": 2}),
    ("lstm", "tf32", 20, 310, {"row_tiles": 4, "backward_row_tiles": 4, "batch_tiles": 2}),
    ("gru", "float16", 3, 310, {"row_tiles": 4, "backward_row_tiles": 1, "batch_tiles": 1}),
    ("gru", "tf32", 12, 500, {"row_tiles": 4, "backward_row_tiles": 4, "batch_tiles": 2}),
    ("lstm", "float16", 3, 600, {"row_tiles": 4, "backward_row_tiles": 1, "batch_tiles": 1}),
    ("lstm", "tf32", 20, 310, {"row_tiles": 4, "backward_row_tiles": 1, "batch_tiles": 4}),
    ("gru", "tf32", 12, 290, {"row_tiles": 4, "backward_row_tiles": 1, "batch_tiles": 2}),
    ("gru", "float32", 9, 300, {"row_tiles": 2, "backward_row_tiles": 2, "batch_tiles": 1}),
    ("gru", "tf32", 3, 600, {"row_tiles": 4, "backward_row_tiles": 4, "shared_slices": 0}),
    ("lstm", "tf32", 20, 600, {"row_tiles": 4, "backward_row_tiles": 4, "shared_slices": 1}),
    ("gru", "float32", 9, 600, {"row_tiles": 4, "backward_row_tiles": 4, "shared_slices": 1}),
    ("rnn_tanh", "tf32", 12, 600, {"row_tiles": 2, "backward_row_tiles": 2, "batch_tiles": 2}),
    ("rnn_tanh", "float32", 20, 600, {"row_tiles": 2, "backward_row_tiles": 2, "shared_slices": 2}),
    ("rnn_relu", "float16", 20, 600, {"row_tiles": 2, "backward_row_tiles": 2, "shared_slices": 0}),
    # Tagged words.
    ("lstm", "float16", 9, 600, {"row_tiles": 4, "batch_tiles": 1, "tagged": 1}),
    ("gru", "tf32", 3, 500, {"row_tiles": 4, "batch_tiles": 1, "tagged": 1}),
    # In clusters.
    ("lstm", "float16", 12, 600, {"backward_row_tiles": 4, "batch_tiles": 2, "cluster": 1}),
    ("gru", "bfloat16", 3, 600, {"backward_row_tiles": 4, "batch_tiles": 1, "cluster": 1}),
    ("lstm", "tf32", 20, 310, {"backward_row_tiles": 4, "batch_tiles": 2, "cluster": 1}),
    ("gru", "tf32", 12, 500, {"backward_row_tiles": 4, "batch_tiles": 2, "cluster": 1}),
]


@pytest.mark.parametrize(("mode", "math", "rows", "hidden", "numbers"), LONG)
def test_weights_beyond_the_registers(mode, math, rows, hidden, numbers):
    if math not in MATHS or ("cluster" in numbers and capability() < 90):
        pytest.skip("not with this device")
    dtype, tf32 = MATHS[math]
    algorithm = persistent(**{"cluster": 0, **numbers})
    case = KernelCase(
        mode,
        2,
        rows,
        2,
        hidden,
        device="cuda",
        dtype=dtype,
        tf32=tf32,
        algorithm=algorithm,
        seed=3,
    )
    close(case, math)


@pytest.mark.parametrize("math", MATHS)
@pytest.mark.parametrize("mode", ref.MODES)
def test_every_stream(mode, math):
    # Every warp has a slice more than its registers hold, and fewer rows than its tiles.
    dtype, tf32 = MATHS[math]
    hidden = 300 if ref.GATES[mode] > 1 else 520
    for batch_tiles, both in streams(mode, math):
        algorithm = persistent(batch_tiles=batch_tiles, shared_slices=0)
        rows = 3 if batch_tiles < 4 else 27
        case = KernelCase(
            mode, 2, rows, 2, hidden, device="cuda", dtype=dtype, tf32=tf32, algorithm=algorithm
        )
        if both:
            close(case, math)
            continue
        result, (expected, _) = case.forward(), case.reference()
        ref.assert_close(result.output, expected.output, "output", math)
        ref.assert_close(result.h_n, expected.h, "h_n", math)


@pytest.mark.parametrize("mode", ref.MODES)
@pytest.mark.parametrize("groups", [1, 2])
def test_groups_and_launches(mode, groups):
    # 21 rows are three tiles: one launch after the other, or two groups at a time.
    algorithm = persistent(batch_tiles=1, groups=groups)
    lengths = [5, 0, 3, 1, 2, 4, 5] * 3
    case = KernelCase(mode, 5, 21, 3, 20, 2, device="cuda", lengths=lengths, algorithm=algorithm)
    close(case)


@pytest.mark.parametrize("directions", [1, 2])
def test_directions_one_after_the_other_or_at_once(directions):
    for mode in ref.MODES:
        algorithm = persistent(directions=directions)
        close(KernelCase(mode, 5, 9, 3, 20, 2, device="cuda", algorithm=algorithm))


@pytest.mark.parametrize("mode", ref.MODES)
def test_chunks_of_time(mode):
    # The emulated build has short chunks.
    lengths = np.arange(11) * 4
    case = KernelCase(
        mode, 40, 11, 3, 20, 2, device="cuda", lengths=lengths, algorithm="persistent", seed=2
    )
    close(case)


def cuts(mode, math, rows):
    """Return tiles of the batch, groups and clusters, for 21 rows of the batch."""
    found = [(1, 1, 0), (1, 3, 0)]
    for backward, batch, cluster in backward_tiles(mode, math):
        if backward == rows:
            found += [(batch, 1, cluster)]
    return [c for c in found if (rows, c[0], c[2]) in backward_tiles(mode, math)]


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("math", MATHS)
@pytest.mark.parametrize("mode", ref.MODES)
def test_the_batch_split_does_not_change_a_bit(mode, math, wide):
    # What decides the order of a sum, K and its split, is the same in each of the cuts.
    dtype, tf32 = MATHS[math]
    rows = 1 if not wide and ref.GATES[mode] > 1 else 2 if ref.GATES[mode] == 1 else 4
    results = []
    for batch_tiles, groups, cluster in cuts(mode, math, rows):
        algorithm = persistent(
            batch_tiles=batch_tiles, groups=groups, cluster=cluster, backward_row_tiles=rows
        )
        case = KernelCase(
            mode, 4, 21, 3, 33, device="cuda", dtype=dtype, tf32=tf32, algorithm=algorithm
        )
        result = case.forward(reserve=True)
        gradients = case.backward(result.reserve)
        arrays = [result.output, result.h_n, gradients.x, gradients.h_0, *gradients.weights]
        results.append(arrays)
    assert len(results) > 1 or capability() < 90
    for other in results[1:]:
        for a, b in zip(results[0], other):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("math", [math for math in MATHS if math != "float32"])
@pytest.mark.parametrize("mode", ref.MODES)
def test_tagged_words_do_not_change_a_bit(mode, math):
    dtype, tf32 = MATHS[math]
    rows = (2, 1) if ref.GATES[mode] == 1 else (4, 4)
    # With and without numbers that fill up a slice.
    for hidden, groups in ((45, 3), (64, 1)):
        results = []
        for tagged in (0, 1):
            numbers = {"row_tiles": rows[tagged], "batch_tiles": 1}
            algorithm = persistent(**numbers, groups=groups, tagged=tagged)
            options = {"dtype": dtype, "tf32": tf32, "lengths": [9, 0, 3, 1, 8, 4, 9] * 3}
            case = KernelCase(
                mode, 9, 21, 3, hidden, 2, device="cuda", algorithm=algorithm, **options
            )
            result = case.forward(reserve=True)
            results.append([result.output, result.h_n, *case.backward(result.reserve).weights])
        for a, b in zip(*results):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("mode", ref.MODES)
def test_where_weights_are_kept_does_not_change_a_bit(mode):
    results = []
    rows = 4 if ref.GATES[mode] > 1 else 2
    # Of 400 units every warp has slices to stream in the last two.
    for numbers in ({}, {"shared_slices": 0}, {"shared_slices": 1}):
        algorithm = persistent(row_tiles=rows, backward_row_tiles=rows, batch_tiles=1, **numbers)
        case = KernelCase(mode, 2, 3, 2, 400, device="cuda", tf32=True, algorithm=algorithm)
        result = case.forward(reserve=True)
        results.append([result.output, case.backward(result.reserve).h_0])
    for other in results[1:]:
        for a, b in zip(results[0], other):
            assert np.array_equal(a, b)


def test_stepwise_goes_on_where_there_is_no_room():
    facts = _native.library().device_facts(0)
    hidden = 16 * facts["multiprocessors"] * 2
    with pytest.raises(ValueError, match="algorithm is persistent, but no persistent kernel fits"):
        KernelCase("lstm", 2, 1, 1, hidden, device="cuda", algorithm="persistent").forward()
    close(KernelCase("lstm", 2, 1, 1, hidden, device="cuda", algorithm="auto"))
