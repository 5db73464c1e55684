"""What the backend asks of CUDA and cuBLAS, as far as no result shows it.

run.py runs this file on an emulated build.
"""

from __future__ import annotations

import contextlib
import ctypes
from functools import partial

import emulated
import numpy as np
import pytest
from emulated import capture, in_new_thread
from kernel_cases import KernelCase, persistent

from fastrnn import kernels

LIBRARY, CUBLAS = emulated.LIBRARY, emulated.CUBLAS
LIBRARY.emulator_waits.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
ANY = ctypes.c_void_p(-1)
LEGACY, FIRST, SECOND = 0, 0x1000, 0x2000  # addresses of streams, which the emulator does not read


@contextlib.contextmanager
def waits(stream, other):
    """Count how often a stream is made to wait for another one."""
    before = LIBRARY.emulator_waits(stream, other)
    counted = []
    yield counted
    counted.append(LIBRARY.emulator_waits(stream, other) - before)


def case(mode="lstm", **options):
    return KernelCase(mode, 3, 2, 4, 5, 2, device="cuda", **options)


# ---- streams ------------------------------------------------------------------------------------


def test_a_stream_waits_for_what_another_one_computes():
    arguments = case().arguments()
    result = kernels.forward(**arguments, reserve=True, stream=FIRST)
    with waits(SECOND, FIRST) as counted:
        result.output.__dlpack__(stream=SECOND)
        result.output.__dlpack__(stream=-1)
    assert counted == [1]
    with waits(SECOND, FIRST) as counted:
        kernels.backward(result.reserve, result.output, stream=SECOND)
    assert counted == [3]  # output, once more as its own gradient, and the reserve


def test_a_stream_waits_for_a_copy_from_the_host():
    # CUDA says that a copy is out of the host's array, not that it has arrived.
    array = kernels.to_device(np.ones(3, np.float32))
    with waits(FIRST, LEGACY) as counted:
        array.__dlpack__(stream=FIRST)
    assert counted == [1]


def test_arrays_are_given_back_after_the_work_that_reads_them():
    arguments = case(lengths=[3, 1]).arguments()
    result = kernels.forward(**arguments, reserve=True, stream=FIRST)
    with waits(LEGACY, FIRST) as counted:
        del arguments  # the reserve holds them
    assert counted == [0]
    gradient = kernels.to_device(np.zeros((3, 2, 10), np.float32))
    gradients = kernels.backward(result.reserve, gradient, stream=SECOND)
    with waits(LEGACY, FIRST) as by_forward, waits(LEGACY, SECOND) as by_backward:
        del result, gradient
    assert by_forward == [16]  # x, weights, two states, lengths; output, two states and the reserve
    assert by_backward == [15]  # not the final states, but the gradient
    with waits(LEGACY, SECOND) as counted:
        del gradients
    assert counted == [11]


def test_many_calls_on_one_stream_are_one_wait():
    arguments = case().arguments()
    for _ in range(5):
        kernels.forward(**arguments, stream=FIRST)
    with waits(LEGACY, FIRST) as counted:
        del arguments
    assert counted == [11]


def test_nobody_waits_for_a_copy_with_python_locked():
    array = kernels.to_device(np.ones(3, np.float32))
    assert not LIBRARY.emulator_copied_with_python_locked()
    kernels.to_host(array)
    assert not LIBRARY.emulator_copied_with_python_locked()


def test_arrays_are_written_to_after_the_work_that_reads_them():
    arguments = case().arguments()
    out = kernels.forward(**arguments, reserve=True, stream=FIRST)
    kernels.backward(out.reserve, out.output, stream=SECOND)
    with waits(FIRST, SECOND) as counted:
        kernels.forward(**arguments, reserve=True, stream=FIRST, out=out)
    # The weights, x and states are not written; output and reserve are read by backward.
    assert counted == [2]


@pytest.mark.parametrize(
    ("steps", "expected"), [(4, ((1, 1), (1, 2))), (3, ((0, 0), (0, 0))), (50, ((1, 1), (0, 0)))]
)
def test_directions_meet_on_the_callers_stream(steps, expected):
    # The side follows the caller's stream once, and backward once more, to add to dx; at the end it
    # is the other way round. 3 steps are too few for that, and 50 are several chunks of time, of
    # which backward takes one direction after the other.
    both = KernelCase("gru", steps, 2, 4, 20, 2, device="cuda", algorithm="stepwise")
    arguments = both.arguments()

    def counts():
        return LIBRARY.emulator_waits(FIRST, ANY), LIBRARY.emulator_waits(ANY, FIRST)

    before = counts()
    result = kernels.forward(**arguments, reserve=True, stream=FIRST)
    between = counts()
    gradients = kernels.backward(result.reserve, result.output, stream=FIRST)
    after = counts()
    assert gradients.x is not None  # dropped, they would be waited for
    # Weights, x and a state were copied from the host; forward made output (twice) and reserve.
    copied, own = 8 + 2, 3
    assert (between[0] - before[0] - copied, between[1] - before[1]) == expected[0]
    assert (after[0] - between[0] - copied - own, after[1] - between[1] - own) == expected[1]


@pytest.mark.parametrize("launches", [1, 2, 5])
def test_directions_meet_on_the_callers_stream_also_after_an_error(launches):
    # What the side was given before is not to outlast the caller's arrays.
    arguments = KernelCase("gru", 4, 2, 4, 20, 2, device="cuda", algorithm="stepwise").arguments()
    out = kernels.forward(**arguments, stream=FIRST)
    with waits(FIRST, ANY) as wanted:
        kernels.forward(**arguments, stream=FIRST, out=out)
    with waits(FIRST, ANY) as counted, emulated.failing_launch(launches), pytest.raises(
        RuntimeError
    ):
        kernels.forward(**arguments, stream=FIRST, out=out)
    assert counted == wanted


# ---- capture into a CUDA graph ------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["stepwise", "persistent"])
@pytest.mark.parametrize("mode", ["lstm", "gru", "rnn_tanh"])
def test_calls_can_be_captured(mode, algorithm):
    both = KernelCase(mode, 5, 2, 4, 5, 2, device="cuda", algorithm=algorithm, lengths=[3, 5])
    arguments = both.arguments()
    out = kernels.forward(**arguments, reserve=True, stream=FIRST)
    gradients = kernels.backward(out.reserve, out.output, stream=FIRST)
    before = kernels.to_host(out.output)
    arguments.update(h_0=None, c_0=None)  # zeros are made on the way
    with capture(FIRST):
        result = kernels.forward(**arguments, reserve=True, stream=FIRST, out=out)
        kernels.backward(result.reserve, out.output, stream=FIRST, out=gradients)
        assert np.array_equal(kernels.to_host(out.output), before)  # nothing is done yet
        emulated.write(arguments["x"], both.x[::-1])
    wanted = kernels.forward(**arguments, reserve=True, stream=FIRST)
    wanted_gradients = kernels.backward(wanted.reserve, wanted.output, stream=FIRST)
    found = [out.output, out.h_n, gradients.x, *gradients.weights]
    others = [wanted.output, wanted.h_n, wanted_gradients.x, *wanted_gradients.weights]
    for a, b in zip(found, others):
        assert np.array_equal(kernels.to_host(a), kernels.to_host(b))


def test_a_thread_that_computed_nothing_cannot_capture():
    arguments = case(algorithm="stepwise").arguments()
    out = kernels.forward(**arguments, stream=FIRST)

    def run():
        with capture(FIRST), pytest.raises(ValueError, match="make the same call once before"):
            kernels.forward(**arguments, stream=FIRST, out=out)
        return True

    assert in_new_thread(run)


def test_what_a_failed_call_has_begun_to_write_is_kept_until_that_is_done():
    arguments = case(algorithm="stepwise").arguments()
    out = kernels.forward(**arguments, stream=FIRST)
    with emulated.failing_launch(2), pytest.raises(RuntimeError):
        kernels.forward(**arguments, stream=SECOND, out=out)
    with waits(LEGACY, SECOND) as counted:
        del out
    assert counted == [3]  # output, h_n and c_n


def test_a_capture_needs_arrays_to_write_to():
    arguments = case().arguments()
    result = kernels.forward(**arguments, reserve=True, stream=FIRST)
    for run in (
        lambda: kernels.forward(**arguments, stream=FIRST),
        lambda: kernels.backward(result.reserve, result.output, stream=FIRST),
    ):
        with capture(FIRST), pytest.raises(ValueError, match="stream is being captured .* as out"):
            run()


# ---- devices ------------------------------------------------------------------------------------


def on_device(arguments, device):
    """Copy what `KernelCase.arguments` made to another device."""

    def copy(value):
        if isinstance(value, list):
            return [copy(item) for item in value]
        moves = hasattr(value, "__dlpack__")
        return kernels.to_device(kernels.to_host(value), device=device) if moves else value

    return {name: copy(value) for name, value in arguments.items()}


def test_work_is_done_on_the_arrays_device():
    arguments = case().arguments()
    wanted = kernels.to_host(kernels.forward(**arguments).output)
    before = [LIBRARY.emulator_launches(device) for device in range(2)]
    result = kernels.forward(**on_device(arguments, 1), reserve=True)
    kernels.backward(result.reserve, result.output)
    assert (result.output.device, result.output.__dlpack_device__()) == (1, (2, 1))
    assert np.array_equal(kernels.to_host(result.output), wanted)
    assert LIBRARY.emulator_launches(0) == before[0]
    assert LIBRARY.emulator_launches(1) > before[1]
    assert LIBRARY.emulator_current_device() == 0


def test_each_device_is_asked_for_much_shared_memory():
    # CUDA refuses a launch with more than 48 KiB until the device has allowed it to the kernel.
    algorithm = persistent(batch_tiles=1, row_tiles=4, backward_row_tiles=4, split=4, cluster=0)
    options = {"tf32": False, "algorithm": algorithm}
    large = KernelCase("lstm", 2, 3, 4, 128, device="cuda", **options)
    plan = kernels.plan("lstm", 2, 3, 128, **options, device=0)
    assert min(plan.forward.shared_bytes, plan.backward.shared_bytes) > 48 << 10
    arguments = large.arguments()
    for device in range(2):
        result = kernels.forward(**on_device(arguments, device), reserve=True)
        kernels.backward(result.reserve, result.output)


def test_the_device_is_restored_after_an_error():
    arguments = on_device(case(algorithm="stepwise").arguments(), 1)
    with emulated.failing_launch(2), pytest.raises(RuntimeError):
        kernels.forward(**arguments)
    assert LIBRARY.emulator_current_device() == 0


def test_arrays_on_two_devices_are_named():
    arguments = case().arguments()
    arguments["h_0"] = on_device(arguments, 1)["h_0"]
    with pytest.raises(ValueError, match="h_0 is on cuda:1, expected cuda:0, where x is"):
        kernels.forward(**arguments)


# ---- cuBLAS -------------------------------------------------------------------------------------


def test_there_is_one_handle_for_each_device_and_thread():
    first = case().arguments()
    second = on_device(first, 1)
    kernels.forward(**first)

    def handles():
        found = [CUBLAS.emulator_handles()]
        for arguments in (first, first, second, second):
            kernels.forward(**arguments)
            found.append(CUBLAS.emulator_handles())
        return [n - found[0] for n in found]

    before = CUBLAS.emulator_handles()
    assert in_new_thread(handles) == [0, 1, 1, 2, 2]
    assert CUBLAS.emulator_handles() == before


def test_a_call_of_cublas_that_fails_does_not_spoil_the_next_one():
    arguments = case(algorithm="stepwise").arguments()
    wanted = kernels.to_host(kernels.forward(**arguments).output)

    def fails(calls):
        """Whether the call failed that is so many calls of a new handle away."""
        CUBLAS.emulator_fail_blas(calls)
        try:
            kernels.forward(**arguments)
            failed = False
        except RuntimeError as error:
            assert "cublas" in str(error)
            failed = True
        CUBLAS.emulator_fail_blas(0)
        assert np.array_equal(kernels.to_host(kernels.forward(**arguments).output), wanted)
        return failed

    calls = 1
    while in_new_thread(partial(fails, calls)):
        calls += 1
    assert calls > 4 + 2 * 4  # the handle, its settings, and the products of both directions
