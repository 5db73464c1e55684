"""Plans are made once for each description of layers, and kept while they are used."""

from __future__ import annotations

import threading

import numpy as np
import pytest

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from kernel_cases import KernelCase, devices, get

from fastrnn import _native, cell, kernels, plans

if not devices():
    pytest.skip("no kernels", allow_module_level=True)

DEVICE = devices()[-1]  # a GPU before the CPU
PLACE = "cpu" if DEVICE == "cpu" else 0
KEPT = 256


def made(call):
    """Return how many plans are made by a call."""
    before = _native.library().plans_made()
    call()
    return _native.library().plans_made() - before


def case(hidden=3, inputs=101, layers=2, mode="lstm", steps=6, rows=2, **options):
    """Return a case in sizes that no other test has."""
    return KernelCase(mode, steps, rows, inputs, hidden, layers=layers, device=DEVICE, **options)


def run(the_case, reserve=True):
    result = kernels.forward(**the_case.arguments(), reserve=reserve)
    if reserve:
        kernels.backward(result.reserve, result.output)
    return result


def test_one_plan_for_each_description_and_none_after():
    first = case(inputs=102)
    assert made(lambda: run(first)) == 1
    assert made(lambda: [run(first) for _ in range(3)]) == 0
    assert made(lambda: run(case(inputs=102, seed=1))) == 0
    assert made(lambda: run(first, reserve=False)) == 1
    assert made(lambda: run(first, reserve=False)) == 0


@pytest.mark.parametrize(
    "other",
    [
        {"mode": "gru"},
        {"steps": 7},
        {"rows": 3},
        {"hidden": 4},
        {"inputs": 104},
        {"layers": 1},
        {"directions": 2},
        {"tf32": True},
        {"algorithm": "stepwise"},
    ],
    ids=str,
)
def test_another_description_is_another_plan(other):
    run(case(inputs=103))
    changed = case(**{"inputs": 103, **other})
    assert made(lambda: run(changed)) == 1


def test_a_description_that_is_refused_is_refused_again():
    wrong = {**case(inputs=105).arguments(), "algorithm": "persistent:row_tiles=1000"}
    if DEVICE == "cpu":
        wrong = {**wrong, "algorithm": "neither"}

    def call():
        with pytest.raises(ValueError, match="algorithm|row_tiles"):
            kernels.forward(**wrong)

    assert made(lambda: [call(), call()]) == 0


# A small product, and one of oneDNN's, whose primitives the threads share.
@pytest.mark.parametrize(("hidden", "rows"), [(3, 2), (96, 16)])
def test_threads_share_a_plan(hidden, rows):
    if hidden == 96 and DEVICE == "cuda":
        pytest.skip("about oneDNN")
    sizes = {"inputs": 106, "hidden": hidden, "rows": rows}
    cases = [case(**sizes, seed=seed) for seed in range(8)]
    results = [None] * len(cases)
    together = threading.Barrier(len(cases))

    def work(i):
        together.wait()
        results[i] = [run(cases[i]) for _ in range(5)]

    def call():
        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(cases))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert made(call) == 1
    for the_case, found in zip(cases, results):
        wanted = get(run(the_case).output)
        for result in found:
            np.testing.assert_array_equal(get(result.output), wanted)


def test_the_plans_used_last_are_kept():
    used, unused = case(inputs=107), case(inputs=108)
    run(used)
    run(unused)
    for inputs in range(200, 200 + KEPT - 1):
        run(case(inputs=inputs, layers=1), reserve=False)
        run(used)
    assert made(lambda: run(used)) == 0
    assert made(lambda: run(unused)) == 1


def test_a_plan_says_how_it_runs():
    text = plans.reason("gru", 6, 2, 5, 4, layers=2, reserve=True, device=PLACE)
    lines = text.splitlines()
    assert len(lines) == 4
    assert all(" product" in line for line in lines) or DEVICE == "cuda"
    assert lines[1].startswith("first layer, backward: ")


def test_both_languages_count_the_same_gates():
    assert _native.library().build_info()["gates"] == cell.GATES
