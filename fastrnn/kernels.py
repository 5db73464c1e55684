"""The kernels without a framework: recurrent layers, forward and backward.

Arrays may come from any library that supports DLPack (NumPy, PyTorch, CuPy) and from MXNet, or be
DLPack's capsules, which must be ready on the call's stream. They are dense, row-major, of one type
and on one device; nothing is copied or converted implicitly. On the CPU the type is float32,
float64, float16 or bfloat16, and results are new NumPy arrays; in bfloat16, which NumPy lacks, a
call needs arrays to write to (`out`). On an NVIDIA GPU it is float32 or float16 (compute capability
7.0 and higher) or bfloat16 (8.0), results are new `DeviceArray`, and calls return before the work
is done.

A call keeps the memory of each `DeviceArray` until its work is done. A library that shares the
memory and works on another stream must keep the array itself. If you pass another library's array
and a stream that is not the array's own, you must keep the array too, for example with PyTorch's
`Tensor.record_stream`.

T steps, N rows, I inputs, H hidden units, P outputs (H, unless an LSTM is projected), G gates (LSTM
4: i, f, g, o; GRU 3: r, z, n; RNN 1), D directions (1 or 2), L layers.

    result = forward("lstm", x, weights, reserve=True)
    gradients = backward(result.reserve, d_output)
    output = torch.from_dlpack(result.output)

Calls can be captured into a CUDA graph (CUDA 11.4 and newer: workspaces become the graph's own
memory) on a stream that does not wait for the legacy default stream, as PyTorch's graphs do. A
captured call needs arrays to write to (`out`). Make the same call once before, in the same thread:
it sets up what a capture cannot. All arrays must be ready when the graph is launched, and must live
as long as the graph. Until the capture ends, create and free no other arrays, and make no call in
this thread that is not captured.
"""

from __future__ import annotations

import sys
from typing import Any, List, NamedTuple, Optional, Sequence

import numpy as np

from . import _native
from .cell import Clip, Noise, checked_clip, checked_flag, checked_noise
from .plans import plan

_MOST_LAYERS = 2**16  # far from an overflow of what counts weights
_HOST, _CUDA = 1, 2  # DLPack's numbers of kinds of devices
_HOST_TYPES = ("float32", "float16", "int32")  # the device types that NumPy has

__all__ = [
    "Clip",
    "Gradients",
    "Noise",
    "Reserve",
    "Result",
    "backward",
    "forward",
    "plan",
    "to_device",
    "to_host",
]


class Reserve(NamedTuple):
    """What `backward` needs from a forward call. It holds the arrays themselves, not copies.

    Attributes
    ----------
    mode, x, h_0, c_0, weights, layers, lengths, projected, clip, noise, layer_norm
        The arguments of the call.
    seed, tf32, algorithm
        Further arguments of the call; the seed as an array.
    output : array [T, N, D*P]
        Its output.
    values : array of float32
        What the cells keep of each step, and the outputs of all layers but the last.
    """

    mode: str
    x: Any
    h_0: Optional[Any]
    c_0: Optional[Any]
    weights: Sequence[Any]
    layers: int
    lengths: Optional[Any]
    projected: bool
    clip: Optional[Clip]
    noise: Optional[Noise]
    seed: Optional[Any]
    layer_norm: bool
    tf32: Optional[bool]
    algorithm: Optional[str]
    output: Any
    values: Any


class Result(NamedTuple):
    """Results of `forward`: NumPy arrays, or on a GPU `DeviceArray`.

    Attributes
    ----------
    output : array [T, N, D*P]
        Output of the last layer, the forward direction's P first.
    h_n : array [L*D, N, P]
        Hidden states after the last step of each layer and direction.
    c_n : array [L*D, N, H] or None
        Cell states, LSTM only.
    reserve : Reserve or None
        With ``reserve=True``, what `backward` needs.
    """

    output: Any
    h_n: Any
    c_n: Optional[Any]
    reserve: Optional[Reserve]


class Gradients(NamedTuple):
    """Results of `backward`.

    Attributes
    ----------
    x : array [T, N, I]
        Gradient with respect to the input.
    h_0 : array [L*D, N, P]
        With respect to the initial hidden states.
    c_0 : array [L*D, N, H] or None
        With respect to the initial cell states, LSTM only.
    weights : list of arrays
        With respect to each of the weights, in their order and shapes.
    """

    x: Any
    h_0: Any
    c_0: Optional[Any]
    weights: List[Any]


def _stream_number(stream: Any) -> int:
    """Return the address of a CUDA stream, where 0 is the legacy default stream."""
    for name in ("cuda_stream", "ptr"):  # PyTorch's name, and CuPy's
        stream = getattr(stream, name, stream)
    if stream is None:
        return 0
    if not isinstance(stream, (int, np.integer)) or isinstance(stream, bool):
        raise TypeError(
            f"stream is of type {type(stream).__name__}, expected a CUDA stream: its address, or "
            "an object of PyTorch or CuPy"
        )
    if not 0 <= stream <= sys.maxsize:
        raise ValueError(f"stream is {stream}, expected the address of a CUDA stream")
    return int(stream)


def forward(
    mode: str,
    x: Any,
    weights: Sequence[Any],
    h_0: Optional[Any] = None,
    c_0: Optional[Any] = None,
    *,
    layers: int = 1,
    lengths: Optional[Any] = None,
    projected: bool = False,
    clip: Optional[Clip] = None,
    noise: Optional[Noise] = None,
    seed: Any = None,
    layer_norm: bool = False,
    tf32: Optional[bool] = None,
    algorithm: Optional[str] = None,
    reserve: bool = False,
    out: Optional[Result] = None,
    threads: Optional[int] = None,
    stream: Any = None,
) -> Result:
    """Run layers, one on top of the other, over a sequence.

    The cells are those of cuDNN (NVIDIA, cuDNN API reference, cudnnRNNMode_t): LSTM after
    Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000), GRU after Cho et
    al. (2014), and h = tanh(W x + b + R h + c) or relu of it. The projection is that of Sak et al.
    (2014), the layer normalisation that of Ba et al. (2016, arXiv:1607.06450).

    Parameters
    ----------
    mode : str
        The cell: ``lstm``, ``gru``, ``rnn_tanh`` or ``rnn_relu``. The GRU applies its reset gate
        after the product, as MXNet and cuDNN do.
    x : array [T, N, I]
        The input.
    weights : sequence of arrays
        For each layer, the lowest first, and each of its directions: i2h_weight [G*H, I],
        h2h_weight [G*H, P], i2h_bias [G*H], h2h_bias [G*H] and, if `projected`, h2r_weight [P, H];
        with `layer_norm`, i2h_gamma [G*H], h2h_gamma [G*H] and, for an LSTM, c_gamma [H] and
        c_beta [H]. A layer above the first takes the output of the one below: its I is D*P.
    h_0 : array [L*D, N, P], optional
        Initial hidden states, zero by default.
    c_0 : array [L*D, N, H], optional
        Initial cell states of an LSTM, zero by default.
    layers : int
        The number of layers, L.
    lengths : array [N] of int32, optional
        Each row's number of steps, clamped to 0 to T. Outputs past a row's length are zeros, the
        final states are those after the row's last step, and the reverse direction starts at the
        row's last step.
    projected : bool
        Whether the layers are LSTMs whose h, which is also their output, is r times the transposed
        h2r_weight, where r is what the output is otherwise.
    clip : Clip, optional
        The range of the cell state, for an LSTM only.
    noise : Noise, optional
        Rates of zoneout and of dropout of the state. On a GPU such layers run stepwise.
    seed : int or array [64] of float32, optional
        What draws `noise`: an integer from 0 to 2**64 - 1 or, on the device of `x`, its bits from
        the lowest on, 2 for a one and 0 for a zero. None, or an array of ones, draws nothing: the
        layers are in their inference form. Other numbers are an error, but on a GPU they are not
        noticed. The masks of the generator Philox4x32-7 (Salmon et al. 2011) depend on the seed,
        and on a unit's place in the layers, the batch and time. A call that is captured into a
        CUDA graph takes an array.
    layer_norm : bool
        Whether the layers are normalised, LSTMs or GRUs without `projected`, `clip` and `noise`.
        With LN(a) = (a - mean) / sqrt(variance + 1e-5) over the numbers of a row, the cells see
        i2h_gamma LN(W x) + i2h_bias and h2h_gamma LN(R h) + h2h_bias in the place of the products
        with their biases, and an LSTM's output is o tanh(c_gamma LN(c) + c_beta). An LSTM
        normalises its four gates together; a GRU r and z together, and n by itself. On a GPU such
        layers run stepwise.
    tf32 : bool, optional
        Whether float32 products on a GPU may round their factors to TF32, with 10 bits of mantissa.
        The default is the environment variable FASTRNN_TF32 (0 or 1), or else True.
    algorithm : str, optional
        On a GPU, ``auto``, ``stepwise`` or ``persistent``; see `plan`. The default is the
        environment variable FASTRNN_ALGORITHM, or else ``auto``. An algorithm that cannot run the
        layer is an error; ``auto`` always can. For tests and benchmarks,
        ``persistent:NAME=NUMBER,...`` (or ``auto:``) fixes numbers of the `Plan`: batch_tiles,
        groups, directions, and shared_slices, beyond which a warp streams its weights; forward
        alone: row_tiles, and tagged (0 or 1); backward alone: backward_row_tiles, split, and
        cluster (0 or 1).
    reserve : bool
        Keep what `backward` needs: at most G*H + H values for each step, row and direction of each
        layer, H more if it is projected, up to H + P more with `noise`, 2*G*H + 4 more with
        `layer_norm`, and the outputs of all layers but the last.
    out : Result, optional
        Arrays to write to instead of new ones: the result of an earlier call, or arrays of any
        library, in the right shapes. They must not overlap each other or the inputs. Of its
        reserve, only `values` is used, and only with ``reserve=True``. A call on a stream that is
        being captured requires it. The call waits for other readers of a `DeviceArray` or an MXNet
        array; for arrays of other libraries, the caller must.
    threads : int, optional
        On the CPU, the most threads that the call may use. It never uses more than it does by
        default: one for each physical core, or the number that OMP_NUM_THREADS or
        MXNET_OMP_MAX_THREADS sets; in a forked process one.
    stream : object, optional
        The CUDA stream to work on: an address, or a stream of PyTorch or CuPy. The default is the
        legacy default stream. The arrays are made ready on it as DLPack prescribes.

    Returns
    -------
    Result
        Output, final states and the reserve. float64 layers compute in float64. 16-bit types keep
        products, c and gate arithmetic in float32, and results are rounded.

    Raises
    ------
    ValueError
        A wrong mode, shape, dtype, device or layout, an array that cannot be read, a rate outside 0
        to 1, or arguments that exclude each other; the message names the argument.
    TypeError
        An argument of the wrong type: not an array, a mode that is not a string, `weights` that are
        not a sequence.
    RuntimeError
        A library underneath (oneDNN, CUDA, cuBLAS) failed.
    ModuleNotFoundError
        fastrnn was installed without its native library.
    """
    if not isinstance(layers, (int, np.integer)) or isinstance(layers, bool):
        raise TypeError(f"layers is of type {type(layers).__name__}, expected an int")
    if not 1 <= layers <= _MOST_LAYERS:
        raise ValueError(f"layers is {layers}, expected 1 to {_MOST_LAYERS}")
    projected = checked_flag("projected", projected)
    layer_norm = checked_flag("layer_norm", layer_norm)
    arrays = None if out is None else _arrays_of_result(out, reserve)
    seed = _seed_array(seed, x)
    number = _stream_number(stream)
    output, h_n, c_n, values = _native.library().forward(
        mode,
        x,
        h_0,
        c_0,
        weights,
        layers,
        lengths,
        projected,
        checked_clip(clip),
        checked_noise(noise),
        seed,
        layer_norm,
        tf32,
        algorithm,
        reserve,
        arrays,
        threads,
        number,
    )
    if not reserve:
        return Result(output, h_n, c_n, None)
    inputs = (mode, x, h_0, c_0, tuple(weights), layers, lengths, projected, clip)
    kept = Reserve(*inputs, noise, seed, layer_norm, tf32, algorithm, output, values)
    return Result(output, h_n, c_n, kept)


def _seed_array(seed: Any, x: Any) -> Any:
    """Return the bits of a seed on the device of `x`; an array stays as it is."""
    if isinstance(seed, (bool, float, str)):
        raise TypeError(f"seed is of type {type(seed).__name__}, expected an int or an array")
    if not isinstance(seed, (int, np.integer)):
        return seed
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed}, expected 0 to 2**64 - 1")
    octets = np.frombuffer(int(seed).to_bytes(8, "little"), np.uint8)
    bits = np.unpackbits(octets, bitorder="little") * np.float32(2)
    device, number = x.__dlpack_device__() if hasattr(x, "__dlpack_device__") else (_HOST, 0)
    return to_device(bits, device=number) if device == _CUDA else bits


def _arrays_of_result(out: Result, reserve: bool) -> List[Any]:
    if not isinstance(out, Result):
        raise TypeError(f"out is of type {type(out).__name__}, expected a Result")
    if reserve and not isinstance(out.reserve, Reserve):
        kind = type(out.reserve).__name__
        raise TypeError(f"out.reserve is of type {kind}, expected a Reserve with reserve=True")
    return [*out[:3], out.reserve.values if reserve and out.reserve else None]


def backward(
    reserve: Reserve,
    d_output: Any,
    d_h_n: Optional[Any] = None,
    d_c_n: Optional[Any] = None,
    *,
    out: Optional[Gradients] = None,
    threads: Optional[int] = None,
    stream: Any = None,
) -> Gradients:
    """Gradients of `forward` (backpropagation through time, Werbos 1990).

    Parameters
    ----------
    reserve : Reserve
        From the forward call. The arrays given to that call must not have changed since then.
    d_output : array [T, N, D*P]
        Gradient of the output; ignored past a row's length.
    d_h_n, d_c_n : array [L*D, N, P] and [L*D, N, H], optional
        Gradients of the final states, zero by default; `d_c_n` for an LSTM only.
    out : Gradients, optional
        Arrays to write to, as for `forward`.
    threads : int, optional
    stream : object, optional
        As for `forward`.

    Returns
    -------
    Gradients
        With respect to the input, the initial states and the weights.

    Raises
    ------
    ValueError, TypeError, RuntimeError
        As for `forward`.
    """
    if not isinstance(reserve, Reserve):
        raise TypeError(
            f"reserve is of type {type(reserve).__name__}, expected the reserve of a forward call "
            "with reserve=True"
        )
    *inputs, output, values = reserve
    arrays = None if out is None else _arrays_of_gradients(out, len(reserve.weights))
    x, h_0, c_0, *weights = _native.library().backward(
        *inputs, output, values, d_output, d_h_n, d_c_n, arrays, threads, _stream_number(stream)
    )
    return Gradients(x, h_0, c_0, weights)


def _arrays_of_gradients(out: Gradients, weights: int) -> List[Any]:
    if not isinstance(out, Gradients):
        raise TypeError(f"out is of type {type(out).__name__}, expected Gradients")
    if len(out.weights) != weights:
        raise ValueError(f"out.weights has {len(out.weights)} arrays, expected {weights}")
    return [*out[:3], *out.weights]


def to_device(array: np.ndarray, dtype: Optional[str] = None, device: int = 0) -> Any:
    """Copy an array to a GPU.

    Parameters
    ----------
    array : numpy.ndarray
        Of float32, float16 or int32.
    dtype : str, optional
        Convert to this type first: float32, float16, int32 or bfloat16 (rounded to nearest, ties to
        even).
    device : int
        The GPU, as CUDA counts them.

    Returns
    -------
    DeviceArray
        With `shape`, `dtype`, `device`, and DLPack's ``__dlpack__``.

    Raises
    ------
    ValueError
        An unknown type or device, or a build without CUDA.
    TypeError
        `array` is not a NumPy array.
    RuntimeError
        CUDA failed.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"array is of type {type(array).__name__}, expected a NumPy array")
    wanted = np.dtype(array.dtype).name if dtype is None else dtype
    if wanted == "bfloat16":
        # The upper half of a float32, rounded; NaN stays NaN.
        bits = np.asarray(array, np.float32, order="C").view(np.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        array = np.where(np.isnan(array), 0x7FC0, rounded).astype(np.uint16)
    elif wanted in _HOST_TYPES:
        array = np.asarray(array, wanted, order="C")
    return _native.library().DeviceArray.from_host(array, wanted, device)


def to_host(array: Any) -> np.ndarray:
    """Copy a `DeviceArray` to the host, once it has been computed; bfloat16 becomes float32."""
    if not isinstance(array, _native.library().DeviceArray):
        raise TypeError(f"array is of type {type(array).__name__}, expected a DeviceArray")
    copy = array.to_host()
    if array.dtype != "bfloat16":
        return copy
    return (copy.astype(np.uint32) << 16).view(np.float32)
