"""fastrnn.kernels on a GPU, or on the emulator: DeviceArray, streams, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from kernel_cases import KernelCase, devices, put, rounded

from fastrnn import _native, kernels

if "cuda" not in devices():
    pytest.skip("no CUDA kernels, or no GPU", allow_module_level=True)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
def test_arrays_go_to_the_device_and_back(dtype):
    array = np.arange(12).reshape(3, 4).astype(dtype)
    copy = kernels.to_device(array)
    assert (copy.shape, copy.dtype, copy.device) == ((3, 4), dtype, 0)
    assert copy.__dlpack_device__() == (2, 0)
    back = kernels.to_host(copy)
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)
    assert np.array_equal(kernels.to_host(kernels.to_device(array.T)), array.T)


def test_the_pool_tells_what_arrays_have():
    library = _native.library()
    before, _ = library.pool_bytes(0, True)
    array = kernels.to_device(np.zeros(1 << 18, np.float32))
    other = kernels.to_device(np.zeros(1 << 18, np.float32))
    del other
    kernels.to_host(array)  # in the order of streams, that is where it is given back
    now, most = library.pool_bytes(0, False)
    assert now - before == 1 << 20
    assert most - before == 2 << 20
    del array
    kernels.to_host(kernels.to_device(np.zeros(1, np.float32)))
    assert library.pool_bytes(0, True) == (before,) * 2


def test_bfloat16_is_rounded_to_even():
    values = np.array([1.0, 1.00390625, 1.01171875, -3.3, 1e-40, np.inf, np.nan], np.float32)
    back = kernels.to_host(kernels.to_device(values, "bfloat16"))
    assert np.array_equal(back[:3], np.array([1.0, 1.0, 1.015625], np.float32))
    assert np.array_equal(back[:-1], rounded(values, "bfloat16")[:-1])
    assert np.isnan(back[-1])


def test_an_exported_array_outlives_its_owner():
    class Exported:
        def __init__(self, array, stream):
            self.capsule = array.__dlpack__(stream=stream)

        def __dlpack__(self, **_):
            return self.capsule

        def __dlpack_device__(self):
            return 2, 0

    numbers = np.linspace(-1, 1, 5, dtype=np.float32).reshape(1, 1, 5)
    weights = [np.eye(5), np.zeros((5, 5)), np.zeros(5), np.zeros(5)]
    weights = [kernels.to_device(w.astype(np.float32)) for w in weights]
    for stream in (1, -1):
        exported = Exported(kernels.to_device(numbers), stream)
        others = [kernels.to_device(np.zeros_like(numbers)) for _ in range(20)]
        output = kernels.forward("rnn_tanh", exported, weights, tf32=False).output
        ref.assert_close(kernels.to_host(output), np.tanh(numbers.astype(np.float64)), "output")
        assert len(others) == 20


@pytest.mark.parametrize("wanted", [{"copy": True}, {"dl_device": (1, 0)}])
def test_an_array_is_exported_as_it_is_or_not_at_all(wanted):
    array = kernels.to_device(np.ones(5, np.float32))
    with pytest.raises(BufferError, match="shared as it is"):
        array.__dlpack__(**wanted)
    array.__dlpack__(dl_device=(2, 0), copy=False, max_version=(1, 0))


class Stream:
    def __init__(self, name, address):
        setattr(self, name, address)


@pytest.mark.parametrize("stream", [None, 0, 1, Stream("cuda_stream", 0), Stream("ptr", 0)])
def test_streams_come_as_addresses_or_objects(stream):
    case = KernelCase("gru", 4, 3, 2, 5, device="cuda")
    expected = case.forward(reserve=True)
    result = case.forward(stream=stream)
    assert np.array_equal(result.output, expected.output)
    kernels.backward(expected.reserve, case.put(case.d_output), stream=stream)


@pytest.mark.parametrize("stream", [-1, 2**63])
def test_what_is_no_streams_address_is_named(stream):
    case = KernelCase("gru", 4, 3, 2, 5, device="cuda")
    with pytest.raises(ValueError, match=f"stream is {stream}, expected the address of a CUDA"):
        case.forward(stream=stream)


class Producer:
    """An array that notes the stream on which it is to be ready."""

    def __init__(self, array):
        self.array, self.streams = array, []
        self.__dlpack_device__ = array.__dlpack_device__

    def __dlpack__(self, *, stream=None):
        self.streams.append(stream)
        return self.array.__dlpack__(stream=stream)


@pytest.mark.parametrize("stream, number", [(None, 1), (0, 1), (1, 1), (2, 2)])
def test_arrays_are_asked_for_on_the_stream(stream, number):
    case = KernelCase("gru", 4, 3, 2, 5, device="cuda")
    producer = Producer(case.put(case.x))
    case.forward(x=producer, stream=stream)
    assert producer.streams == [number]


@pytest.mark.parametrize("stream, error", [(-2, ValueError), ("0", TypeError), (True, TypeError)])
def test_streams_that_consumers_cannot_mean_are_named(stream, error):
    array = kernels.to_device(np.ones(5, np.float32))
    with pytest.raises(error, match="stream is .*expected "):
        array.__dlpack__(stream=stream)


@pytest.mark.parametrize("stream", ["0", 1.0, True])
def test_what_is_no_stream_is_named(stream):
    case = KernelCase("gru", 4, 3, 2, 5, device="cuda")
    with pytest.raises(TypeError, match="stream is of type .*expected a CUDA stream"):
        case.forward(stream=stream)


HALF, FLOAT = np.float16, np.float32


def on_gpu(shape, dtype):
    return kernels.to_device(np.zeros(shape, dtype))


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"x": on_gpu((4, 3, 2), "i4")},
            "x is of dtype int32, expected float32, ",
        ),
        ({"h_0": np.zeros((1, 3, 5), FLOAT)}, "h_0 is on the CPU, expected cuda:0, where x is"),
        (
            {"h_0": on_gpu((1, 3, 5), HALF)},
            "h_0 is of dtype float16, expected float32",
        ),
        ({"c_0": on_gpu((1, 3, 6), FLOAT)}, r"c_0 is of shape \(1, 3, 6\)"),
        ({"lengths": np.zeros(3, "i4")}, "lengths is on the CPU, expected cuda:0"),
        (
            {"lengths": on_gpu(3, FLOAT)},
            "lengths is of dtype float32, expected int32",
        ),
        (
            {"lengths": on_gpu(4, "i4")},
            r"lengths is of shape \(4,\), expected .*\(3,\)",
        ),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        KernelCase("lstm", 4, 3, 2, 5, device="cuda").forward(**change)


def test_mixed_types_and_devices_of_weights_are_named():
    case = KernelCase("lstm", 4, 3, 2, 5, device="cuda")
    weights = case.arguments()["weights"]
    wrong = put(case.weights[3], "cuda", "float16")
    with pytest.raises(ValueError, match=r"weights\[3\] \(h2h_bias\) is of dtype float16"):
        case.forward(weights=[*weights[:3], wrong])
    with pytest.raises(ValueError, match=r"weights\[0\] \(i2h_weight\) is on the CPU"):
        case.forward(weights=case.weights)
    reserve = case.forward(reserve=True).reserve
    with pytest.raises(ValueError, match="d_output is on the CPU"):
        kernels.backward(reserve, case.d_output)


@pytest.mark.parametrize("device", [-1, 99])
def test_a_device_that_is_none(device):
    with pytest.raises(ValueError, match=f"device is {device}, expected one of CUDA's"):
        kernels.to_device(np.ones(3, FLOAT), device=device)


def test_what_cannot_go_to_the_device_is_named():
    with pytest.raises(ValueError, match="dtype is 'float64', expected float32"):
        kernels.to_device(np.ones(3))
    with pytest.raises(ValueError, match="dtype is 'bf16', expected float32"):
        kernels.to_device(np.ones(3), "bf16")
    with pytest.raises(TypeError, match="array is of type list, expected a NumPy array"):
        kernels.to_device([1.0])
    with pytest.raises(TypeError, match="array is of type ndarray, expected a DeviceArray"):
        kernels.to_host(np.ones(3))


def test_an_array_without_dimensions_stays_one():
    for dtype in (None, "bfloat16"):
        assert kernels.to_device(np.array(3, FLOAT), dtype).shape == ()
