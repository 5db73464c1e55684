"""Graphs of MXNet, written in JSON.

`mxnet.sym` cannot attach a subgraph to a node, and AMP wraps its functions to change types.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional, Sequence, Tuple

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
