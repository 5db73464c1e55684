"""Gluon's layers: fastrnn's on the CPU, and MXNet's own, which are what its users have today."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import numpy as np

from bench.cases import Case
from bench.data import Data, Results, named
from bench.language_model import CLIP, RATE, Model, TextData
from bench.peers.base import Layer, Peer


def _mxnet() -> Any:
    from fastrnn.mxnet import import_mxnet

    return import_mxnet()


def _obstacle() -> Optional[str]:
    """Why there is no MXNet, in one line."""
    try:
        _mxnet()
    except ImportError as error:  # also where it is installed and does not load
        return str(error).splitlines()[0]
    return None


def gluon_layer(library: Any, case: Case, **options: Any) -> Any:
    """A layer of ``fastrnn`` or ``mx.gluon.rnn``, without values."""
    options["num_layers"] = case.layers
    options["input_size"] = case.inputs
    options["bidirectional"] = case.bidirectional
    if case.cell.startswith("rnn_"):
        return library.RNN(case.hidden, activation=case.cell[len("rnn_") :], **options)
    return getattr(library, case.cell.upper())(case.hidden, **options)


def layer_parameters(layer: Any, count: int, directions: int = 1) -> List[Any]:
    """The parameters of a Gluon layer in the order of `data.Data.weights`."""
    kinds = ("i2h_weight", "h2h_weight", "i2h_bias", "h2h_bias")
    names = [
        f"{'lr'[k // 4 % directions]}{k // (4 * directions)}_{kinds[k % 4]}" for k in range(count)
    ]
    return [getattr(layer, name) for name in names]


class _GluonLayer(Layer):
    uncapturable = "MXNet's engine works in threads and on streams of its own"

    def __init__(self, library: Any, case: Case, data: Data, device: str):
        mx = self._mx = _mxnet()
        self._case = case
        context = mx.gpu(0) if device == "cuda" else mx.cpu()
        layer = gluon_layer(library, case, dtype=case.dtype, use_sequence_length=case.ragged)
        layer.initialize(ctx=context)
        self._weights = layer_parameters(layer, len(data.weights), case.directions)
        for parameter, array in zip(self._weights, data.weights):
            parameter.set_data(mx.nd.array(array, dtype=array.dtype))
        if case.hybridize:
            layer.hybridize(static_alloc=True, static_shape=True)
        self._layer = layer
        put = {"ctx": context, "dtype": case.dtype}
        self._xs = [mx.nd.array(x, **put) for x in data.xs]
        self._d_outputs = [mx.nd.array(d, **put) for d in data.d_outputs]
        states = layer.begin_state(case.batch, ctx=context, dtype=case.dtype)
        lengths = [] if data.lengths is None else [mx.nd.array(data.lengths, ctx=context)]
        self._arguments = [states, *lengths]
        if case.train:
            for x in self._xs:
                x.attach_grad()
        self._latest: List[Any] = []

    def run(self, number: int) -> None:
        x = self._xs[number]
        if not self._case.train:
            self._latest = [self._layer(x, *self._arguments)[0]]
        else:
            with self._mx.autograd.record():
                output, _ = self._layer(x, *self._arguments)
            output.backward(self._d_outputs[number])
            self._latest = [output, x.grad, *(p.grad() for p in self._weights)]
        for array in self._latest:
            array.wait_to_read()

    def results(self) -> Results:
        arrays = [array.asnumpy().astype(np.float32) for array in self._latest]
        if not self._case.train:
            return {"output": arrays[0]}
        return named(arrays[0], arrays[1], arrays[2:])


class _FastrnnLayer(_GluonLayer):
    def facts(self) -> Dict[str, str]:
        return {"backend": str(self._layer.backend)}


def expect_native(layer: Any) -> None:
    """Raise RuntimeError if a layer of fastrnn's runs on Gluon's operators.

    These are what it is compared with, so a row of them would say nothing.
    """
    if layer.backend.name != "native":
        raise RuntimeError(f"fastrnn's layer is not native; it runs on {layer.backend}")


class GluonModel(Model):
    """fastrnn's language model on the CPU, with its own layer or with MXNet's."""

    def __init__(self, case: Case, text: TextData, own_layer: bool):
        from fastrnn.lm.models import LanguageModel

        super().__init__(case)
        mx = self._mx = _mxnet()
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


class Fastrnn(Peer):
    """fastrnn's layers on the CPU."""

    name = package = "fastrnn"
    dtypes = ("float32",)

    def mandatory(self, device: str, task: str = "layer") -> bool:
        return True

    def available(self, device: str) -> Optional[str]:
        return _obstacle()

    def version(self) -> str:
        import fastrnn

        return fastrnn.__version__

    def build(self, case: Case, data: Data, device: str) -> Layer:
        import fastrnn

        layer = _FastrnnLayer(fastrnn, case, data, device)
        expect_native(layer._layer)
        return layer

    def build_model(self, case: Case, text: TextData, device: str) -> Layer:
        return GluonModel(case, text, own_layer=True)


class Mxnet(Peer):
    """``mx.gluon.rnn``."""

    name = "MXNet"
    package = "fastrnn"  # which makes MXNet work with a newer NumPy

    def available(self, device: str) -> Optional[str]:
        obstacle = _obstacle()
        if obstacle is not None or device == "cpu":
            return obstacle
        mx = _mxnet()
        if not mx.context.num_gpus():
            return "its build sees no GPU"
        try:
            mx.nd.ones((1,), ctx=mx.gpu(0)).wait_to_read()
        except mx.MXNetError as error:  # its newest machine code is for compute capability 8.6
            return str(error).strip().splitlines()[-1]
        return None

    def version(self) -> str:
        return _mxnet().__version__

    def supports(self, case: Case, device: str) -> Optional[str]:
        if case.ragged and device == "cpu":
            return "its CPU path ignores lengths"
        if case.ragged and case.cell != "lstm":
            return "lengths are for its LSTM only"
        if case.dtype != "float32" and (device == "cpu" or case.dtype == "bfloat16"):
            return f"no {case.dtype} on this device"
        return None

    def build(self, case: Case, data: Data, device: str) -> Layer:
        return _GluonLayer(_mxnet().gluon.rnn, case, data, device)

    def build_model(self, case: Case, text: TextData, device: str) -> Layer:
        if device != "cpu":
            return super().build_model(case, text, device)
        return GluonModel(case, text, own_layer=False)
