"""MXNet's automatic mixed precision."""

from __future__ import annotations

import importlib
import subprocess
import sys

import processor
import pytest
import reference as ref
from cases import Parent, mx

import fastrnn
from fastrnn.mxnet import native

amp = importlib.import_module("mxnet.contrib.amp")


def printed(code):
    """Run a program of its own, since ``amp.init`` cannot be undone; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def needs_dense_in_bfloat16():
    if not processor.has("avx512bw"):
        pytest.skip("MXNet's Dense has no bfloat16 on a processor without AVX-512")


def needs_native():
    if not native.STATUS.usable:
        pytest.skip(native.STATUS.reason)


@pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "hybrid"])
@pytest.mark.parametrize("target", ["bfloat16", "float16"])
def test_the_layers_stay_in_float32(target, hybrid, backend):
    if (target, backend) == ("float16", "gluon"):
        pytest.skip("MXNet's RNN is not in float16 on a CPU")
    code = f"""
import fastrnn, mxnet as mx
from mxnet.contrib import amp
layer = fastrnn.LSTM(4, 2, bidirectional=True, backend={backend!r}, use_sequence_length=True)
layer.initialize()
arguments = [mx.nd.ones((3, 2, 5)), None, mx.nd.array([3, 1])]
before = layer(*arguments)
amp.init({target!r})
layer.hybridize({hybrid})
output = layer(*arguments)
assert layer.backend.name == {backend!r}
print(output.dtype.__name__, float(abs(output - before).max().asscalar()))
"""
    dtype, difference = printed(code).split()
    assert dtype == "float32"
    assert float(difference) < 1e-6


# What programs begin with: a model, and how it is trained, with scaled losses or without.
MODEL = """
import fastrnn, mxnet as mx, numpy as np
from mxnet.contrib import amp
from mxnet.gluon import nn

def model(backend, dense=True):
    rates = dict.fromkeys(["dropout", "weight_dropout", "drop_inputs", "drop_outputs"], 0.1)
    net = nn.HybridSequential()
    net.add(nn.Embedding(11, 5), fastrnn.LSTM(11, 2, input_size=5, backend=backend, **rates))
    net.add(nn.Dense(11, flatten=False, in_units=11) if dense else nn.Activation("relu"))
    mx.random.seed(1)
    net.initialize(mx.init.Uniform(0.5))
    return net

def train(net, steps, scaled, scale=None):
    trainer = mx.gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.02})
    if scaled:
        amp.init_trainer(trainer)
    if scale:
        trainer._amp_loss_scaler._loss_scale = trainer._amp_loss_scaler._next_loss_scale = scale
    cross_entropy = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    tokens = np.arange(40).reshape(8, 5) % 11
    inputs, targets = mx.nd.array(tokens), mx.nd.array((tokens + 1) % 11)
    mx.random.seed(2)
    losses = []
    for _ in range(steps):
        with mx.autograd.record():
            loss = cross_entropy(net(inputs), targets).mean()
            if scaled:
                with amp.scale_loss(loss, trainer) as scaled_loss:
                    mx.autograd.backward(scaled_loss)
            else:
                loss.backward()
        trainer.step(1)
        losses.append(float(loss.astype("float32").asscalar()))
    return losses, trainer
"""


@pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "hybrid"])
def test_a_model_trains_in_bfloat16(hybrid, backend):
    needs_dense_in_bfloat16()
    code = f"""
plain, _ = train(model({backend!r}), 60, False)
amp.init("bfloat16")
net = model({backend!r})
net.hybridize({hybrid})
losses, _ = train(net, 60, True)
assert net[1].backend.name == {backend!r}
print(plain[0], plain[-1], losses[0], losses[-1])
"""
    first, last, amp_first, amp_last = map(float, printed(MODEL + code).split())
    assert last < 0.5 * first
    assert amp_first == pytest.approx(first, rel=0.01)
    assert amp_last == pytest.approx(last, rel=0.1)


@pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "hybrid"])
def test_native_layers_train_with_amp_in_float16(hybrid):
    needs_native()
    code = f"""
plain, _ = train(model("native", dense=False), 60, False)
amp.init("float16")
net = model("native", dense=False)
net.hybridize({hybrid})
losses, _ = train(net, 60, True)
print(plain[0], plain[-1], losses[0], losses[-1])
"""
    first, last, amp_first, amp_last = map(float, printed(MODEL + code).split())
    assert last < 0.9 * first
    assert (amp_first, amp_last) == pytest.approx((first, last), rel=0.01)


def test_float64_layers_stay_in_float64_with_amp_in_float16():
    if "float64" not in native.STATUS.types:
        pytest.skip("the native operator does not cover float64")
    code = """
import fastrnn, mxnet as mx
from mxnet.contrib import amp
layer = fastrnn.LSTM(4, 2, input_size=5, dtype="float64", zoneout_outputs=0.5)
layer.initialize(mx.init.Uniform(0.5))
x = mx.nd.random.normal(shape=(3, 2, 5), dtype="float64")
x.attach_grad()

def gradient():
    mx.random.seed(1)
    with mx.autograd.record():
        output = layer(x)
    output.backward()
    return x.grad.copy()

before = gradient()
amp.init("float16")
layer.hybridize()
print(layer.backend.name, float(abs(gradient() - before).max().asscalar()))
"""
    assert printed(code).split() == ["native", "0.0"]


def test_an_overflow_skips_the_update_and_lowers_the_scale(backend):
    needs_dense_in_bfloat16()
    code = f"""
amp.init("bfloat16")
net = model({backend!r})
train(net, 1, True)
before = [p.data().asnumpy() for p in net.collect_params().values()]
_, trainer = train(net, 1, True, scale=2.0**140)
after = [p.data().asnumpy() for p in net.collect_params().values()]
print(all(map(np.array_equal, before, after)), trainer._amp_loss_scaler._next_loss_scale)
"""
    assert printed(MODEL + code).split() == ["True", str(2.0**139)]


def test_dropout_of_mixed_precision_is_drawn_in_the_layers_own_type():
    needs_native()
    code = """
import fastrnn, mxnet as mx
from fastrnn.mxnet import native
from mxnet.contrib import amp

class Net(mx.gluon.HybridBlock):
    def __init__(self):
        super().__init__()
        self.layer = fastrnn.LSTM(6, 2, dropout=0.4, input_size=5)

    def hybrid_forward(self, F, x):
        return self.layer(F.cast(x, "float16"))

amp.init("float16")
net, outputs = Net(), []
net.initialize()
for native.GPUS in (0, 1):
    net.hybridize()
    mx.random.seed(3)
    with mx.autograd.record():
        outputs.append(net(mx.nd.ones((4, 3, 5))))
print(float(abs(outputs[0] - outputs[1]).max().asscalar()))
"""
    assert float(printed(code)) < 1e-6


def test_after_mixed_precision_was_started_layers_are_gluons():
    code = """
import importlib.util, sys
spec = importlib.util.find_spec("fastrnn")
path = spec.submodule_search_locations[0] + "/mxnet/__init__.py"
shim = importlib.util.module_from_spec(importlib.util.spec_from_file_location("shim", path))
shim.__spec__.loader.exec_module(shim)
mx = shim.import_mxnet()
from mxnet.contrib import amp
amp.init()
import fastrnn
layer = fastrnn.GRU(4, input_size=3)
layer.initialize()
print(layer(mx.nd.ones((2, 2, 3))).shape)
print(layer.backend)
"""
    shape, backend = printed(code).splitlines()
    assert shape == "(2, 2, 4)"
    assert backend.startswith("gluon: ")


OPTIONS = {
    "plain": {},
    "rates": {"dropout": 0.5, "weight_dropout": 0.5, "drop_outputs": 0.5},
    "inputs": {"drop_inputs": 0.5},
    "bidirectional": {"bidirectional": True},
}


@pytest.mark.filterwarnings("ignore:Cannot decide type")
@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "ragged"])
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("target", ["bfloat16", "float16"])
def test_converted_models(target, option, lengths, backend, tmp_path):
    if (target, backend) == ("float16", "gluon"):
        pytest.skip("MXNet's RNN is not in float16 on a CPU")
    layers = 2 if option in ("rates", "bidirectional") else 1
    layer = fastrnn.GRU(
        6, layers, input_size=5, use_sequence_length=lengths, backend=backend, **OPTIONS[option]
    )
    net = Parent(layer)
    net.initialize(mx.init.Uniform(0.5))
    net.hybridize()
    states = [mx.nd.random.normal(shape=(layers * layer._dir, 3, 6))]
    arguments = [mx.nd.random.normal(shape=(4, 3, 5)), states]
    arguments += [mx.nd.array([4, 2, 0])] if lengths else []
    wanted, _ = net(*arguments)
    block = amp.convert_hybrid_block(net, target, ctx=mx.cpu())
    values = [arguments[0], *states, *arguments[2:]]
    found, _ = block(*values)
    ref.assert_close(found, wanted.asnumpy())
    net.export(str(tmp_path / "net"))
    symbol, weights, others = mx.model.load_checkpoint(str(tmp_path / "net"), 0)
    symbol, weights, others = amp.convert_model(symbol, weights, others, target)
    weights.update({f"data{k}": value for k, value in enumerate(values)})
    found = symbol.bind(mx.cpu(), weights, aux_states=others).forward()[0]
    ref.assert_close(found, wanted.asnumpy())
