"""A training step: the loss's gradient, sparse gradients, and clipping."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from fastrnn.lm import data, evaluation, preset
from fastrnn.lm.command.profile import profile, table
from fastrnn.lm.evaluation import predict
from fastrnn.lm.models import build_model, parameter_values
from fastrnn.lm.training import Training, differentiate, global_norm, trainer
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()
CPU = [mx.cpu()]
TEXT = data.load_text("builtin")[:2000]
SMALL = {"embed": 8, "hidden": 16, "batch": 4, "steps": 20, "validation": 0.0, "data": "builtin"}
SGD = preset("zaremba-small", **SMALL, level="character", min_count=1)


def embedding_gradient(settings, contexts=CPU):
    return Training(settings, TEXT, contexts).model.embedding.weight.grad(contexts[0])


def gradients(model):
    return {name: p.grad().asnumpy() for name, p in model.collect_params().items()}


@pytest.mark.parametrize("changes", [{}, {"model": "unrolled"}])
def test_the_gradient_of_the_loss_is_autograds(changes):
    model = build_model(SGD.updated(changes), 30)
    model.initialize(mx.init.Uniform(1.0))
    shape = (4, SGD.window) if changes else (5, 4)
    tokens, targets = (
        mx.nd.array(np.random.default_rng(k).integers(30, size=size), dtype="int32")
        for k, size in enumerate((shape, shape[:1] if changes else shape))
    )
    states = None if changes else model.begin_state(4)
    with mx.autograd.record():
        logits, _ = predict(model, tokens, states)
        wanted = -mx.nd.pick(mx.nd.log_softmax(logits, axis=-1), targets, axis=-1).sum()
    wanted.backward()
    of_autograd = gradients(model)
    loss, _ = differentiate(model, tokens, targets, states)
    assert loss.shape == (1,)
    assert float(loss.asscalar()) == float(wanted.asscalar())
    for name, got in gradients(model).items():
        bound = 1e-5 * np.abs(of_autograd[name]).max()
        np.testing.assert_allclose(got, of_autograd[name], rtol=0, atol=bound, err_msg=name)


def test_a_loss_beyond_the_range_of_probabilities_is_finite():
    logits = mx.nd.array([[[300.0, 0.0, -300.0]]])
    targets = mx.nd.array([[2]], dtype="int32")
    loss, gradient = evaluation.loss_and_gradient(logits, targets)
    assert float(loss.asscalar()) == 600
    np.testing.assert_array_equal(gradient.asnumpy(), [[[1, 0, -1]]])


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, "row_sparse"),
        ({"model": "unrolled"}, "row_sparse"),
        ({"optimizer": "adam"}, "default"),  # it also moves rows without a gradient
        ({"tie_weights": True, "embed": 16}, "default"),
    ],
)
def test_only_plain_sgd_has_sparse_gradients(changes, wanted):
    assert embedding_gradient(SGD.updated(changes)).stype == wanted


@pytest.mark.parametrize("contexts", [1, 2])
@pytest.mark.parametrize("changes", [{}, {"clip": 0.0, "rate": 0.1}, {"model": "unrolled"}])
def test_sparse_gradients_give_the_dense_ones_numbers(changes, contexts, monkeypatch):
    settings = SGD.updated({"clip": 0.05, **changes})
    devices = [mx.cpu(k) for k in range(contexts)]

    def trained():
        run = Training(settings, TEXT, devices)
        before = parameter_values(run.model)
        for _ in range(2):
            run.run_epoch()
        return before, parameter_values(run.model), run

    before, sparse, run = trained()
    monkeypatch.setattr(trainer, "build_model", lambda s, size, _: build_model(s, size))
    _, dense, other = trained()
    stypes = [r.model.embedding.weight.grad(mx.cpu(0)).stype for r in (run, other)]
    assert stypes == ["row_sparse", "default"]
    for name, value in dense.items():
        moved = np.abs(value - before[name]).max()
        assert moved > 0, name
        np.testing.assert_allclose(sparse[name], value, rtol=0, atol=1e-4 * moved, err_msg=name)


def test_the_global_norm_counts_sparse_gradients():
    dense = np.random.default_rng(0).standard_normal((6, 3)).astype("f4")
    dense[[1, 4]] = 0
    arrays = [mx.nd.array(dense), mx.nd.array(dense).tostype("row_sparse")]
    got = float(global_norm(arrays).asscalar())
    assert got == pytest.approx(np.sqrt(2) * np.linalg.norm(dense), rel=1e-6)
    assert global_norm(arrays[1:]).asscalar() == pytest.approx(np.linalg.norm(dense), rel=1e-6)


PASS = ["  embedding", "  recurrent layers", "  dropout", "  dense layers", "  other"]


@pytest.mark.parametrize(
    ("changes", "of_pass"),
    [({"dropout": 0.3}, PASS), ({"model": "unrolled"}, [PASS[0], *PASS[3:]])],
)
def test_the_profile_names_every_part(changes, of_pass):
    run = Training(SGD.updated(changes), TEXT, CPU)
    rows = profile(run, steps=8)
    names = ["data", "forward", *of_pass, "loss", "backward", *of_pass, "clipping", "update"]
    assert [name for name, _ in rows] == [*names, "reading back", "together", "undisturbed"]
    assert all(seconds >= 0 for _, seconds in rows)
    together = dict(rows)["together"]
    parts = sum(seconds for name, seconds in rows[:-2] if name[0] != " ")
    assert 0.1 * together < parts < together
    begins = (2, 4 + len(of_pass))
    of_forward, of_backward = ([s for _, s in rows[k : k + len(of_pass)]] for k in begins)
    assert sum(of_forward) == pytest.approx(rows[1][1])
    assert of_forward != of_backward
    again = profile(run, steps=2)  # the first one's operators are not in it
    assert sum(s for _, s in again[2 : 2 + len(of_pass)]) == pytest.approx(again[1][1])


def test_the_profiler_gets_a_file_of_its_own(monkeypatch):
    # MXNet deletes it: run as root, this may not be /dev/null.
    files = []
    set_config = mx.profiler.set_config

    def watched(filename, **options):
        files.append(Path(filename))
        set_config(filename=filename, **options)

    monkeypatch.setattr(mx.profiler, "set_config", watched)
    before = set(Path(tempfile.gettempdir()).iterdir())
    profile(Training(SGD, TEXT, CPU), steps=1)
    assert files[0].parent.parent == Path(tempfile.gettempdir())
    assert files[0].parent not in before


def test_the_profiles_table():
    rows = [("data", 0.001), ("forward", 0.003), ("together", 0.004), ("undisturbed", 0.002)]
    assert [line.split() for line in table(rows).splitlines()] == [
        ["part", "ms", "share"],
        ["data", "1.00", "25.0%"],
        ["forward", "3.00", "75.0%"],
        ["together", "4.00", "100.0%"],
        ["undisturbed", "2.00"],
    ]
