"""The persistent kernels against the oracle, cut in every way that there is."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from kernel_cases import Case, assert_agrees, devices

from fastrnn import _native

pytestmark = pytest.mark.skipif(
    "cuda" not in devices(), reason="no CUDA device, nor an emulated one"
)

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
# How products are computed: the arrays' type, and whether TF32 is allowed.
MATHS = {
    "float16": ("float16", False),
    "bfloat16": ("bfloat16", False),
    "tf32": ("float32", True),
    "float32": ("float32", False),
}


def capability():
    """Return the device's compute capability, as 10 * major + minor."""
    return int(_native.library().device_facts(0)["capability"])


if "cuda" in devices() and capability() < 80:
    for name in ("bfloat16", "tf32"):
        del MATHS[name]


def persistent(**numbers):
    """Return the name of the algorithm, cut in this way."""
    return "persistent:" + ",".join(f"{name}={value}" for name, value in numbers.items())


def streams(mode):
    """Yield the cuts of kernels that stream, of all but the widest ones."""
    for batch in (1, 2):
        for cluster in (0, 1) if GATES[mode] > 1 and capability() >= 90 else (0,):
            yield {"batch_tiles": batch, "shared_chunks": 0, "cluster": cluster}


def tiles(mode):
    """Yield the tiles that there are kernels for; those of the passes go by pairs.

    A split of 0 is any that there is: with one tile of rows, every block has a part of K.
    """
    small = 1 if GATES[mode] == 1 else 2
    backward = [(1, 0, 0), (2, 4, 0), (4, 4, 0)] if small == 2 else [(1, 1, 0), (2, 1, 0)]
    if capability() >= 90 and small == 2:
        backward += [(2, 4, 1), (4, 4, 1)]
    for i, (rows, split, cluster) in enumerate(backward):
        for batch in (1, 2, 4):
            if batch == 4 and rows == 2 * small:
                continue
            yield {
                "row_tiles": small * (1 + i % 2 * (batch < 4)),
                "batch_tiles": batch,
                "backward_row_tiles": rows,
                "split": split,
                "cluster": cluster,
            }


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
    # chunks.
    dtype, tf32 = MATHS[math]
    for numbers in tiles(mode):
        case = Case(
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
    close(Case(mode, 4, 3, 5, hidden, 2, **options), math)


# Sizes and cuts by which warps have several chunks of K, in registers, in shared memory, and from
# L2: each warp has up to 6 of them.
LONG = [
    ("lstm", "float16", 20, 600, {"row_tiles": 4, "backward_row_tiles": 4, "batch_tiles": 2}),
    ("lstm", "tf32", 20, 310, {"row_tiles": 2, "backward_row_tiles": 2, "batch_tiles": 4}),
    ("gru", "float16", 3, 310, {"row_tiles": 4, "backward_row_tiles": 1, "batch_tiles": 1}),
    ("gru", "tf32", 12, 500, {"row_tiles": 4, "backward_row_tiles": 4, "batch_tiles": 2}),
    ("lstm", "float16", 3, 600, {"row_tiles": 4, "backward_row_tiles": 1, "batch_tiles": 1}),
    ("lstm", "tf32", 20, 310, {"row_tiles": 2, "backward_row_tiles": 1, "batch_tiles": 4}),
    ("gru", "tf32", 12, 290, {"row_tiles": 4, "backward_row_tiles": 1, "batch_tiles": 2}),
    ("gru", "bfloat16", 3, 600, {"row_tiles": 4, "backward_row_tiles": 4, "shared_chunks": 0}),
    ("lstm", "tf32", 20, 600, {"row_tiles": 4, "backward_row_tiles": 4, "shared_chunks": 1}),
    ("gru", "float32", 9, 600, {"row_tiles": 4, "backward_row_tiles": 4, "shared_chunks": 1}),
    ("rnn_tanh", "tf32", 20, 600, {"row_tiles": 2, "backward_row_tiles": 2, "batch_tiles": 2}),
    ("rnn_tanh", "float32", 20, 600, {"row_tiles": 2, "backward_row_tiles": 2, "shared_chunks": 2}),
    ("rnn_relu", "float16", 20, 600, {"row_tiles": 2, "backward_row_tiles": 2, "shared_chunks": 0}),
]


@pytest.mark.parametrize(("mode", "math", "rows", "hidden", "numbers"), LONG)
@pytest.mark.parametrize("cluster", [0, 1])
def test_weights_beyond_the_registers(mode, math, rows, hidden, numbers, cluster):
    if math not in MATHS or (cluster and capability() < 90):
        pytest.skip("not with this device")
    if cluster and (GATES[mode] == 1 or numbers["backward_row_tiles"] == 1):
        pytest.skip("has no clusters")
    dtype, tf32 = MATHS[math]
    algorithm = persistent(cluster=cluster, **numbers)
    case = Case(
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
@pytest.mark.parametrize("mode", ["lstm", "gru", "rnn_tanh"])
def test_every_stream(mode, math):
    # Every warp has a chunk more than its registers hold.
    dtype, tf32 = MATHS[math]
    hidden = 300 if GATES[mode] > 1 else 520
    for numbers in streams(mode):
        algorithm = persistent(**numbers)
        case = Case(
            mode, 2, 3, 2, hidden, device="cuda", dtype=dtype, tf32=tf32, algorithm=algorithm
        )
        close(case, math)


@pytest.mark.parametrize("math", MATHS)
@pytest.mark.parametrize("mode", ref.MODES)
def test_the_widest_streams(mode, math):
    # Backward there are such only for cells with one gate.
    dtype, tf32 = MATHS[math]
    algorithm = persistent(batch_tiles=4, shared_chunks=0)
    case = Case(mode, 2, 27, 2, 300, device="cuda", dtype=dtype, tf32=tf32, algorithm=algorithm)
    if GATES[mode] == 1:
        close(case, math)
        return
    result, (expected, _) = case.forward(), case.reference()
    ref.assert_close(result.output, expected.output, "output", math)
    ref.assert_close(result.h_n, expected.h, "h_n", math)


@pytest.mark.parametrize("mode", ref.MODES)
@pytest.mark.parametrize("groups", [1, 2])
def test_groups_and_launches(mode, groups):
    # 21 rows are three tiles: one launch after the other, or two groups at a time.
    algorithm = persistent(batch_tiles=1, groups=groups)
    lengths = [5, 0, 3, 1, 2, 4, 5] * 3
    case = Case(mode, 5, 21, 3, 20, 2, device="cuda", lengths=lengths, algorithm=algorithm)
    close(case)


@pytest.mark.parametrize("directions", [1, 2])
def test_directions_one_after_the_other_or_at_once(directions):
    for mode in ref.MODES:
        algorithm = persistent(directions=directions)
        close(Case(mode, 5, 9, 3, 20, 2, device="cuda", algorithm=algorithm))


@pytest.mark.parametrize("mode", ref.MODES)
def test_chunks_of_time(mode):
    # The emulated build has short chunks.
    lengths = np.arange(11) * 4
    case = Case(
        mode, 40, 11, 3, 20, 2, device="cuda", lengths=lengths, algorithm="persistent", seed=2
    )
    close(case)


# Cuts of 21 rows of a batch. What decides the order of a sum, K and its split, is the same in each.
SPLITS = [
    {"rows": 1, "cuts": [(1, 1, 0), (1, 3, 0), (2, 1, 0), (4, 1, 0)]},
    {"rows": 2, "cuts": [(1, 1, 0), (1, 3, 0), (2, 1, 0), (1, 1, 1), (2, 1, 1)]},
]


@pytest.mark.parametrize("splits", SPLITS, ids=lambda s: f"rows {s['rows']}")
@pytest.mark.parametrize("math", MATHS)
@pytest.mark.parametrize("mode", ref.MODES)
def test_the_batch_split_does_not_change_a_bit(mode, math, splits):
    dtype, tf32 = MATHS[math]
    results = []
    for batch_tiles, groups, cluster in splits["cuts"]:
        if cluster and capability() < 90:
            continue
        algorithm = persistent(
            batch_tiles=batch_tiles,
            groups=groups,
            cluster=cluster,
            backward_row_tiles=splits["rows"],
        )
        case = Case(mode, 4, 21, 3, 33, device="cuda", dtype=dtype, tf32=tf32, algorithm=algorithm)
        result = case.forward(reserve=True)
        gradients = case.backward(result.reserve)
        arrays = [result.output, result.h_n, gradients.x, gradients.h_0, *gradients.weights]
        results.append(arrays)
    for other in results[1:]:
        for a, b in zip(results[0], other):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("mode", ref.MODES)
def test_where_weights_are_kept_does_not_change_a_bit(mode):
    results = []
    rows = 4 if GATES[mode] > 1 else 2
    for numbers in ({}, {"shared_chunks": 0}, {"shared_chunks": 1}):
        algorithm = persistent(row_tiles=rows, backward_row_tiles=rows, batch_tiles=1, **numbers)
        case = Case(mode, 2, 3, 2, 600, device="cuda", tf32=True, algorithm=algorithm)
        result = case.forward(reserve=True)
        results.append([result.output, case.backward(result.reserve).h_0])
    for other in results[1:]:
        for a, b in zip(results[0], other):
            assert np.array_equal(a, b)


def test_stepwise_goes_on_where_there_is_no_room():
    facts = _native.library().device_facts(0)
    hidden = 16 * facts["multiprocessors"] * 2
    with pytest.raises(ValueError, match="algorithm is persistent, but no persistent kernel fits"):
        Case("lstm", 2, 1, 1, hidden, device="cuda", algorithm="persistent").forward()
    close(Case("lstm", 2, 1, 1, hidden, device="cuda", algorithm="auto"))
