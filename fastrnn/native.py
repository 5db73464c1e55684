"""The native library inside MXNet: loads it once, says whether it can be used, calls its operator.

MXNet wraps and regenerates its operator functions when a library is loaded, so that happens while
`fastrnn` is imported and never again.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

from fastrnn._mxnet import import_mxnet, mixed_precision
from fastrnn.cell import Cell

mx = import_mxnet()

OPERATOR = "_fastrnn_layer"


class Status(NamedTuple):
    """Whether layers may use the native operator."""

    usable: bool
    reason: str  # why or why not
    types: Tuple[str, ...] = ()  # that it computes in


def _visible_gpus() -> int:
    try:
        return mx.context.num_gpus()
    except mx.MXNetError:
        # MXNet was built with CUDA, and CUDA cannot start: there is no GPU to compute on.
        return 0


GPUS = _visible_gpus()


def _load() -> Status:
    """Load the library, where there is one, and decide once for the process."""
    if importlib.util.find_spec("fastrnn._C") is None:
        return Status(False, "this is a pure-Python installation, without the native library")
    try:
        library = importlib.import_module("fastrnn._C")
    except ImportError as error:
        return Status(False, f"the native library does not load: {error}")
    info = library.build_info()
    # A graph, once traced, serves all contexts: the operator has to be there for each of them.
    kind = "gpu" if GPUS else "cpu"
    types = info["operator_types"]
    obstacle = None
    if not info["mxnet_operators"]:
        obstacle = "the native library was built without MXNet's operators"
    elif "cpu" not in types:
        obstacle = "the native library was built without oneDNN"
    elif kind not in types:
        obstacle = f"the native library was built without CUDA, and MXNet sees {GPUS} GPU(s)"
    elif GPUS:
        obstacle = _unsuitable_gpu(library.cuda_devices(), info["cuda_architectures"])
    obstacle = obstacle or _register(str(library.__file__))
    if obstacle is not None:
        return Status(False, obstacle)
    parts = f"oneDNN {info['onednn']}" + (f", CUDA {info['cuda_toolkit']}" if GPUS else "")
    return Status(True, f"MXNet operator {OPERATOR}, {parts}", tuple(types[kind]))


def _unsuitable_gpu(found: Any, architectures: Sequence[str]) -> Optional[str]:
    """Say which of the GPUs the library's kernels do not run on, if there is one."""
    if len(found["devices"]) < GPUS:
        reason = found["error"] or f"it sees {len(found['devices'])} of MXNet's {GPUS} GPU(s)"
        return f"the native library cannot use the GPU: {reason}"
    for device in found["devices"]:
        major, minor = map(int, device["compute_capability"].split("."))
        # Machine code runs on later models of its generation, the newest one's PTX on later ones.
        runs = any(int(a) // 10 == major and int(a) % 10 <= minor for a in architectures)
        if not runs and 10 * major + minor < max(map(int, architectures)):
            return (
                f"the native library has no machine code for {device['name']} (sm_{major}{minor}); "
                f"it was built for sm_{', sm_'.join(architectures)}"
            )
    return None


def _register(path: str) -> Optional[str]:
    """Put the library's operators into MXNet and AMP's lists; return what prevents it, if so."""
    if mixed_precision():
        return "fastrnn was imported after amp.init(), and its operators have to come before"
    if hasattr(mx.nd._internal, OPERATOR):
        return None
    try:
        mx.library.load(path, verbose=False)
    except mx.MXNetError as error:
        return f"MXNet does not load the operators: {error}"
    for lists in ("symbol_fp16", "symbol_bf16"):
        importlib.import_module(f"mxnet.contrib.amp.lists.{lists}").FP32_FUNCS.append(OPERATOR)
    return None


STATUS = _load()


def layers(
    F: Any,
    cell: Cell,
    data: Any,
    states: Sequence[Any],
    weights: Sequence[Sequence[Sequence[Any]]],
    reserve: bool = True,
    dtype: str = "float32",
    lengths: Any = None,
) -> Tuple[Any, List[Any]]:
    """Run layers, one on top of the other, as many as there are `weights`.

    The operator cannot add to a gradient, so with `reserve` no argument may be a variable with a
    gradient of its own: an operator of MXNet's has to stand between.

    Parameters
    ----------
    F
        `mxnet.nd` or `mxnet.sym`.
    data
        [T, N, I].
    states
        [L*D, N, H], for the LSTM two of them.
    weights
        For each layer, the lowest first, and each direction: i2h_weight [G*H, I], h2h_weight
        [G*H, H], i2h_bias [G*H], h2h_bias [G*H]; above the first layer I is D*H.
    reserve
        Whether there may be a backward pass.
    dtype
        Of these arrays: one of ``STATUS.types``.
    lengths
        [N] of int32, each row's number of steps, between 0 and T; by default all have T. The
        operator leaves their gradient as it is, so no gradient may be taken.

    Returns
    -------
    output, states
        [T, N, D*H] of the last layer, zero past a row's length, and the states [L*D, N, H] after
        each row's last step in each layer and direction.
    """
    has_lengths = lengths is not None
    outputs = getattr(F._internal, OPERATOR)(
        data,
        *states,
        *(array for layer in weights for direction in layer for array in direction),
        *([lengths] if has_lengths else []),
        mode=cell.mode,
        hidden_size=cell.hidden_size,
        num_directions=len(weights[0]),
        num_layers=len(weights),
        reserve=int(reserve),
        dtype=dtype,
        use_sequence_length=int(has_lengths),
    )
    return outputs[0], [outputs[k + 1] for k in range(len(states))]
