"""The kernels without a framework: one recurrent layer, forward and backward.

Arrays may come from any library that speaks DLPack (NumPy, PyTorch, CuPy) and from MXNet. They are
float32, dense, row-major, and on the CPU; nothing is copied or converted behind the caller's back.
Results are new NumPy arrays. T steps, N rows, I inputs, H hidden units, G gates (LSTM 4: i, f, g,
o; GRU 3: r, z, n; RNN 1), D directions (1 or 2).

    result = forward("lstm", x, weights, reserve=True)
    gradients = backward(result.reserve, d_output)
"""

from __future__ import annotations

import importlib
from typing import Any, List, NamedTuple, Optional, Sequence

import numpy as np

__all__ = ["Gradients", "Reserve", "Result", "backward", "forward"]


class Reserve(NamedTuple):
    """What `backward` needs of a forward call. It holds the arrays themselves, not copies."""

    mode: str
    x: Any
    h_0: Optional[Any]
    c_0: Optional[Any]
    weights: Sequence[Any]
    output: np.ndarray
    values: np.ndarray


class Result(NamedTuple):
    """Outcome of `forward`."""

    output: np.ndarray  # [T, N, D*H], the forward direction's H first
    h_n: np.ndarray  # [D, N, H], after the last step of each direction
    c_n: Optional[np.ndarray]  # [D, N, H], LSTM only
    reserve: Optional[Reserve]  # where it was asked for


class Gradients(NamedTuple):
    """Outcome of `backward`, in the shapes of what `forward` was given."""

    x: np.ndarray
    h_0: np.ndarray
    c_0: Optional[np.ndarray]
    weights: List[np.ndarray]


def _native() -> Any:
    # Imported late: a pure-Python install has this module too, and says here what is missing.
    return importlib.import_module("fastrnn._C")


def forward(
    mode: str,
    x: Any,
    weights: Sequence[Any],
    h_0: Optional[Any] = None,
    c_0: Optional[Any] = None,
    *,
    reserve: bool = False,
) -> Result:
    """Run one layer over a sequence.

    Parameters
    ----------
    mode : {'lstm', 'gru', 'rnn_tanh', 'rnn_relu'}
        The cell. The GRU applies its reset gate after the product, as MXNet and cuDNN do.
    x : array [T, N, I]
        The input.
    weights : sequence of arrays
        For each direction i2h_weight [G*H, I], h2h_weight [G*H, H], i2h_bias [G*H], h2h_bias [G*H].
    h_0, c_0 : array [D, N, H], optional
        Initial states, zero by default; `c_0` for an LSTM only.
    reserve : bool
        Keep what `backward` needs: G*H + H values a step, row and direction (none for an RNN).

    Returns
    -------
    Result
        Output, final states and the reserve.

    Raises
    ------
    ValueError
        A wrong mode, shape, dtype, device or layout, or an array that cannot be read; the message
        names the argument.
    TypeError
        An argument that is no array, a mode that is no string, `weights` that are no sequence.
    RuntimeError
        The library underneath failed.
    ModuleNotFoundError
        fastrnn was installed without its native library.
    """
    output, h_n, c_n, values = _native().forward(mode, x, h_0, c_0, weights, reserve)
    kept = Reserve(mode, x, h_0, c_0, tuple(weights), output, values) if reserve else None
    return Result(output, h_n, c_n, kept)


def backward(
    reserve: Reserve,
    d_output: Any,
    d_h_n: Optional[Any] = None,
    d_c_n: Optional[Any] = None,
) -> Gradients:
    """Gradients of one layer (backpropagation through time, Werbos 1990).

    Parameters
    ----------
    reserve : Reserve
        From the forward call. The arrays given to that call must not have changed since.
    d_output : array [T, N, D*H]
        Gradient of the output.
    d_h_n, d_c_n : array [D, N, H], optional
        Gradients of the final states, zero by default; `d_c_n` for an LSTM only.

    Returns
    -------
    Gradients
        With respect to the input, the initial states and the weights.

    Raises
    ------
    ValueError, TypeError, RuntimeError
        As `forward`.
    """
    if not isinstance(reserve, Reserve):
        raise TypeError(
            f"reserve is of type {type(reserve).__name__}, expected the reserve of a forward call "
            "with reserve=True"
        )
    *inputs, output, values = reserve
    return Gradients(*_native().backward(*inputs, output, values, d_output, d_h_n, d_c_n))
