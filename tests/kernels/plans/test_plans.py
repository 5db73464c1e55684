"""Which algorithm is chosen for which GPU, and whether what is chosen can be."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from fastrnn.cell import GATES
from fastrnn.kernels import plan
from fastrnn.plans import DEVICES, DeviceFacts

MODES = ("lstm", "gru", "rnn_tanh", "rnn_relu")


@pytest.fixture(autouse=True)
def _defaults(monkeypatch):
    for name in ("FASTRNN_ALGORITHM", "FASTRNN_TF32", "NVIDIA_TF32_OVERRIDE"):
        monkeypatch.delenv(name, raising=False)


# T, N, H; the algorithms forward and backward: S is stepwise, P is persistent, C with clusters, and
# W streams weights that do not fit.
@pytest.mark.parametrize(
    ("device", "mode", "sizes", "dtype", "expected"),
    [
        ("V100", "lstm", (100, 32, 256), "float16", "SS"),  # no kernel for its tensor cores
        ("V100", "lstm", (100, 32, 256), "float32", "PP"),  # without them
        ("V100", "gru", (1024, 1, 256), "float32", "PP"),
        ("V100", "rnn_tanh", (100, 32, 512), "float32", "PP"),
        ("V100", "lstm", (100, 8, 768), "float32", "WW"),
        ("V100", "lstm", (100, 64, 1500), "float32", "SS"),  # 34 MiB of weights
        ("T4", "lstm", (100, 32, 256), "float16", "PP"),
        ("T4", "lstm", (100, 32, 256), "bfloat16", "SS"),
        ("T4", "lstm", (100, 32, 1000), "float16", "SS"),  # 40 multiprocessors
        ("A100", "lstm", (100, 32, 1000), "float16", "WS"),
        ("A100", "lstm", (100, 16, 1000), "float16", "PP"),
        ("A100", "lstm", (100, 32, 1500), "float32", "WW"),  # 34 MiB of weights
        ("A100", "gru", (100, 32, 256), "bfloat16", "PP"),
        ("RTX 3090", "lstm", (1024, 16, 768), "float16", "PP"),
        ("RTX 3090", "rnn_tanh", (100, 32, 1000), "float32", "WW"),
        ("L4", "lstm", (100, 32, 256), "float16", "PP"),
        ("L4", "lstm", (100, 32, 1500), "float16", "SS"),  # 58 multiprocessors
        ("H100", "lstm", (1024, 16, 768), "float16", "PC"),
        ("H100", "lstm", (100, 32, 1000), "float16", "PC"),
        ("H100", "lstm", (100, 32, 1000), "float32", "PP"),  # the tutorial's model
        ("H100", "gru", (100, 32, 1000), "float32", "PC"),
        ("H100", "gru", (100, 32, 1000), "bfloat16", "PC"),
        ("H100", "gru", (100, 64, 512), "float16", "PC"),  # stepwise would wait for the host
        ("H100", "gru", (100, 128, 512), "float16", "PS"),  # two launches take longer
        ("H100", "lstm", (100, 32, 2048), "float16", "PP"),
        ("H100", "lstm", (100, 8, 2048), "float32", "WW"),  # 64 MiB of weights
        ("H100", "lstm", (100, 256, 1000), "float16", "SS"),  # products that fill the GPU
        ("H100", "lstm", (1, 1, 1000), "float16", "SS"),  # one step is not worth loading them
        ("H100-124", "lstm", (1024, 16, 768), "float16", "PC"),
        ("H100-124", "lstm", (100, 32, 1000), "float16", "PP"),  # one group less in clusters
        ("H100-124", "lstm", (100, 128, 512), "float16", "PS"),
        ("H200", "rnn_relu", (100, 32, 1000), "float32", "PP"),
    ],
)
def test_choice(device, mode, sizes, dtype, expected):
    chosen = plan(mode, *sizes, dtype=dtype, device=device)

    def kind(p):
        if p.algorithm == "stepwise":
            return "S"
        return "W" if p.streamed_slices else "C" if p.cluster > 1 else "P"

    assert kind(chosen.forward) + kind(chosen.backward) == expected, str(chosen)


def test_what_the_kernels_are_compiled_for_counts():
    # Compiled for an older GPU, kernels for a newer one are empty.
    sizes = {"steps": 1024, "rows": 16, "hidden": 896}
    for code, dtype, expected in (
        (90, "float16", ("persistent", 4)),
        (80, "float16", ("persistent", 1)),
        (75, "float16", ("persistent", 1)),
        (75, "bfloat16", ("stepwise", 0)),
        (75, "float32", ("stepwise", 0)),
        (70, "float16", ("stepwise", 0)),
    ):
        facts = dataclasses.replace(DEVICES["H100"], code_capability=code)
        chosen = plan("lstm", **sizes, dtype=dtype, device=facts)
        assert (chosen.backward.algorithm, chosen.backward.cluster) == expected, str(chosen)
        for p in (chosen.forward, chosen.backward):
            assert p.algorithm == expected[0], str(p)
            assert p.algorithm == "persistent" or f"compiled for {code / 10}" in p.reason


def test_a_device_without_cooperative_launches():
    facts = dataclasses.replace(DEVICES["H100"], cooperative=False)
    chosen = plan("lstm", 100, 32, 256, device=facts)
    assert chosen.forward.algorithm == chosen.backward.algorithm == "stepwise"
    assert chosen.forward.reason == "the device has no cooperative launches"


def test_the_clusters_are_for_hopper():
    newer = dataclasses.replace(DEVICES["H100"], capability=100)  # of which nothing is known
    for device, clusters in (("A100", (1,)), ("H100", (1, 4)), (newer, (1,))):
        for hidden in (256, 768, 1000):
            chosen = plan("lstm", 100, 16, hidden, dtype="float16", device=device)
            assert chosen.forward.cluster == 1
            assert chosen.backward.cluster in clusters
            assert chosen.backward.blocks % chosen.backward.cluster == 0


# A cluster saves an exchange through L2. Others, without clusters, get by with one exchange.
@pytest.mark.parametrize(
    ("sizes", "dtype", "expected"),
    [
        ((1024, 16, 768), "float16", 4),
        ((100, 32, 256), "float16", 1),
        ((100, 32, 1000), "float16", 4),
        ((1024, 16, 768), "float32", 1),
        ((1024, 32, 896), "float32", 4),
    ],
)
def test_where_clusters_are_worth_it(sizes, dtype, expected):
    chosen = plan("lstm", *sizes, dtype=dtype, device="H100")
    assert chosen.backward.cluster == expected


# A launch and the weights cost both the same, so that more steps gain more.
@pytest.mark.parametrize(
    ("mode", "sizes", "dtype", "least", "most", "expected"),
    [
        ("lstm", (1024, 8, 608), "float16", 0.05, 0.053, 4),
        ("lstm", (100, 8, 608), "float16", 0.046, 0.05, 1),
        ("lstm", (100, 8, 640), "float16", 0.05, 0.053, 4),
        ("gru", (1024, 16, 480), "float16", 0.05, 0.053, 4),
        ("gru", (1024, 16, 464), "float16", 0.046, 0.05, 1),
    ],
)
def test_clusters_have_to_gain_a_twentieth(mode, sizes, dtype, least, most, expected):
    plain, clusters, chosen = (
        plan(mode, *sizes, dtype=dtype, algorithm=algorithm, device="H100").backward
        for algorithm in ("auto:cluster=0", "auto:cluster=1", None)
    )
    # What is asked for need not gain.
    assert (plain.cluster, clusters.cluster) == (1, 4)
    assert least < 1 - clusters.total_us / plain.total_us < most
    assert chosen.cluster == expected
    costs = f"; with clusters {clusters.total_us:.2f} us in all, without {plain.total_us:.2f}"
    assert chosen.reason.endswith(costs)
    assert "with clusters" not in plain.reason


@pytest.mark.parametrize(("rows", "hidden", "expected"), [(8, 256, True), (16, 768, False)])
def test_tagged_words_have_to_gain_a_tenth(rows, hidden, expected):
    flags, tags, chosen = (
        plan("lstm", 100, rows, hidden, dtype="float16", algorithm=algorithm, device="H100").forward
        for algorithm in ("auto:tagged=0", "auto:tagged=1", None)
    )
    # What is asked for need not gain.
    assert (flags.tagged, tags.tagged) == (False, True)
    assert (1 - tags.total_us / flags.total_us >= 0.1) == expected
    assert chosen == (tags if expected else flags)
    assert ("tagged words" in str(chosen)) == expected


def test_tagged_words_need_tensor_cores():
    with pytest.raises(ValueError, match="no persistent kernel fits"):
        plan("lstm", 9, 8, 64, tf32=False, algorithm="persistent:tagged=1", device="H100")


def test_clusters_that_the_device_has_no_room_for():
    none = dataclasses.replace(DEVICES["H100"], cluster_multiprocessors=0)
    for facts, expected in (("H100", 4), ("H100-124", 1), (none, 1)):
        chosen = plan("lstm", 100, 32, 1000, dtype="float16", device=facts).backward
        assert chosen.cluster == expected


def test_both_directions_at_once_where_they_fit():
    few = plan("lstm", 100, 8, 256, directions=2, dtype="float16", device="H100").forward
    assert few.directions == 2
    full = plan(
        "lstm", 100, 32, 1000, directions=2, algorithm="persistent:row_tiles=2", device="H100"
    ).forward
    assert (full.directions, full.blocks) == (1, 125)


def test_directions_whose_chunks_of_time_come_in_opposite_orders():
    for steps, expected in ((100, 2), (3000, 1)):
        chosen = plan("lstm", steps, 32, 512, directions=2, dtype="float16", device="H100")
        assert chosen.forward.directions == 2, str(chosen)
        assert chosen.backward.directions == expected, str(chosen)


def test_a_device_that_is_shared_gets_fewer_blocks():
    whole = DEVICES["A100"]
    blocks = []
    for free in (108, 80, 40, 10, 1):
        shared = dataclasses.replace(whole, multiprocessors=free)
        forward = plan("lstm", 200, 32, 512, dtype="float16", device=shared).forward
        used = forward.blocks * forward.groups * forward.directions
        assert used <= free
        blocks.append(used)
    assert blocks[0] > blocks[-1] == 0


def stepwise_us(steps, **options):
    """Return what a step costs, forward, of layers that are small enough for the host to count."""
    chosen = plan("lstm", steps, 8, 128, algorithm="stepwise", device="H100", **options)
    return chosen.forward.step_us


@pytest.mark.parametrize("directions", [1, 2])
def test_small_steps_wait_for_the_host(directions):
    assert stepwise_us(8, directions=directions) == 5.0


def test_the_choice_is_the_cheaper_one():
    for hidden in (128, 650, 1000, 1500):
        arguments = ("lstm", 100, 32, hidden)
        chosen = plan(*arguments, dtype="float16", device="H100")
        stepwise = plan(*arguments, dtype="float16", device="H100", algorithm="stepwise")
        assert chosen.forward.total_us <= stepwise.forward.total_us
        assert chosen.backward.total_us <= stepwise.backward.total_us


@given(
    mode=st.sampled_from(MODES),
    steps=st.integers(1, 2000),
    rows=st.integers(1, 300),
    hidden=st.integers(1, 2100),
    directions=st.sampled_from((1, 2)),
    dtype=st.sampled_from(("float32", "float16", "bfloat16")),
    tf32=st.booleans(),
    name=st.sampled_from(sorted(DEVICES)),
    free=st.floats(0.05, 1.0),
)
@settings(deadline=None, max_examples=300)
def test_a_plan_fits(mode, steps, rows, hidden, directions, dtype, tf32, name, free):
    facts = DEVICES[name]
    facts = dataclasses.replace(facts, multiprocessors=max(1, int(facts.multiprocessors * free)))
    options = {"directions": directions, "dtype": dtype, "tf32": tf32, "device": facts}
    chosen = plan(mode, steps, rows, hidden, **options)
    for backward, p in enumerate((chosen.forward, chosen.backward)):
        if p.algorithm == "stepwise":
            continue
        assert facts.capability >= (75 if dtype == "float16" else 80 if dtype == "bfloat16" else 70)
        assert p.blocks * p.groups * p.directions <= facts.multiprocessors
        assert 0 < p.shared_bytes <= facts.shared_bytes
        assert p.cluster == 1 or (p.cluster == 4 and facts.capability == 90)
        if p.cluster > 1:
            assert p.blocks * p.groups * p.directions <= facts.cluster_multiprocessors
        assert p.batch_tiles in (1, 2, 4)
        assert p.blocks * p.units >= hidden
        assert p.groups * p.launches * 8 * p.batch_tiles >= rows
        assert p.directions <= directions
        gates = GATES[mode]
        wide = 2 if gates == 1 else 4
        assert p.row_tiles in (1, 2, 4)
        assert p.row_tiles <= wide
        assert p.row_tiles == wide or not p.streamed_slices
        if backward and gates > 1:
            # With one tile of rows, K is cut where the units are.
            assert p.split == (p.blocks if p.row_tiles == 1 else 4)
            assert p.units == 16 * p.row_tiles // (4 if p.row_tiles > 1 else 1)
            assert p.cluster == 1 or p.split == 4
        else:
            assert p.units == 16 * p.row_tiles // (1 if backward else gates)
            assert p.split == 1
            assert p.cluster == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fast", "algorithm is 'fast', expected auto, stepwise or persistent"),
        ("persistent:rows=1", "algorithm is 'persistent:rows=1'"),
        ("persistent:groups=", "algorithm is 'persistent:groups='"),
        ("persistent:groups=1x", "algorithm is 'persistent:groups=1x'"),
        ("stepwise:groups=1", "algorithm is 'stepwise:groups=1'"),
    ],
)
def test_an_algorithm_that_is_none(text, message):
    with pytest.raises(ValueError, match=message):
        plan("lstm", 3, 2, 5, algorithm=text, device="A100")


def test_the_environment_has_the_default(monkeypatch):
    monkeypatch.setenv("FASTRNN_ALGORITHM", "persistent")
    assert plan("lstm", 1, 1, 8, device="A100").forward.algorithm == "persistent"
    assert plan("lstm", 1, 1, 8, algorithm="auto", device="A100").forward.algorithm == "stepwise"
    monkeypatch.setenv("FASTRNN_ALGORITHM", "quick")
    with pytest.raises(ValueError, match="FASTRNN_ALGORITHM is 'quick', expected auto, stepwise"):
        plan("lstm", 1, 1, 8, device="A100")


@pytest.mark.parametrize(
    ("device", "sizes", "reason"),
    [
        ("V100", (10, 4, 64), "algorithm is persistent, but .* compute capability 7.5"),
        ("T4", (10, 4, 2048), "algorithm is persistent, but no persistent kernel fits 40 multi"),
    ],
)
def test_a_persistent_kernel_that_cannot_be(device, sizes, reason):
    with pytest.raises(ValueError, match=reason):
        plan("lstm", *sizes, dtype="float16", algorithm="persistent", device=device)


def test_devices():
    with pytest.raises(ValueError, match="device is 'K80', expected one of V100, T4"):
        plan("lstm", 1, 1, 8, device="K80")
    assert plan("lstm", 1, 1, 8, device=DeviceFacts(80, 10, 10000)).forward.reason


@pytest.mark.parametrize("algorithm", ["persistent:cluster=0", "stepwise"])
def test_what_was_measured_stands_for_what_is_nominal(algorithm):
    sizes = {"steps": 4, "rows": 32, "hidden": 2048, "dtype": "float16", "algorithm": algorithm}
    # The nominal figures, of compute capability 9.0.
    nominal = {
        "exchange_us": 0.9,
        "memory_bytes_per_us": 0.8 * 3.3e6,
        "products_per_us": 1024 * 1700,
        "host_us": 5.0,
    }
    facts = dataclasses.replace(DEVICES["H100"], l2_bytes=1 << 20)  # of weights it keeps nothing
    before = plan("lstm", **sizes, device=facts)
    assert plan("lstm", **sizes, device=dataclasses.replace(facts, **nominal)) == before
    counts = set()
    for name, rate in nominal.items():
        worse = rate * 100 if name in ("exchange_us", "host_us") else rate / 100
        found = plan("lstm", **sizes, device=dataclasses.replace(facts, **{name: worse}))
        if found.forward.total_us > before.forward.total_us:
            assert found.backward.total_us > before.backward.total_us
            counts.add(name)
    # Persistent kernels, too, wait for the host, which launches them.
    assert counts == set(nominal) - ({"exchange_us"} if algorithm == "stepwise" else set())


def test_a_step_has_as_many_exchanges_as_synchronizations():
    slow = dataclasses.replace(DEVICES["H100"], exchange_us=1.9)
    sizes = ("lstm", 100, 32, 1000)
    one, other = (
        plan(*sizes, dtype="float16", algorithm="persistent:cluster=0,split=4", device=device)
        for device in ("H100", slow)
    )
    scatters, slower = (
        plan("lstm", 100, 8, 256, algorithm="persistent:backward_row_tiles=1", device=device)
        for device in ("H100", slow)
    )
    for before, after, count in (
        (one.forward, other.forward, 1),
        (one.backward, other.backward, 2),
        (scatters.backward, slower.backward, 1),
    ):
        assert before.synchronizations == count
        assert after.step_us - before.step_us == pytest.approx(count)


def test_what_blocks_exchange_that_all_share_k():
    for rows in (1, 8, 20):
        algorithm = "persistent:backward_row_tiles=1,batch_tiles=1,groups=1"
        found = plan("gru", 100, rows, 250, dtype="float16", algorithm=algorithm, device="H100")
        # 16 blocks, of which each has 48 products along K, in slices of 32, for 256 units.
        assert (found.backward.blocks, found.backward.split) == (16, 16)
        assert found.backward.flops == 2 * 16 * 64 * 256 * 8
        assert found.backward.l2_bytes == 16 * 2 * 4 * 256 * min(rows, 8)
        # What a plan says can be asked for.
        again = plan(
            "gru", 100, rows, 250, dtype="float16", algorithm=f"{algorithm},split=16", device="H100"
        )
        assert again.backward == found.backward


def test_a_measurement_that_is_none():
    facts = dataclasses.replace(DEVICES["H100"], exchange_us=-1.0)
    with pytest.raises(ValueError, match="exchange_us is -1.0*, expected 0 or what was measured"):
        plan("lstm", 8, 8, 128, device=facts)


def test_a_plan_can_be_read():
    text = str(plan("lstm", 100, 32, 1000, dtype="float16", device="H100"))
    assert text.startswith("forward: persistent: persistent ")
    assert "stepwise" in text
    assert "bytes of shared memory, K split in 4, clusters of 4 blocks" in text
    assert "synchronization(s), about " in text
    assert "8e+06 bytes of weights from memory" in text


def test_float32_without_tensor_cores_needs_no_newer_device():
    for device, tf32 in (("V100", None), ("T4", None), ("A100", False)):
        chosen = plan("lstm", 100, 16, 256, tf32=tf32, device=device)
        assert chosen.forward.algorithm == chosen.backward.algorithm == "persistent", str(chosen)
    older = plan("lstm", 100, 16, 256, dtype="float16", device="V100")
    assert "need compute capability 7.5 for float16" in older.forward.reason
