"""Reads nodes of the native operator in traced graphs, and replaces them by MXNet's operators."""

from __future__ import annotations

import itertools
import json
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from fastrnn.cell import Cell
from fastrnn.mxnet import import_mxnet, lengths, rnn_operator, unrolled
from fastrnn.mxnet.native import GRAPH_OPERATOR, cell_of
from fastrnn.mxnet.nodes import constant, split

mx: Any = import_mxnet()

Node = Dict[str, Any]  # of a graph in JSON
Entry = List[int]  # a node's number, an output's number, and a version
# Where a node's output is in another graph; with _ALL for the output, where the node is.
_Places = Dict[Tuple[int, int], Entry]
_ALL = -1


class Call(NamedTuple):
    """What a node computes; the numbers are positions of its inputs."""

    cell: Cell
    dtype: str
    weights: List[List[List[int]]]  # for each layer and direction
    states: List[int]  # none: they are zeros
    lengths: Optional[int]


def call(node: Node) -> Call:
    """Read a node that `fastrnn.mxnet.native.graph_layers` made."""
    attributes: Dict[str, str] = node["attrs"]
    cell, directions = cell_of(attributes), int(attributes.get("num_directions", 1))
    states = [directions + 1, directions + 2] if cell.mode == "lstm" else [directions + 1]
    if attributes.get("use_states") == "0":
        states = []
    has_lengths = attributes.get("use_sequence_length") == "1"
    after = 1 + directions + len(states)
    others = itertools.count(after + int(has_lengths))
    weights = [
        [[next(others) for _ in cell.weight_names[k == 0 :]] for _ in range(directions)]
        for k in range(int(attributes.get("num_layers", 1)))
    ]
    weights[0] = [[1 + d, *direction] for d, direction in enumerate(weights[0])]
    dtype = attributes.get("dtype", "float32")
    return Call(cell, dtype, weights, states, after if has_lengths else None)


def portable(symbol: Any) -> Any:
    """Return the same graph in MXNet's own operators, which loads without fastrnn.

    Parameters
    ----------
    symbol : mxnet.sym.Symbol
        A graph, for example one that `mxnet.sym.load` read from a file of ``export``.

    Returns
    -------
    mxnet.sym.Symbol
        The graph with MXNet's operators in place of the native one. Variables keep their names but
        not their order: the same file of parameters fits.

    Raises
    ------
    TypeError
        `symbol` is not a symbol.
    ValueError
        A recurrent layer is inside a loop of MXNet's, or its reserve, which only its backward pass
        may read, is an output of the graph.
    """
    if not isinstance(symbol, mx.sym.Symbol):
        raise TypeError(f"symbol: expected an MXNet symbol, got {type(symbol).__name__}")
    graph = json.loads(symbol.tojson())
    nodes: List[Node] = []
    places: _Places = {}
    for number, node in enumerate(graph["nodes"]):
        _check_loops(node)
        inputs = [_moved(entry, places) for entry in node["inputs"]]
        if node["op"] == GRAPH_OPERATOR:
            _replace(node, inputs, number, nodes, places)
        else:
            places[number, _ALL] = [len(nodes)]
            nodes.append({**node, "inputs": inputs})
    graph["heads"] = [_moved(entry, places) for entry in graph["heads"]]
    graph["nodes"] = nodes
    graph["arg_nodes"] = [k for k, node in enumerate(nodes) if node["op"] == "null"]
    del graph["node_row_ptr"]  # MXNet counts outputs by itself
    return mx.sym.load_json(json.dumps(graph))


def _check_loops(node: Node) -> None:
    # A loop identifies the arguments of its body by their order.
    for body in node.get("subgraphs", ()):
        for inner in body["nodes"]:
            _check_loops(inner)
            if inner["op"] == GRAPH_OPERATOR:
                raise ValueError(
                    f"symbol: expected no recurrent layer inside a loop, got {inner['name']} "
                    f"inside {node['name']}"
                )


def _moved(entry: Entry, places: _Places) -> Entry:
    number, output, *version = entry
    if (number, output) in places:
        return [*places[number, output][:2], *version]
    if (number, _ALL) in places:
        return [*places[number, _ALL], output, *version]
    raise ValueError(
        f"symbol: expected no use of a recurrent layer's reserve, got output {output} of node "
        f"{number}"
    )


def _replace(
    node: Node, inputs: List[Entry], number: int, nodes: List[Node], places: _Places
) -> None:
    """Append nodes that compute the same as `node` from `inputs`; record its outputs' places."""
    # Nodes may be named after the variables, and no two nodes of the graph should share a name.
    names = {f"{node['name']}_input{k}": k for k in range(len(inputs))}
    variables = [mx.sym.var(name) for name in names]
    with mx.name.Prefix(f"{node['name']}_"):
        outcome = _layers(call(node), variables)
    graph = json.loads(outcome.tojson())
    graph["nodes"][graph["heads"][0][0]]["name"] = node["name"]
    inner: _Places = {}
    for k, part in enumerate(graph["nodes"]):
        if part["op"] == "null":
            inner[k, 0] = inputs[names[part["name"]]]
        else:
            inner[k, _ALL] = [len(nodes)]
            nodes.append({**part, "inputs": [_moved(entry, inner) for entry in part["inputs"]]})
    for k, head in enumerate(graph["heads"]):
        places[number, k] = _moved(head, inner)


def _layers(of: Call, inputs: List[Any]) -> Any:
    """Compute a node's outputs, except a reserve, with MXNet's own operators."""
    layers, directions = len(of.weights), len(of.weights[0])
    rows = None if of.lengths is None else inputs[of.lengths]
    sizes = [of.cell.outputs, of.cell.hidden_size][: 2 if of.cell.mode == "lstm" else 1]
    if of.states:
        parts = [split(mx.sym, inputs[k], layers, directions) for k in of.states]
    else:
        shapes = [(directions, -1, size) for size in sizes]
        parts = [[constant(mx.sym, 0.0, s, of.dtype) for _ in of.weights] for s in shapes]
    own = [list(states) for states in zip(*parts)]
    data, last = inputs[0], []
    for positions, states in zip(of.weights, own):
        weights = [[inputs[k] for k in direction] for direction in positions]
        data, after = _layer(of.cell, of.dtype, data, states, weights, rows)
        last.append(after)
    if not of.states:
        return mx.sym.Group([data])
    after = last[0] if layers == 1 else [mx.sym.concat(*parts, dim=0) for parts in zip(*last)]
    return mx.sym.Group([data, *after])


def _layer(
    cell: Cell, dtype: str, data: Any, states: List[Any], weights: List[List[Any]], rows: Any
) -> Tuple[Any, List[Any]]:
    """Run one layer."""
    half = rows is not None and dtype == "float16"  # lengths.py needs numbers beyond its range
    loops = cell.projected or cell.clip_min is not None or cell.layer_norm or any(cell.noise)
    if loops or half:
        return unrolled.layer(mx.sym, cell, data, states, weights, rows)
    if rows is None:
        return rnn_operator.layers(mx.sym, cell, data, states, [weights], dtype)
    return lengths.layer(mx.sym, cell, data, states, weights, rows, dtype)
