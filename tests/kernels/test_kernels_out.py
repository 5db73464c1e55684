"""fastrnn.kernels writing to arrays that the caller brings."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from kernel_cases import PLACES, KernelCase, devices, get

from fastrnn import kernels

if not devices():
    pytest.skip("no kernels", allow_module_level=True)

DEVICE = devices()[-1]  # a GPU before the CPU


def arrays(result):
    """Return the arrays of a `Result` or of `Gradients` that are there, on the host."""
    found = [*result[:3], *(result.weights if isinstance(result, kernels.Gradients) else ())]
    return [np.array(get(array)) for array in found if array is not None]


@pytest.mark.parametrize(("device", "dtype"), PLACES)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("mode", ref.MODES)
def test_arrays_are_written_to_again(mode, directions, device, dtype):
    first, second = (
        KernelCase(mode, 3, 2, 4, 5, directions, seed, device, dtype, algorithm="stepwise")
        for seed in (0, 1)
    )
    result = kernels.forward(**first.arguments(), reserve=True)
    gradients = kernels.backward(result.reserve, first.put(first.d_output))
    of_first = arrays(result) + arrays(gradients)
    wanted = kernels.forward(**second.arguments(), reserve=True)
    wanted_gradients = kernels.backward(wanted.reserve, second.put(second.d_output))

    again = kernels.forward(**second.arguments(), reserve=True, out=result)
    assert again.output is result.output
    assert again.reserve.values is result.reserve.values
    found = kernels.backward(again.reserve, second.put(second.d_output), out=gradients)
    assert found.x is gradients.x
    of_second = arrays(again) + arrays(found)
    for a, b in zip(of_second, arrays(wanted) + arrays(wanted_gradients)):
        assert np.array_equal(a, b)
    assert not any(np.array_equal(a, b) for a, b in zip(of_first, of_second))


def test_inference_needs_no_reserve_to_write_to():
    case = KernelCase("lstm", 3, 2, 4, 5, device=DEVICE)
    out = kernels.forward(**case.arguments())
    assert kernels.forward(**case.arguments(), out=out).reserve is None
    with_reserve = kernels.forward(**case.arguments(), reserve=True)
    assert kernels.forward(**case.arguments(), out=with_reserve).reserve is None


def test_arrays_that_cannot_be_written_to_are_named():
    case, other = (KernelCase("lstm", 3, n, 4, 5, device=DEVICE) for n in (2, 3))
    arguments = case.arguments()
    out = kernels.forward(**arguments, reserve=True)
    gradients = kernels.backward(out.reserve, case.put(case.d_output))

    def fails(error, message, **changes):
        with pytest.raises(error, match=message):
            kernels.forward(**{**arguments, "reserve": True, "out": out, **changes})

    fails(TypeError, "out is of type tuple, expected a Result", out=tuple(out))
    fails(TypeError, "out.reserve is of type NoneType", out=out._replace(reserve=None))
    wrong = out._replace(output=other.put(other.d_output))
    fails(ValueError, r"out.output is of shape \(3, 3, 5\), expected shape \(3, 2, 5\)", out=wrong)
    fails(TypeError, "out.c_n is of type NoneType", out=out._replace(c_n=None))
    fails(
        ValueError,
        "out.h_n is in the same memory as h_0, expected an array of its own",
        h_0=out.h_n,
    )
    fails(ValueError, "out.h_n is in the same memory as out.c_n", out=out._replace(c_n=out.h_n))
    if DEVICE == "cuda":
        on_host = out._replace(output=np.zeros((3, 2, 5), np.float32))
        fails(ValueError, "out.output is on the CPU, expected cuda:0", out=on_host)
    with pytest.raises(TypeError, match="out is of type Result, expected Gradients"):
        kernels.backward(out.reserve, case.put(case.d_output), out=out)
    with pytest.raises(ValueError, match="out.weights has 3 arrays, expected 4"):
        short = gradients._replace(weights=gradients.weights[:3])
        kernels.backward(out.reserve, case.put(case.d_output), out=short)
    with pytest.raises(
        ValueError, match=r"out.weights\[2\] is of shape .*, expected shape \(20,\)"
    ):
        weights = [*gradients.weights[:2], gradients.x, gradients.weights[3]]
        kernels.backward(
            out.reserve, case.put(case.d_output), out=gradients._replace(weights=weights)
        )


@pytest.mark.skipif("cpu" not in devices(), reason="no kernels for the CPU")
def test_mxnet_is_told_that_its_array_is_written_to():
    # It then waits for those who read the array, and not only for who has written it.
    class Array:
        def __init__(self, array):
            self.array, self.asked = array, []

        def to_dlpack_for_read(self):
            self.asked.append("read")
            return self.array.__dlpack__()

        def to_dlpack_for_write(self):
            self.asked.append("write")
            return self.array.__dlpack__()

    if not hasattr(np.ndarray, "__dlpack__"):
        pytest.skip("this NumPy has no DLPack")
    case = KernelCase("gru", 3, 2, 4, 5)
    arguments = case.arguments()
    wanted = kernels.forward(**arguments)
    x, output = Array(arguments["x"]), Array(np.zeros_like(wanted.output))
    kernels.forward(**{**arguments, "x": x}, out=wanted._replace(output=output, h_n=case.h_0 * 0))
    assert (x.asked, output.asked) == (["read"], ["write"])
    assert np.array_equal(output.array, wanted.output)


@pytest.mark.skipif("cpu" not in devices(), reason="no kernels for the CPU")
def test_read_only_arrays_are_named():
    case = KernelCase("gru", 3, 2, 4, 5)
    out = kernels.forward(**case.arguments())
    out.output.flags.writeable = False
    with pytest.raises(ValueError, match="out.output is read-only, expected an array to write to"):
        kernels.forward(**case.arguments(), out=out)
