"""The native library inside MXNet: loads it once, tells whether it is usable, calls its operators.

fastrnn loads it while `fastrnn` is imported: MXNet's AMP does not see operators that come later.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from fastrnn import _native, _threads
from fastrnn.cell import Cell, Noise
from fastrnn.check import verdict
from fastrnn.mxnet import import_mxnet, mixed_precision
from fastrnn.mxnet.nodes import compose, inferred_layers, node
from fastrnn.mxnet.operators import load_operators

mx = import_mxnet()

OPERATOR = "_fastrnn_layer"  # for eager calls
GRAPH_OPERATOR = "_fastrnn_rnn"  # for graphs


class Status(NamedTuple):
    """Whether layers may use the native operator."""

    usable: bool
    reason: str  # why or why not
    types: Tuple[str, ...] = ()  # dtypes that it computes in


def _visible_gpus() -> int:
    try:
        return mx.context.num_gpus()
    except mx.MXNetError:
        # MXNet was built with CUDA, but CUDA does not start: there is no usable GPU.
        return 0


GPUS = _visible_gpus()


def _load() -> Status:
    """Load the library if there is one, and decide once for the process."""
    library, reason = _native.find()
    if library is None:
        return Status(False, reason)
    info = library.build_info()
    # A traced graph serves all contexts: the operator must support each of them.
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
    _take_threads(library)
    parts = f"oneDNN {info['onednn']}" + (f", CUDA {info['cuda_toolkit']}" if GPUS else "")
    return Status(True, f"MXNet operator {OPERATOR}, {parts}", tuple(types[kind]))


def _take_threads(library: Any) -> None:
    """Run the CPU's kernels on as many threads as `fastrnn check` found fastest.

    What the user says of threads in the environment comes first, in the library as well.
    """
    found = verdict.of_process(verdict.CPU).verdict
    if found is not None and found.threads and not _threads.are_given():
        library.set_cpu_threads(found.threads)


def _unsuitable_gpu(found: Any, architectures: Sequence[str]) -> Optional[str]:
    """Return why the library's kernels do not run on one of the GPUs, or None."""
    if len(found["devices"]) < GPUS:
        reason = found["error"] or f"it sees {len(found['devices'])} of MXNet's {GPUS} GPU(s)"
        return f"the native library cannot use the GPU: {reason}"
    for device in found["devices"]:
        major, minor = map(int, device["compute_capability"].split("."))
        # Machine code runs on later models of its generation; the newest PTX on later generations.
        runs = any(int(a) // 10 == major and int(a) % 10 <= minor for a in architectures)
        if not runs and 10 * major + minor < max(map(int, architectures)):
            return (
                f"the native library has no machine code for {device['name']} (sm_{major}{minor}); "
                f"it was built for sm_{', sm_'.join(architectures)}"
            )
    return None


def _register(path: str) -> Optional[str]:
    """Add the library's operators to MXNet and to AMP's lists; return why it cannot, or None."""
    if mixed_precision():
        return "fastrnn was imported after amp.init(): import it before"
    names = (OPERATOR, GRAPH_OPERATOR)
    try:
        if not hasattr(mx.nd._internal, OPERATOR):
            load_operators(path, names)
    except mx.MXNetError as error:
        return f"MXNet does not load the operators: {error}"
    for lists in ("symbol_fp16", "symbol_bf16"):
        functions = importlib.import_module(f"mxnet.contrib.amp.lists.{lists}").FP32_FUNCS
        functions.extend(name for name in names if name not in functions)
    return None


STATUS = _load()
# Whether the operators of the contexts that layers run in are CUDA's: on a GPU, or an emulated one
# in the place of oneDNN.
ON_CUDA = STATUS.usable and (GPUS > 0 or _native.library().build_info()["onednn"] is None)


def layers(
    cell: Cell,
    data: Any,
    states: Optional[Sequence[Any]],
    weights: Sequence[Sequence[Sequence[Any]]],
    dtype: str,
    lengths: Any = None,
    seed: Any = None,
    first_layer: int = 0,
    recorded: bool = False,
) -> Tuple[Any, List[Any]]:
    """Run layers, one on top of the other.

    The operator cannot add to a gradient: to none of the arrays may one be attached to which
    ``backward`` adds.

    Parameters
    ----------
    data
        [T, N, I].
    states
        [L*D, N, P], and for the LSTM [L*D, N, H]; P is H unless the cell is projected. None: they
        are zeros, and no states are returned.
    weights
        For each layer, the lowest first, and each direction: i2h_weight [G*H, I], h2h_weight
        [G*H, P], i2h_bias [G*H], h2h_bias [G*H] and the rest of ``cell.weight_names``; above the
        first layer I is D*P.
    dtype
        Type of these arrays: one of ``STATUS.types``.
    lengths
        [N] of int32, each row's number of steps, between 0 and T; None: all rows have T.
    seed
        [64] of float32, from `fastrnn.mxnet.dropout.seed`, if the cell has noise; None: it is in
        its inference form.
    first_layer
        The number of the first layer in the stack, for which the seed draws.
    recorded
        Whether there may be a backward pass.

    Returns
    -------
    output, states
        [T, N, D*P] of the last layer, zero past a row's length, and the states after each row's
        last step in each layer and direction.
    """
    has_lengths = lengths is not None
    outputs = getattr(mx.nd._internal, OPERATOR)(
        data,
        *(states or []),
        *(array for layer in weights for direction in layer for array in direction),
        *([lengths] if has_lengths else []),
        *([] if seed is None else [seed]),
        options=_packed(
            *(recorded, cell, len(weights), len(weights[0]), states is not None, has_lengths),
            *(dtype, seed is not None, first_layer),
        ),
    )
    if states is None:
        return outputs[0] if recorded else outputs, []
    return outputs[0], [outputs[k + 1] for k in range(len(states))]


def graph_layers(
    cell: Cell,
    data: Any,
    states: Optional[Sequence[Any]],
    weights: Sequence[Sequence[Sequence[Any]]],
    dtype: str,
    lengths: Any,
    name: str,
    seed: Any = None,
    first_layer: int = 0,
) -> Tuple[Any, List[Any]]:
    """Return the symbols of differentiable layers, one on top of the other.

    MXNet infers shapes and types from the node's subgraph, which never runs. A subgraph can only be
    written in JSON and attached by composing symbols.

    The operator cannot add to a gradient, so an operator of MXNet's must be between it and every
    variable. It does not write the gradient of `lengths`, so that must not be differentiated.

    The arguments and the results are as for `layers`; `name` is the node's.
    """
    first, *above = weights
    extra = [w for direction in first for w in direction[1:]]
    extra += [w for layer in above for direction in layer for w in direction]
    extra += [] if seed is None else [seed]
    arrays = [data, *(direction[0] for direction in first), *(states or [])]
    arrays += [*([] if lengths is None else [lengths]), *extra]
    arguments = {f"input{k}": array for k, array in enumerate(arrays)}
    kind = (cell, len(weights), len(first), states is not None, lengths is not None)
    attributes = {
        **_attributes(*kind, dtype, seed is not None, first_layer),
        "__ext_extra_inputs__": len(extra),  # the last ones, which the subgraph does not have
        # MXNet's drawing tools label a node of several outputs with the shape of output number
        # num_outputs - 1.
        **({} if states is None else {"num_outputs": 1}),
        # MXNet puts the attributes of mx.AttrScope, such as ctx_group, on every node.
        **{key: value for key, value in data.list_attr().items() if key[:2] == "__"},
    }
    nodes = [node("null", argument) for argument in arguments]
    own = node(GRAPH_OPERATOR, name, [(k, 0) for k in range(len(nodes))], **attributes)
    own["subgraphs"] = [inferred_layers(*kind)]
    count = len(states or [])
    heads = [(len(nodes), k) for k in range(count + 1)]
    outputs = compose([*nodes, own], heads, **arguments)
    return outputs[0], [outputs[k + 1] for k in range(count)]


def options(cell: Cell) -> Dict[str, Any]:
    """Return the operators' attributes that few cells have."""
    found: Dict[str, Any] = {}
    if cell.projected:
        found["projection_size"] = cell.projection_size
    if cell.clip_min is not None:
        found["state_clip_min"], found["state_clip_max"] = cell.clip_min, cell.clip_max
        found["state_clip_nan"] = int(cell.clip_nan)
    found.update((name, rate) for name, rate in cell.noise._asdict().items() if rate)
    if cell.layer_norm:
        found["layer_norm"] = 1
    return found


@functools.lru_cache(maxsize=1024)
def _packed(recorded: bool, *of_both: Any) -> str:
    """Return the one attribute of the operator for eager calls; the rest is for `_attributes`."""
    found = _attributes(*of_both)
    if recorded:
        found["reserve"] = 1
    return packed(found)


def packed(attributes: Mapping[str, Any]) -> str:
    """Return attributes as one, ``options``: MXNet copies each of them many times in a call."""
    return " ".join(f"{name}={value}" for name, value in attributes.items())


def _attributes(
    cell: Cell,
    layers: int,
    directions: int,
    has_states: bool,
    has_lengths: bool,
    dtype: str,
    seeded: bool,
    first_layer: int,
) -> Dict[str, Any]:
    """Return what both operators are told, without defaults."""
    found: Dict[str, Any] = {"mode": cell.mode, "hidden_size": cell.hidden_size}
    if layers > 1:
        found["num_layers"] = layers
    if directions > 1:
        found["num_directions"] = directions
    if dtype != "float32":
        found["dtype"] = dtype
    if not has_states:
        found["use_states"] = 0
    if has_lengths:
        found["use_sequence_length"] = 1
    found.update(options(cell))
    if seeded:
        found["use_seed"] = 1
        if first_layer:
            found["first_layer"] = first_layer
    return found


def cell_of(attributes: Mapping[str, str]) -> Cell:
    """Return the cell that the attributes of an operator are for."""
    low, high = (attributes.get(f"state_clip_{end}") for end in ("min", "max"))
    return Cell(
        attributes["mode"],
        int(attributes["hidden_size"]),
        int(attributes.get("projection_size", 0)),
        None if low is None else float(low),
        None if high is None else float(high),
        attributes.get("state_clip_nan") == "1",
        Noise(*(float(attributes.get(name, 0)) for name in Noise._fields)),
        attributes.get("layer_norm") == "1",
    )
