"""Graphs of MXNet, written in JSON.

`mxnet.sym` cannot attach a subgraph to a node, and AMP wraps its functions to change types.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional, Sequence, Tuple

from fastrnn.cell import GATES, Cell
from fastrnn.mxnet import import_mxnet, mixed_precision

mx = import_mxnet()

# 10901 for 1.9.1.
_MXNET_VERSION = sum(
    int(part) * weight for part, weight in zip(mx.__version__.split("."), (10000, 100, 1))
)


def node(
    op: str, name: str, inputs: Sequence[Tuple[int, int]] = (), **attrs: Any
) -> Dict[str, Any]:
    """Return a node of a graph in JSON; `inputs` are pairs of a node and its output, by number."""
    made = {"op": op, "name": name, "inputs": [[k, output, 0] for k, output in inputs]}
    return {**made, "attrs": {key: str(value) for key, value in attrs.items()}} if attrs else made


def graph(nodes: List[Dict[str, Any]], heads: Sequence[Tuple[int, int]]) -> Dict[str, Any]:
    """Return a graph in JSON."""
    return {
        "nodes": nodes,
        "arg_nodes": [k for k, node in enumerate(nodes) if node["op"] == "null"],
        "heads": [[k, output, 0] for k, output in heads],
        "attrs": {"mxnet_version": ["int", _MXNET_VERSION]},  # otherwise MXNet upgrades the graph
    }


def compose(nodes: List[Dict[str, Any]], heads: Sequence[Tuple[int, int]], **arguments: Any) -> Any:
    """Return the symbol of a graph, with symbols in the place of its variables."""
    return mx.sym.load_json(json.dumps(graph(nodes, heads)))(**arguments)


def with_shape(symbol: Any, shape: Tuple[int, ...], dtype: Optional[str] = None) -> Any:
    """Return a symbol with the same value, whose known dimensions MXNet can infer from `shape`.

    Its type is `dtype`, or not known here.
    """
    data, name = node("null", "data"), symbol.name
    zeros = node("_zeros_without_dtype", f"{name}_shape", shape=shape)
    if dtype is not None:
        zeros = node("_zeros", f"{name}_shape", shape=shape, dtype=dtype)
    same = node("_identity_with_attr_like_rhs", f"{name}_with_shape", [(0, 0), (1, 0)])
    return compose([data, zeros, same], [(2, 0)], data=symbol)


def constant(F: Any, value: float, shape: Any, dtype: str, **attributes: Any) -> Any:
    """Return an array that is full of `value`, or a symbol, which may have attributes.

    After ``amp.init`` for bfloat16, the functions of `mxnet.sym` that take no array raise an error.
    """
    if F is mx.nd:
        return F.full(shape, value, dtype=dtype)
    full: Dict[str, Any] = {"value": value} if value else {}
    if not mixed_precision():
        make = F._internal._full if value else F._internal._zeros
        return make(shape=shape, dtype=dtype, **full, **attributes)
    name = mx.name.NameManager.current.get(attributes.get("name"), "constant")
    own = node("_full" if value else "_zeros", name, shape=shape, dtype=dtype, **full)
    return compose([own], [(0, 0)])


def split(F: Any, state: Any, layers: int, directions: int) -> Sequence[Any]:
    """Return each layer's part [D, N, H] of a state."""
    if layers == 1:
        return [state]
    if F is mx.sym:  # split needs the size of the dimension
        state = with_shape(state, (layers * directions, -1, -1))
    return F.split(state, num_outputs=layers, axis=0)


def _parameters_of_rnn(cell: Cell, layers: int, directions: int) -> int:
    """Return the size of the parameters of MXNet's RNN whose input has a number for each gate."""
    H, P, GH = cell.hidden_size, cell.outputs, GATES[cell.mode] * cell.hidden_size
    inputs = GH + (layers - 1) * directions * P  # of all layers
    return directions * (GH * (inputs + layers * (P + 2)) + layers * cell.projection_size * H)


def can_be_inferred(cell: Cell, layers: int, directions: int) -> bool:
    """Whether `inferred_layers` has no array that is too large for MXNet."""
    return _parameters_of_rnn(cell, layers, directions) < 1 << 31


def inferred_layers(
    cell: Cell, layers: int, directions: int, has_states: bool, has_lengths: bool
) -> Dict[str, Any]:
    """Return the graph from which MXNet infers the shapes and types of `native.graph_layers`.

    MXNet's own RNN operator determines all of them except the shape of i2h_weight. A FullyConnected
    determines that; RNN takes its output as data, so that RNN's parameters have a known size.
    MXNet serializes this graph at every call without static_alloc, so it has few nodes. It does not
    call `mxnet.sym`, whose functions AMP wraps to change types.
    """
    nodes: List[Dict[str, Any]] = []

    def add(op: str, *inputs: int, **attributes: Any) -> int:
        nodes.append(node(op, f"n{len(nodes)}", [(k, 0) for k in inputs], **attributes))
        return len(nodes) - 1

    H, P, GH = cell.hidden_size, cell.outputs, GATES[cell.mode] * cell.hidden_size

    def with_width(array: int, width: int) -> int:
        """Make the last dimension, which is GH, another."""
        parts = -(-width // GH)
        if parts > 1:
            array = add("Concat", *[array] * parts, num_args=parts, dim=2)
        if parts * GH > width:
            array = add("slice_axis", array, axis=2, begin=0, end=width)
        return array

    data = add("null")
    weights = [add("null") for _ in range(directions)]
    i2h, *other = (
        add("FullyConnected", data, weight, no_bias=True, num_hidden=GH, flatten=False)
        for weight in weights
    )
    if other:
        i2h = add("elemwise_add", i2h, *other)
    sizes = [P, H] if cell.mode == "lstm" else [P]
    if has_states:
        states = [add("null") for _ in sizes]
    else:  # of their shape
        blocks = layers * directions
        step = add("slice_axis", i2h, axis=0, begin=0, end=1)
        steps = add("Concat", *[step] * blocks, num_args=blocks, dim=0) if blocks > 1 else step
        same = {size: with_width(steps, size) for size in dict.fromkeys(sizes)}
        states = [same[size] for size in sizes]
    size = _parameters_of_rnn(cell, layers, directions)
    parameters = add("_zeros_without_dtype", shape=(size,))
    rnn = add(
        "RNN",
        i2h,
        parameters,
        *states,
        *([add("null")] if has_lengths else []),
        state_size=H,
        num_layers=layers,
        state_outputs=True,
        mode=cell.mode,
        **({"bidirectional": True} if directions == 2 else {}),
        **({"use_sequence_length": True} if has_lengths else {}),
        **({"projection_size": P} if cell.projected else {}),
    )
    outputs = 1 + len(states) if has_states else 1
    return graph(nodes, [(rnn, k) for k in range(outputs)])
