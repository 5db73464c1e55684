"""Registers converters for the native operator with MXNet's ONNX exporter.

MXNet imports the package ``onnx`` itself if it is installed; this module imports more of it only
when a model is exported.
"""

from __future__ import annotations

import ast
import importlib
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np

from fastrnn.cell import Cell
from fastrnn.export import graphs
from fastrnn.mxnet import import_mxnet
from fastrnn.mxnet.native import GRAPH_OPERATOR

import_mxnet()
_exporter: Any = importlib.import_module("mxnet.onnx.mx2onnx._export_onnx").MXNetGraph

_KINDS = {"lstm": "LSTM", "gru": "GRU", "rnn_tanh": "RNN", "rnn_relu": "RNN"}
# The index in MXNet's gate order of each of ONNX's gates: i, o, f, g and z, r, n.
_GATES = {"lstm": [0, 3, 1, 2], "gru": [1, 0, 2], "rnn_tanh": [0], "rnn_relu": [0]}
_ACTIVATIONS = {"rnn_tanh": "Tanh", "rnn_relu": "Relu"}

_ZEROS = ("_zeros", "zeros_like")
# Operators that may be between zeros and the layer whose states they are.
_KEEP_ZEROS = ("_copy", "BlockGrad", "Cast", "SliceChannel", "_identity_with_attr_like_rhs")
# Outputs of a graph that are named as MXNet's RNN's outputs, and the exporter's names for them.
_RENAMED = {"_state": "1", "_statecell": "2"}


class _Nodes:
    """The ONNX nodes that replace one node of MXNet's; their tensors are named after it."""

    def __init__(self, name: str, initializer: List[Any]) -> None:
        self.made: List[Any] = []
        self._name, self._named, self._initializer = name, 0, initializer
        self._make_node = importlib.import_module("onnx.helper").make_node

    def add(self, kind: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> Any:
        """Append a node; return the name of its output, or the names."""
        names = [self._new_name() for _ in range(outputs)]
        self.made.append(self._make_node(kind, inputs, names, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        name = self._new_name()
        to_tensor = importlib.import_module("onnx.numpy_helper").from_array
        self._initializer.append(to_tensor(np.asarray(values, dtype), name))
        return name

    def put_out(self, tensors: Sequence[str]) -> None:
        # The exporter's names; it numbers them if there are several.
        names = [f"{self._name}{k}" for k in range(len(tensors))]
        for tensor, name in zip(tensors, names if len(names) > 1 else [self._name]):
            self.made.append(self._make_node("Identity", [tensor], [name]))

    def _new_name(self) -> str:
        self._named += 1
        return f"{self._name}_part{self._named}"


def _layers(node: graphs.Node, **exporter: Any) -> Any:
    """Convert a node of the native operator to an ONNX LSTM, GRU or RNN for each layer."""
    call = graphs.call(node)
    if call.cell.projected or call.cell.clip_min is not None or call.cell.layer_norm:
        raise ValueError(
            f"{node['name']}: expected a layer without projection, clipping and layer "
            f"normalisation, which ONNX's layers do not have, got {call.cell}"
        )
    if call.cell.noise.zoneout_outputs or call.cell.noise.zoneout_states:
        raise ValueError(
            f"{node['name']}: expected a layer without zoneout, which ONNX's layers do not have, "
            f"got {call.cell}"
        )
    sources = [exporter["outputs_lookup"][number][k] for number, k, *_ in node["inputs"]]
    inputs = [source.name for source in sources]
    nodes = _Nodes(node["name"], exporter["initializer"])
    # ONNX takes an omitted state as zero, for any number of rows.
    zero = [_is_zero(node["inputs"][k], exporter["mx_graph"]) for k in call.states]
    states = ["" if z else inputs[k] for k, z in zip(call.states, zero)]
    data, last = inputs[0], []
    for k in range(len(call.weights)):
        own = [_part_of(nodes, call, state, k) for state in states]
        data, after = _layer(nodes, call, inputs, k, data, own)
        last.append(after)
    after = last[0]
    if len(last) > 1:
        after = [nodes.add("Concat", parts, axis=0) for parts in zip(*last)]
    nodes.put_out([data, *after])
    return nodes.made, [sources[0].dtype] * (1 + len(after))


def _part_of(nodes: _Nodes, call: graphs.Call, state: str, layer: int) -> str:
    """Return a layer's part [D, N, H] of a state."""
    directions = len(call.weights[0])
    if not state or len(call.weights) == 1:
        return state
    ends = (nodes.constant([k * directions]) for k in (layer, layer + 1))
    return str(nodes.add("Slice", [state, *ends, nodes.constant([0])]))


def _layer(
    nodes: _Nodes, call: graphs.Call, inputs: List[str], layer: int, data: str, states: List[str]
) -> Tuple[str, List[str]]:
    """Return a layer's output [T, N, D*H] and its last states."""
    weights = call.weights[layer]
    lengths = "" if call.lengths is None else inputs[call.lengths]
    packed = _packed(nodes, call.cell, [[inputs[k] for k in direction] for direction in weights])
    output, *after = nodes.add(
        _KINDS[call.cell.mode],
        [data, *packed, lengths, *states],
        2 + (call.cell.mode == "lstm"),
        **_attributes(call.cell, len(weights)),
    )
    after = after[: len(states)]
    if lengths:
        after = _after_no_steps(nodes, lengths, states, after)
    # From [T, D, N, H].
    swapped = nodes.add("Transpose", [output], perm=[0, 2, 1, 3])
    return nodes.add("Reshape", [swapped, nodes.constant([0, 0, -1])]), after


def _is_zero(entry: graphs.Entry, graph: List[graphs.Node]) -> bool:
    node = graph[entry[0]]
    if node["op"] in _KEEP_ZEROS:
        return _is_zero(node["inputs"][0], graph)
    return node["op"] in _ZEROS


def _packed(nodes: _Nodes, cell: Cell, weights: List[List[str]]) -> List[str]:
    """Return W, R and B, with a first dimension for the directions."""
    gates, hidden = _GATES[cell.mode], cell.hidden_size
    rows = np.arange(len(gates) * hidden).reshape(-1, hidden)
    order = nodes.constant(rows[gates].reshape(1, -1))
    parts = []
    for direction in weights:
        w, r, *biases = (nodes.add("Gather", [array, order], axis=0) for array in direction)
        parts.append((w, r, nodes.add("Concat", biases, axis=1)))
    return [nodes.add("Concat", directions, axis=0) for directions in zip(*parts)]


def _after_no_steps(nodes: _Nodes, lengths: str, before: List[str], after: List[str]) -> List[str]:
    """Return the last states; for rows without steps the initial ones, where onnxruntime has 0."""
    none = nodes.add("Equal", [lengths, nodes.constant(0, np.int32)])
    none = nodes.add("Reshape", [none, nodes.constant([-1, 1])])
    return [
        nodes.add("Where", [none, first, last]) if first else last
        for first, last in zip(before, after)
    ]


def _attributes(cell: Cell, directions: int) -> Dict[str, Any]:
    attributes: Dict[str, Any] = {
        "hidden_size": cell.hidden_size,
        "direction": "forward" if directions == 1 else "bidirectional",
    }
    if cell.mode == "gru":
        attributes["linear_before_reset"] = 1
    if cell.mode in _ACTIVATIONS:
        attributes["activations"] = [_ACTIVATIONS[cell.mode]] * directions
    return attributes


def _copy(node: graphs.Node, **exporter: Any) -> List[Any]:
    """Convert as MXNet's own converter does, and give the output its second name too."""
    make_node = importlib.import_module("onnx.helper").make_node
    (number, k, *_), name = node["inputs"][0], node["name"]
    made = [make_node("Identity", [exporter["outputs_lookup"][number][k].name], [name], name)]
    for suffix, digit in _RENAMED.items():
        if name.endswith(suffix):
            made.append(make_node("Identity", [name], [name[: -len(suffix)] + digit]))
    return made


def _shape_only(node: graphs.Node, **exporter: Any) -> Any:
    """Convert zeros of which only the shape is used, not the values."""
    numpy_helper = importlib.import_module("onnx.numpy_helper")
    make_node = importlib.import_module("onnx.helper").make_node
    value = numpy_helper.from_array(np.zeros(1, np.float32))
    made = make_node("Constant", [], [node["name"]], node["name"], value=value)
    return [made], [np.dtype("float32")]


def _full(node: graphs.Node, **exporter: Any) -> Any:
    """Convert a constant, such as the ones that a seed is drawn from."""
    numpy_helper = importlib.import_module("onnx.numpy_helper")
    make_node = importlib.import_module("onnx.helper").make_node
    attributes = node["attrs"]
    dtype = np.dtype(attributes.get("dtype", "float32"))
    shape = ast.literal_eval(attributes["shape"])
    value = numpy_helper.from_array(np.full(shape, float(attributes["value"]), dtype))
    made = make_node("Constant", [], [node["name"]], node["name"], value=value)
    return [made], [dtype]


def _with_counts(convert: Callable[..., List[Any]]) -> Callable[..., List[Any]]:
    """Convert in the same way, and set how many equal parts each Split makes."""

    def converted(node: graphs.Node, **exporter: Any) -> List[Any]:
        made = convert(node, **exporter)
        helper = importlib.import_module("onnx.helper")
        for part in made:
            if part.op_type == "Split" and len(part.input) == 1:
                part.attribute.append(helper.make_attribute("num_outputs", len(part.output)))
        return made

    return converted


def register() -> None:
    """Register with MXNet's exporter, if it can be used. Safe to repeat."""
    converters = _exporter.registry_  # by opset and operator; empty without onnx
    if not converters:
        return
    _exporter.register(GRAPH_OPERATOR)(_layers)
    _exporter.register("_copy")(_copy)
    _exporter.register("_identity_with_attr_like_rhs")(_copy)  # its second input is a shape
    _exporter.register("_zeros_without_dtype")(_shape_only)
    _exporter.register("_full")(_full)
    # MXNet's own converters are older than opset 18, in which Split requires that number.
    for operator in ("RNN", "SliceChannel"):
        _exporter.register(operator, 18)(_with_counts(converters[13][operator]))
