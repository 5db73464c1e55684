"""The tutorial's language model with each library's layer: one update, or one character written.

On the CPU it is fastrnn's own model, with its layer or MXNet's, and PyTorch's modules. On a GPU it
is PyTorch's modules, with PyTorch's layer, which is cuDNN, or fastrnn's kernels.

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
from bench.peers.gluon import expect_native, gluon_layer, layer_parameters
from bench.peers.pytorch import use_tf32

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


class _Model(Layer):
    uncapturable = "its results are copied to the host"

    def __init__(self, case: Case):
        self._case = case
        self._latest: Any = None

    def results(self) -> Results:
        return {"loss" if self._case.train else "logits": self._latest}


class GluonModel(_Model):
    """fastrnn's language model on the CPU, with its own layer or with MXNet's."""

    def __init__(self, case: Case, text: TextData, own_layer: bool):
        from fastrnn.lm.models import LanguageModel
        from fastrnn.mxnet import import_mxnet

        super().__init__(case)
        mx = self._mx = import_mxnet()
        model = LanguageModel(
            case.vocabulary,
            case.cell,
            case.inputs,
            case.hidden,
            case.layers,
            sparse_gradient=case.optimizer == "sgd",
        )
        if own_layer:
            expect_native(model.rnn)
        else:
            del model.rnn  # Gluon refuses to change an attribute's type
            model.rnn = gluon_layer(mx.gluon.rnn, case)
        model.initialize()
        values = zip(layer_parameters(model.rnn, len(text.weights)), text.weights)
        for parameter, array in [
            *values,
            (model.embedding.weight, text.embedding),
            (model.decoder.weight, text.decoder),
            (model.decoder.bias, text.bias),
        ]:
            parameter.set_data(mx.nd.array(array))
        self._model = model
        model.hybridize()
        self._parameters = list(self._model.collect_params().values())
        self._trainer = mx.gluon.Trainer(
            self._model.collect_params(), case.optimizer, {"learning_rate": RATE}, kvstore=None
        )
        self._characters = mx.nd.array(text.characters, dtype="int32")
        self._targets = mx.nd.array(text.targets, dtype="int32")
        self._states = self._model.begin_state(case.batch)

    def run(self, number: int) -> None:
        """Update once, or read one character and look at the logits."""
        if self._case.train:
            self._update()
        else:
            logits, self._states = self._model(self._characters, self._states)
            self._latest = logits[-1].asnumpy()

    def _update(self) -> None:
        from fastrnn.lm.training import differentiate, global_norm

        loss, self._states = differentiate(
            self._model, self._characters, self._targets, self._states
        )
        norm = float(global_norm([p.grad() for p in self._parameters]).asscalar())
        rows = self._case.batch
        self._trainer.update(rows * max(1.0, norm / CLIP))
        self._latest = loss.asnumpy()
        self._mx.nd.waitall()


class PytorchModel(_Model):
    """The same of PyTorch's modules, around a layer that is called as PyTorch's are."""

    def __init__(self, case: Case, text: TextData, device: str, layer: Any):
        import torch

        super().__init__(case)
        self._torch = torch
        nn = torch.nn
        self._embedding = nn.Embedding(case.vocabulary, case.inputs).to(device)
        self._layer = layer.to(device)
        self._decoder = nn.Linear(case.hidden, case.vocabulary).to(device)
        modules = (self._embedding, self._layer, self._decoder)
        self._parameters = [p for module in modules for p in module.parameters()]
        arrays = [text.embedding, *text.weights, text.decoder, text.bias]
        with torch.no_grad():
            for parameter, array in zip(self._parameters, arrays):
                parameter.copy_(torch.from_numpy(array))
        optimizers = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
        self._optimizer = optimizers[case.optimizer](self._parameters, lr=RATE)
        self._characters = torch.from_numpy(text.characters).long().to(device)
        self._targets = torch.from_numpy(text.targets).long().to(device)
        self._states: Any = None

    def _logits(self) -> Any:
        output, states = self._layer(self._embedding(self._characters), self._states)
        states = states if isinstance(states, tuple) else (states,)
        states = tuple(state.detach() for state in states)
        self._states = states if len(states) > 1 else states[0]
        return self._decoder(output)

    def run(self, number: int) -> None:
        """Update once, or read one character and look at the logits."""
        torch = self._torch
        use_tf32(torch, self._case)
        if not self._case.train:
            with torch.no_grad():
                self._latest = self._logits()[-1].cpu().numpy()
            return
        loss = torch.nn.functional.cross_entropy(
            self._logits().flatten(0, 1), self._targets.flatten(), reduction="sum"
        )
        self._optimizer.zero_grad()
        loss.backward()
        for parameter in self._parameters:  # the loss is a sum, of which Adam gets the mean
            parameter.grad /= self._case.batch
        torch.nn.utils.clip_grad_norm_(self._parameters, CLIP / self._case.batch)
        self._optimizer.step()
        self._latest = loss.detach().cpu().numpy().reshape(1)
