"""Replaces Gluon's recurrent layers and cells by fastrnn's, also in code that makes its own."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import Any, Dict, Iterator, Optional, Tuple

from fastrnn import cells, layers
from fastrnn.backend import Request, requested
from fastrnn.cell import Noise
from fastrnn.mxnet import checks, import_mxnet
from fastrnn.mxnet.dropout import Rates
from fastrnn.mxnet.layer import RecurrentLayer
from fastrnn.reports import Left, Replaced, Report, replace_all

mx: Any = import_mxnet()

_OURS = {
    mx.gluon.rnn.LSTM: layers.LSTM,
    mx.gluon.rnn.GRU: layers.GRU,
    mx.gluon.rnn.RNN: layers.RNN,
    mx.gluon.rnn.LSTMCell: cells.LSTMCell,
    mx.gluon.rnn.GRUCell: cells.GRUCell,
    mx.gluon.rnn.RNNCell: cells.RNNCell,
}
_GLUONS = {ours: gluons for gluons, ours in _OURS.items()}
# The attribute of blocks that `accelerate` replaced: the names of the attributes that Gluon's block
# had, with the values of those that fastrnn's has in another form.
_MARK = "_accelerated"
_NORMALIZED = ("_lstm_state_clip_min", "_lstm_state_clip_max")


def accelerate(net: Any, backend: Optional[str] = None) -> Report:
    """Replace every layer and cell of ``gluon.rnn`` in a model by fastrnn's, in place.

    Layers and cells stay the same objects, with the same Parameters: a Trainer, hooks and other
    references to them stay right, and so do names in files. Graphs that hybridized blocks have
    traced are dropped, and traced again in the next call; call it on the outermost block, because
    those of blocks around `net` are not found.

    Parameters
    ----------
    net : mxnet.gluon.Block
        A model, a layer or a cell.
    backend : {'auto', 'native', 'gluon'}, optional
        Of layers, as for `fastrnn.LSTM`.

    Returns
    -------
    Report
        What was replaced, what was left, and why. Left are classes derived from Gluon's, graphs
        that were imported, layers that `backend` cannot run, and cells with an activation that no
        layer has.

    Raises
    ------
    TypeError
        `net` is not a Gluon block.
    ValueError
        `backend` is not one of the above.
    """
    request = requested(backend)
    report = replace_all(_blocks(net), _OURS, lambda block: _replace(block, request), _why_left)
    if report.replaced:
        _drop_graphs(net)
    return report


def restore(net: Any) -> Report:
    """Undo `accelerate`: the layers and cells that it replaced are Gluon's again.

    Those that were made as fastrnn's stay.

    Parameters
    ----------
    net : mxnet.gluon.Block
        The model.

    Returns
    -------
    Report
        What is Gluon's again, under `replaced`, and what stays fastrnn's, under `left`.

    Raises
    ------
    TypeError
        `net` is not a Gluon block.
    """
    report = Report([], [])
    for path, block in _blocks(net):
        kind = type(block)
        if _MARK in vars(block):
            attributes = vars(block)
            mark = attributes.pop(_MARK)
            for name in attributes.keys() - mark.keys():
                del attributes[name]
            attributes.update({name: mark[name] for name in _NORMALIZED if name in mark})
            block.__class__ = _GLUONS[kind]
            report.replaced.append(Replaced(path, kind.__name__, "gluon: MXNet's own"))
        elif isinstance(block, (RecurrentLayer, cells._Cell)):
            report.left.append(Left(path, kind.__name__, "it was made as fastrnn's"))
    if report.replaced:
        _drop_graphs(net)
    return report


def _blocks(net: Any) -> Iterator[Tuple[str, Any]]:
    """Yield each block of a model once, with the path to it."""
    if not isinstance(net, mx.gluon.Block):
        raise TypeError(f"net: expected a Gluon block, got {type(net).__name__}")
    seen = set()

    def walk(path: str, block: Any) -> Iterator[Tuple[str, Any]]:
        if id(block) in seen:
            return
        seen.add(id(block))
        yield path, block
        for name, child in list(block._children.items()):
            yield from walk(f"{path}.{name}" if path else name, child)

    return walk("", net)


def _replace(block: Any, request: Request) -> Optional[str]:
    """Make Gluon's layer or cell fastrnn's. If that cannot be, leave it unchanged and tell why."""
    kept = dict(vars(block))
    gluons = type(block)
    block.__class__ = _OURS[gluons]
    try:
        if isinstance(block, RecurrentLayer):
            clip = checks.clipping(*(kept[name] for name in _NORMALIZED))
            block._set_up(request, clip, Rates(), Noise())
        elif block._mode() is None:
            raise ValueError("no layer has its activation")
    except (TypeError, ValueError) as error:
        block.__class__ = gluons
        vars(block).clear()
        vars(block).update(kept)
        return str(error)
    vars(block)[_MARK] = {name: kept[name] if name in _NORMALIZED else None for name in kept}
    return None


def _why_left(block: Any) -> Optional[str]:
    """Return why a block is left as it is; None if it has nothing to do with recurrent layers."""
    if isinstance(block, (RecurrentLayer, cells._Cell)):
        return "it is fastrnn's already"
    for gluons in _OURS:
        if isinstance(block, gluons):
            return f"its class is derived from {gluons.__name__} and may change what that does"
    if isinstance(block, mx.gluon.SymbolBlock) and _has_recurrent_operator(block):
        return "an imported graph is fixed"
    return None


def _has_recurrent_operator(block: Any) -> bool:
    graph = json.loads(block._cached_graph[1].tojson())
    return any(node["op"] == "RNN" for node in graph["nodes"])


def _drop_graphs(net: Any) -> None:
    """Drop the graphs that the model's blocks have traced."""
    for _, block in _blocks(net):
        if isinstance(block, mx.gluon.HybridBlock):
            block._clear_cached_op()


# ---- layers that other code makes ----------------------------------------------------------------


class _Depth(threading.local):
    """How many `accelerated` contexts this thread is in."""

    value = 0


_depth = _Depth()
_lock = threading.Lock()
_hooked: Dict[Any, bool] = {}


def _new(cls: Any, *_: Any, **__: Any) -> Any:
    """Stands in for ``object.__new__`` of Gluon's layers."""
    return object.__new__(_OURS.get(cls, cls) if _depth.value else cls)


@contextlib.contextmanager
def accelerated() -> Iterator[None]:
    """Within the context, what this thread makes as ``gluon.rnn``'s layers and cells is fastrnn's.

    For code that builds its own layers, such as a library's models. Other threads are not
    affected, and classes derived from Gluon's stay as they are.

    Examples
    --------
    >>> with fastrnn.accelerated():
    ...     model = some_library.make_model()
    """
    with _lock:
        for gluons in _OURS:
            if gluons not in _hooked:
                gluons.__new__ = _new
                _hooked[gluons] = True
    _depth.value += 1
    try:
        yield
    finally:
        _depth.value -= 1
