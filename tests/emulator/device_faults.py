"""What a GPU may lack or fail at, and a caller ask too much of: on the emulated one.

run.py runs this file.
"""

from __future__ import annotations

import re
import subprocess
import sys

import emulated
import numpy as np
import pytest
import reference as ref
from kernel_cases import DTYPES, KernelCase, assert_agrees, compare, persistent

from fastrnn import kernels


@pytest.mark.parametrize("directions", [1, 2])
def test_one_step_reads_each_weight_once(directions):
    arguments = KernelCase(
        "lstm", 1, 1, 40, 33, directions, device="cuda", dtype="float16"
    ).arguments()
    weights = arguments["weights"]
    before = [emulated.factor_uses(w) for w in weights]
    kernels.forward(**arguments)
    uses = [emulated.factor_uses(w) - n for w, n in zip(weights, before)]
    assert uses == [1, 1, 0, 0] * directions


@pytest.mark.parametrize(
    "capability, dtype, message",
    [
        (
            61,
            "float32",
            r"device 0 \(emulator\) has compute capability 6.1, expected 7.0 or higher",
        ),
        (75, "bfloat16", r"compute capability 7.5, expected 8.0 or higher for bfloat16"),
    ],
)
def test_devices_that_are_too_old_are_named(capability, dtype, message):
    case = KernelCase("gru", 2, 2, 2, 2, device="cuda", dtype=dtype)
    with emulated.compute_capability(capability), pytest.raises(ValueError, match=message):
        case.forward()
    case.forward()


def test_devices_without_tf32_or_bfloat16_run_the_rest():
    with emulated.compute_capability(70):
        assert_agrees(KernelCase("gru", 2, 2, 33, 20, device="cuda", tf32=True))
        assert_agrees(KernelCase("gru", 2, 2, 2, 2, device="cuda", dtype="float16"))


@pytest.mark.parametrize(("algorithm", "expected"), [("stepwise", 8), ("persistent", 1)])
@pytest.mark.parametrize("mode", ref.MODES)
def test_a_launch_that_fails_does_not_spoil_the_next_call(mode, algorithm, expected):
    # Directions with as many steps are computed at once, on two streams.
    case = KernelCase(mode, 4, 2, 4, 5, 2, device="cuda", lengths=[2, 4], algorithm=algorithm)
    reserve = case.forward(reserve=True).reserve
    for run in (
        lambda: case.forward()[:3],
        lambda: case.backward(reserve).weights,
    ):
        wanted = run()
        launches, failed = 0, True
        while failed:
            launches += 1
            with emulated.failing_launch(launches):
                try:
                    run()
                    failed = False
                except RuntimeError as error:
                    assert "too many resources requested for launch" in str(error)
            assert emulated.last_error() == 0
        assert launches > expected  # every one has failed once
        for again, before in zip(run(), wanted):
            assert before is None or np.array_equal(again, before)


REFUSALS = [
    (emulated.COOPERATIVE_LAUNCH_TOO_LARGE, {"cluster": 0}),
    (emulated.COOPERATIVE_LAUNCH_TOO_LARGE, {"cluster": 1}),
    (emulated.INVALID_CLUSTER_SIZE, {"cluster": 1}),
    (emulated.OUT_OF_RESOURCES, {"cluster": 1}),
]


def refuse_each_launch(case, error, least):
    """Fail unless each launch but stepwise ones, of which there are `least`, can be refused."""
    right = case.forward(reserve=True)

    def both():
        result = case.forward(reserve=True)
        compare(case, result, case.backward(result.reserve))

    for pass_ in (both, lambda: compare(case, right, case.backward(right.reserve))):
        launch, replaced = 0, 0
        while True:
            launch, before = launch + 1, emulated.launches()
            with emulated.failing_launch(launch, error):
                try:
                    pass_()
                    replaced += 1
                except RuntimeError:
                    pass  # of a kernel that is not cooperative, or not in clusters
            assert emulated.last_error() == 0
            if emulated.launches() - before < launch:
                break
        assert replaced - 1 >= least  # the last time nothing was refused


# In these two, 14 steps are three launches at least. The choice is free: what is asked for in so
# many words is an error where it cannot be.
@pytest.mark.parametrize(("error", "numbers"), REFUSALS)
@pytest.mark.parametrize("mode", ["lstm", "gru"])
def test_a_refused_launch_is_replaced(mode, error, numbers):
    algorithm = persistent(batch_tiles=2, backward_row_tiles=4, split=4, **numbers)
    algorithm = algorithm.replace("persistent", "auto")
    options = {"lengths": [14, 0, 9], "dtype": "float16", "algorithm": algorithm}
    case = KernelCase(mode, 14, 3, 4, 40, device="cuda", **options)
    refuse_each_launch(case, error, 3)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("mode", ref.MODES)
def test_a_launch_that_is_refused_for_the_later_rows_is_replaced(mode, directions):
    # 11 rows are two launches. The steps of cells with one gate are one chunk of time, of which
    # directions are launched at once.
    lengths = [14, 0, 9, 13, 2, 14, 1, 12, 13, 0, 14]
    options = {"lengths": lengths, "dtype": "float16", "algorithm": "auto:batch_tiles=1,groups=1"}
    case = KernelCase(mode, 14, 11, 4, 20, directions, device="cuda", **options)
    least = 6 if mode.startswith("rnn") else 6 * directions
    refuse_each_launch(case, emulated.COOPERATIVE_LAUNCH_TOO_LARGE, least)


@pytest.mark.parametrize(("error", "numbers"), REFUSALS)
def test_a_refused_launch_is_an_error_where_it_was_asked_for(error, numbers):
    algorithm = persistent(batch_tiles=2, backward_row_tiles=4, split=4, **numbers)
    case = KernelCase("lstm", 3, 3, 4, 40, device="cuda", dtype="float16", algorithm=algorithm)
    reserve = case.forward(reserve=True).reserve
    passes = [lambda: case.backward(reserve)]
    if error != emulated.OUT_OF_RESOURCES:  # which is for clusters alone, and backward has them
        passes.append(case.forward)
    for run in passes:
        with emulated.failing_launch(1, error), pytest.raises(
            ValueError, match=r"algorithm is persistent, but the device has no room for \d+ blocks"
        ):
            run()
        assert emulated.last_error() == 0


@pytest.mark.parametrize(
    "environment, message",
    [
        ({"FASTRNN_CUBLAS": "/nowhere/libcublas.so"}, "usable cuBLAS:\n  /nowhere/libcublas.so: "),
        ({"FASTRNN_CUBLAS": np.__file__}, "__init__.py: .*invalid ELF header"),
        ({"FASTRNN_EMULATED_CUBLAS_VERSION": "0"}, "says that its version is 0, expected 11 or"),
        (
            {"FASTRNN_CUBLAS": None},
            "FASTRNN_CUBLAS may name one.*libcublas.so.11: not in|cublasCreate",
        ),
    ],
)
def test_a_library_that_is_no_cublas_is_named(environment, message):
    # In a process of its own: a library that was loaded stays.
    program = (
        "import emulated_library, kernel_cases, os\n"
        f"for name, value in {environment!r}.items():\n"
        "    os.environ.pop(name, None) if value is None else os.putenv(name, value)\n"
        "case = kernel_cases.KernelCase('lstm', 1, 1, 1, 1, device='cuda')\n"
        "for _ in range(2):\n"
        "    try:\n        case.forward()\n"
        "    except RuntimeError as error:\n        print(error)\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    first, second = output[: len(output) // 2], output[len(output) // 2 :]
    assert first == second  # the next call tries again
    assert re.search(message, first, re.DOTALL), first


@pytest.mark.parametrize(
    "sizes, message",
    [
        ((2**40, 2**20, 1, 1), "the number of values of the input overflows|gates overflows"),
        ((1, 2**31, 1, 1), "batch size is 2147483648, expected at most 2147483647"),
        ((1, 1, 2**31, 1), "input size is 2147483648, expected at most"),
        ((1, 1, 1, 2**29), "the number of values of the weights overflows 64 bits"),
    ],
)
def test_sizes_beyond_what_the_kernels_count_are_named(sizes, message):
    with pytest.raises(ValueError, match=message):
        emulated.workspace_bytes("lstm", "float32", sizes)


@pytest.mark.parametrize("dtype", DTYPES["cuda"])
def test_workspaces_do_not_grow_with_time(dtype):
    for mode in ref.MODES:
        assert emulated.workspace_bytes(mode, dtype, (10**6, 32, 250, 1000)) == (
            emulated.workspace_bytes(mode, dtype, (10**4, 32, 250, 1000))
        )
