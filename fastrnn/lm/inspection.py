"""Looking into a trained model: what its units do, and how far back its gradients reach."""

from __future__ import annotations

import importlib.util
from typing import Any, Dict, Sequence, Tuple

import numpy as np

from fastrnn.lm.batches import too_short
from fastrnn.lm.errors import InputError
from fastrnn.lm.evaluation import loss_and_gradient
from fastrnn.lm.generation import Writer
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()


def activations(writer: Writer, text: str) -> np.ndarray:
    """What the hidden units of a recurrent model are after each token of a text.

    Parameters
    ----------
    writer : Writer
        With a model that has a state.
    text : str
        At least one token.

    Returns
    -------
    ndarray, shape (tokens, layers, hidden)
    """
    _check_recurrent(writer)
    numbers = writer.vocabulary.encode(text)
    if not len(numbers):
        raise InputError("text: got '', wanted at least one token")
    state, found = None, []
    for number in numbers:
        _, state = writer.read(np.array([number], np.int32), state)
        found.append(state[0].asnumpy()[:, 0])
    return np.stack(found)


def units_for(values: np.ndarray, features: Dict[str, np.ndarray]) -> Dict[str, Tuple[int, float]]:
    """For each feature of a text, the unit that follows it most closely, and its correlation.

    Parameters
    ----------
    values : ndarray, shape (tokens, units)
        Such as one layer of :func:`activations`.
    features : dict of ndarray, shape (tokens,)
        What is known of each token. One that is the same everywhere has no unit.
    """
    centred = values - values.mean(axis=0)
    scale = np.sqrt((centred**2).sum(axis=0))
    found = {}
    for name, feature in features.items():
        wanted = feature - feature.mean()
        size = np.sqrt((wanted**2).sum())
        if size > 0:
            # A unit that never changes follows nothing.
            correlation = wanted @ centred / np.maximum(scale * size, 1e-30)
            best = int(np.abs(correlation).argmax())
            found[name] = best, float(correlation[best])
    return found


def gradient_by_distance(
    writer: Writer, numbers: np.ndarray, distance: int = 60, rows: int = 16
) -> np.ndarray:
    """How much a loss depends on the state some tokens before it.

    The text is cut into `rows` pieces. In each, the model reads some tokens, then `distance` more,
    and predicts one. The gradient of that loss with respect to the state after each of the latter
    tokens is what backpropagation through time would send there.

    Parameters
    ----------
    writer : Writer
        With a model that has a state.
    numbers : ndarray, shape (tokens,)
        At least ``rows * (2 * distance + 2)`` tokens.
    distance : int
        Tokens to look back.
    rows : int
        Pieces to take the mean of.

    Returns
    -------
    ndarray, shape (distance + 1,)
        The norm of d loss / d state, by how many tokens the state is before the loss. The state
        is that of all layers; for the LSTM it has the cells as well as the hidden units.
    """
    _check_recurrent(writer)
    for name, value in (("distance", distance), ("rows", rows)):
        if value < 1:
            raise InputError(f"{name}: got {value}, wanted at least 1")
    length = len(numbers) // rows
    if length < 2 * distance + 2:
        raise too_short(numbers, f"{rows} rows of this distance take {rows * (2 * distance + 2)}")
    streams = numbers[: rows * length].reshape(rows, length)[:, : 2 * distance + 2].T
    tokens = mx.nd.array(streams, writer.context, dtype="int32")
    model = writer.model
    _, state = model(tokens[:distance], model.begin_state(rows, ctx=writer.context))
    # Gluon has no gradients by what is computed on the way, so each state gets a zero added that
    # has one.
    added = [[mx.nd.zeros_like(part) for part in state] for _ in range(distance + 1)]
    for parts in added:
        for part in parts:
            part.attach_grad()
    with mx.autograd.record(train_mode=False):
        for step, parts in enumerate(added):
            logits, after = model(tokens[distance + step : distance + step + 1], state)
            state = [part + zero for part, zero in zip(after, parts)]
        output = state[0][-1]  # the decoder reads the last layer's hidden units
        logits = model.decoder(output)
    _, gradient = loss_and_gradient(logits, tokens[-1])
    logits.backward(gradient, train_mode=False)
    norms = [_norms([part.grad for part in parts]).mean() for parts in added]
    return np.array(norms[::-1])


def _norms(gradients: Sequence[Any]) -> np.ndarray:
    """The norm in each row of arrays of shape (layers, rows, units), taken together."""
    return np.sqrt(
        sum((part.asnumpy().astype(np.float64) ** 2).sum(axis=(0, 2)) for part in gradients)
    )


def _check_recurrent(writer: Writer) -> None:
    if writer.settings.model == "unrolled":
        raise InputError("model: the unrolled one has no state, wanted a recurrent one")


def pyplot() -> Any:
    """``matplotlib.pyplot``; ImportError says which extra brings it."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError("the notebook needs matplotlib: pip install 'fastrnn[notebook]'")
    import matplotlib.pyplot as plt

    return plt


def draw_tinted(axes: Any, text: str, values: np.ndarray, width: int = 80) -> None:
    """Draw a text in lines, each character on the colour of its value.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    text : str
    values : ndarray, shape (characters,)
        From -1, blue, over 0, white, to 1, red.
    width : int
        Characters in a line.
    """
    if len(values) != len(text):
        raise InputError(f"values: got {len(values)}, wanted {len(text)}, one for each character")
    lines = -(-len(text) // width)
    colours = np.zeros(lines * width)
    colours[: len(text)] = values
    axes.imshow(colours.reshape(lines, width), cmap="RdBu_r", vmin=-1.3, vmax=1.3, aspect="auto")
    for at, character in enumerate(text):
        shown = "¶" if character == "\n" else character
        place = {"ha": "center", "va": "center", "family": "monospace", "fontsize": 7}
        axes.text(at % width, at // width, shown, parse_math=False, **place)
    axes.set_axis_off()
