"""A client's network before and after `fastrnn.accelerate`."""

from __future__ import annotations

import time

import numpy as np

import fastrnn
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()


def flat(outcome):
    """The arrays of a result with lists in it."""
    if isinstance(outcome, (list, tuple)):
        return [array for item in outcome for array in flat(item)]
    return [] if outcome is None else [outcome]


def parameters(net):
    """The parameters that have gradients; a dropped one stands for the one that it drops from."""
    found = (getattr(p, "_orig_param", p) for p in net.collect_params().values())
    return {parameter.name: parameter for parameter in found if parameter.grad_req != "null"}


def step(net, call, training=True):
    """Outputs, gradients and loss: the first output's mean squared distance from 1."""
    mx.random.seed(5)
    with mx.autograd.record(train_mode=training):
        outputs = flat(call(net))
        loss = ((outputs[0] - 1) ** 2).mean()
    loss.backward()
    gradients = {name: parameter.grad().asnumpy() for name, parameter in parameters(net).items()}
    return [array.asnumpy() for array in outputs], gradients, loss.asnumpy().item()


def seconds(net, call, times):
    """The shortest time of a training step, after one that traces graphs."""
    found = []
    for _ in range(1 + times):
        mx.nd.waitall()
        begin = time.perf_counter()
        step(net, call)
        mx.nd.waitall()
        found.append(time.perf_counter() - begin)
    return min(found[1:])


def compared_seconds(net, call, times):
    """The shortest times of Gluon's and of fastrnn's steps, by turns: other processes disturb."""
    gluons, ours = [], []
    for _ in range(6):
        fastrnn.restore(net)
        gluons.append(seconds(net, call, times))
        fastrnn.accelerate(net)
        ours.append(seconds(net, call, times))
    return min(gluons), min(ours)


def close(got, wanted, name, least=1e-30):
    assert got.shape == wanted.shape, name
    assert np.isfinite(wanted).all(), name
    bound = 1e-4 * np.abs(wanted).max(initial=least)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=bound, err_msg=name)


def check(net, call, replaced, timed=True, times=5):
    """Accelerate `net`; compare results and gradients of `call(net)`, print times, and train it.

    Parameters
    ----------
    replaced : int
        How many layers and cells have to be replaced.
    timed : bool
        Whether to print the time of a training step: Gluon's, fastrnn's, and their ratio.
    """
    step(net, call)  # shapes, graphs
    alone = step(net, call, training=False)
    trained = step(net, call)
    report = fastrnn.accelerate(net)
    assert len(report.replaced) == replaced, report
    for wanted, training in ((alone, False), (trained, True)):
        outputs, gradients, _ = step(net, call, training)
        for number, (got, array) in enumerate(zip(outputs, wanted[0])):
            close(got, array, f"output {number}")
        assert gradients.keys() == wanted[1].keys()
        for name, gradient in wanted[1].items():
            close(gradients[name], gradient, name)
    if timed:
        before, after = compared_seconds(net, call, times)
        print(f"{before * 1e3:.1f} ms / {after * 1e3:.1f} ms = {before / after:.2f}")
    trainer = mx.gluon.Trainer(parameters(net), "adam", {"learning_rate": 1e-3})
    losses = []
    for _ in range(8):
        losses.append(step(net, call, training=False)[2])
        trainer.step(1)
    assert losses[-1] < losses[0]
