"""The tutorial's language model with each library's layer: one update, or one character written.

On the CPU it is fastrnn's own model, with its layer or MXNet's, and PyTorch's modules. On a GPU it
is PyTorch's modules, with PyTorch's layer, which is cuDNN, or fastrnn's kernels. The models are in
peers/, beside the layers.

An embedding, the layer, a decoder; an update is forward, backward, clipping by the global norm and
Adam or plain SGD, with the state carried over. Without dropout, so that all begin with the same
loss, which is checked against the oracle's.
"""

from __future__ import annotations

from typing import Any, List, NamedTuple

import numpy as np

from bench import data as bench_data
from bench.cases import Case
from bench.data import Results
from bench.peers.base import Layer

RATE = 1e-3
CLIP = 0.2 * 100 * 32  # of the gradient's norm, the loss being a sum


class TextData(NamedTuple):
    """Float32 weights, and numbers of characters."""

    embedding: np.ndarray  # [V, I]
    weights: List[np.ndarray]  # of the layers, as `data.Data`
    decoder: np.ndarray  # [V, H]
    bias: np.ndarray  # [V]
    characters: np.ndarray  # [T, N], int32
    targets: np.ndarray  # [T, N], int32


def draw(case: Case) -> TextData:
    """Random weights and text, the same in every process."""
    rng = np.random.RandomState(9)
    size = (case.steps, case.batch)
    return TextData(
        rng.uniform(-0.1, 0.1, (case.vocabulary, case.inputs)).astype(np.float32),
        bench_data.draw(case).weights,
        rng.uniform(-0.05, 0.05, (case.vocabulary, case.hidden)).astype(np.float32),
        np.zeros(case.vocabulary, np.float32),
        rng.randint(case.vocabulary, size=size).astype(np.int32),
        rng.randint(case.vocabulary, size=size).astype(np.int32),
    )


def expected(case: Case, text: TextData) -> Results:
    """The loss of the first update, or the first logits, by the oracle."""
    x = text.embedding[text.characters]
    inference = Case(**{**case.__dict__, "train": False})
    values = bench_data.Data(text.weights, [x], [], None)
    output = bench_data.expected(inference, values)["output"]
    logits = output @ text.decoder.T.astype(np.float64) + text.bias
    if not case.train:
        return {"logits": logits[-1]}
    above = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
    chosen = np.take_along_axis(logits, text.targets[..., np.newaxis], -1)[..., 0]
    return {"loss": np.array([(above - chosen).sum()])}


class Model(Layer):
    """An update or a character in each run, of which the loss or the logits are kept."""

    uncapturable = "its results are copied to the host"

    def __init__(self, case: Case):
        self._case = case
        self._latest: Any = None

    def results(self) -> Results:
        return {"loss" if self._case.train else "logits": self._latest}
