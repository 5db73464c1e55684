"""What is benchmarked: a layer, its sizes, and how it is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, List

import fastrnn
from fastrnn._mxnet import import_mxnet

mx = import_mxnet()

CELLS = ("lstm", "gru", "rnn_tanh", "rnn_relu")


@dataclass(frozen=True)
class Case:
    """One row of the comparison."""

    cell: str
    layers: int = 2
    inputs: int = 50
    hidden: int = 1000
    batch: int = 32
    steps: int = 100
    bidirectional: bool = False
    train: bool = True
    hybridize: bool = False

    @property
    def name(self) -> str:
        """Such as ``lstm 2x1000 I=50 N=32 T=100 train``."""
        words = [
            self.cell,
            f"{self.layers}x{self.hidden}" + (" bidirectional" if self.bidirectional else ""),
            f"I={self.inputs} N={self.batch} T={self.steps}",
            "train" if self.train else "infer",
        ]
        return " ".join(words + ["hybrid"] * self.hybridize)

    def layer(self, library: Any) -> Any:
        """The initialized layer of ``fastrnn`` or ``mx.gluon.rnn``."""
        options = {
            "num_layers": self.layers,
            "input_size": self.inputs,
            "bidirectional": self.bidirectional,
        }
        if self.cell.startswith("rnn_"):
            layer = library.RNN(self.hidden, activation=self.cell[len("rnn_") :], **options)
        else:
            layer = getattr(library, self.cell.upper())(self.hidden, **options)
        layer.initialize(mx.init.Xavier())
        if self.hybridize:
            layer.hybridize(static_alloc=True, static_shape=True)
        return layer

    def call(self, library: Any) -> Callable[[], List[Any]]:
        """A function that runs the layer once and waits until it has; it returns the results.

        Training is forward and backward, with the gradients of input and weights.
        """
        layer = self.layer(library)
        return self.call_of(layer)

    def call_of(self, layer: Any) -> Callable[[], List[Any]]:
        """As `call`, of a layer that exists."""
        inputs = mx.nd.random.normal(shape=(self.steps, self.batch, self.inputs))
        states = layer.begin_state(self.batch)
        if not self.train:
            return lambda: _wait([layer(inputs, states)[0]])
        inputs.attach_grad()
        weights = [p.data() for p in layer.collect_params().values()]

        def step() -> List[Any]:
            with mx.autograd.record():
                output, _ = layer(inputs, states)
            output.backward()
            return _wait([output, inputs.grad] + [weight.grad for weight in weights])

        return step

    def pair(self) -> List[Callable[[], List[Any]]]:
        """The calls of fastrnn's and of MXNet's layer, with the same weights and input."""
        ours, theirs = self.layer(fastrnn), self.layer(mx.gluon.rnn)
        for mine, other in zip(ours.collect_params().values(), theirs.collect_params().values()):
            mine.set_data(other.data())
        calls = []
        for layer in (ours, theirs):
            mx.random.seed(1)
            calls.append(self.call_of(layer))
        return calls


def _wait(arrays: List[Any]) -> List[Any]:
    for array in arrays:
        array.wait_to_read()
    return arrays


# The tutorial's model, for each cell.
TRAINING = [Case(cell) for cell in CELLS]

# Other sizes that people train at.
SIZES = [
    Case("lstm", hidden=200, inputs=200, batch=20, steps=20),
    Case("lstm", layers=1, hidden=256, inputs=64),
    Case("lstm", hidden=650, inputs=650, batch=20, steps=35),
    Case("lstm", layers=1, hidden=512, inputs=128, steps=35, bidirectional=True),
    Case("gru", hidden=256, inputs=128, steps=35),
    Case("gru", layers=1, hidden=512, inputs=128, batch=64, steps=35, bidirectional=True),
    Case("rnn_tanh", hidden=256, inputs=128, steps=35),
    Case("lstm", layers=1, hidden=128, inputs=32, batch=1, steps=35),
]

# Inference on whole sequences.
INFERENCE = [
    Case("lstm", train=False),
    Case("gru", train=False),
    Case("lstm", batch=1, train=False),
    Case("gru", hidden=256, batch=8, train=False),
]

# One step, as in generating text.
ONE_STEP = [
    Case("lstm", batch=1, steps=1, train=False),
    Case("lstm", batch=1, steps=1, train=False, hybridize=True),
    Case("gru", batch=1, steps=1, train=False),
    Case("rnn_tanh", batch=1, steps=1, train=False),
    Case("lstm", batch=32, steps=1, train=False),
    Case("lstm", layers=1, hidden=256, inputs=64, batch=1, steps=1, train=False),
]
