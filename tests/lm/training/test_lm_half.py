"""Training in float16, with float32 copies of the parameters and a loss scale."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from small_runs import CPU, SMALL, TEXT, same, trained

from fastrnn.lm import InputError, preset
from fastrnn.lm.models import _Decoder, parameter_values, parameters_of
from fastrnn.lm.training import Training, scaling
from fastrnn.lm.training.checkpoint import load_checkpoint, save_checkpoint
from fastrnn.lm.training.scaling import LossScale
from fastrnn.mxnet import import_mxnet, native

mx = import_mxnet()

HALF = {**SMALL, "dtype": "float16", "dropout": 0.0}


def training_of(**changes):
    return Training(preset("demo", **{**HALF, **changes}), TEXT, CPU)


def first_batch(training):
    _, batches = training._batches(np.random.default_rng(0))
    return next(iter(batches))


def step(training):
    """Make one update of a training, from zero states."""
    training._step(*first_batch(training), training._begin_states(training.settings.batch))
    return training


@pytest.mark.parametrize("optimizer, rate", [("adam", 0.01), ("sgd", 0.5)])
def test_the_loss_falls_as_in_float32(optimizer, rate):
    changes = {"optimizer": optimizer, "rate": rate}
    half = trained(preset("demo", **{**HALF, **changes}), 3)
    full = trained(preset("demo", **{**HALF, **changes, "dtype": "float32"}), 3)
    losses = [[row["loss"] for row in training.progress.rows] for training in (half, full)]
    assert losses[0][-1] < losses[0][0]
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.05)
    assert {array.dtype.name for array in parameter_values(half.model).values()} == {"float16"}
    for arrays in half.checkpoint().optimizer.values():
        assert {array.dtype.name for array in arrays} == {"float32"}


@pytest.mark.parametrize("clip", [0, 0.05])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_an_update_is_the_one_of_float32(optimizer, tied, clip):
    changes = {"optimizer": optimizer, "clip": clip, "rate": 1.0, "tie_weights": tied}
    changes["embed"] = SMALL["hidden"]
    half, full = training_of(**changes), training_of(**changes, dtype="float32")
    begin = parameter_values(half.model)
    for name, parameter in parameters_of(full.model).items():
        parameter.set_data(mx.nd.array(begin[name].astype(np.float32)))
    step(half)
    step(full)
    # What the float32 copies moved by, not their rounded values.
    place = 0 if optimizer == "adam" else -1
    copies = half.checkpoint().optimizer
    for name, after in parameter_values(full.model).items():
        copy = copies[name][place]
        moved, wanted = copy - begin[name], after - begin[name]
        if optimizer == "adam":  # its first update is the sign of the gradient
            assert np.mean(np.abs(moved - wanted) > 1e-2) < 0.05, name
        else:
            np.testing.assert_allclose(moved, wanted, atol=0.01 * np.abs(wanted).max() + 3e-8)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_an_overflow_skips_the_update_and_halves_the_scale(optimizer):
    training = step(training_of(optimizer=optimizer))
    before, updates = training.checkpoint(), training._updates._trainer.optimizer.num_update
    training._updates.scale.value = 2.0**24
    step(training)
    after = training.checkpoint()
    same(before.parameters, after.parameters)
    for name, arrays in before.optimizer.items():
        for one, other in zip(arrays, after.optimizer[name]):
            np.testing.assert_array_equal(one, other)
    assert training._updates.scale == LossScale(2.0**23, 0)
    assert training._updates._trainer.optimizer.num_update == updates
    training._updates.scale.value = 1.0
    step(training)
    assert training._updates._trainer.optimizer.num_update == updates + 1
    assert training._updates.scale == LossScale(1.0, 1)


def test_the_scale_grows_after_many_updates_and_has_bounds():
    scale = LossScale(4.0)
    for _ in range(1999):
        scale.adjust(True)
    assert scale == LossScale(4.0, 1999)
    scale.adjust(True)
    assert scale == LossScale(8.0, 0)
    highest = LossScale(2.0**24, 1999)
    highest.adjust(True)
    assert highest == LossScale(2.0**24, 0)
    with pytest.raises(InputError, match="gradients overflow float16 at a loss scale of"):
        for _ in range(20):
            scale.adjust(False)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_resumed_run_has_the_scale(optimizer, tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "_STEADY", 3)  # so that it grows, and overflows
    settings = preset("demo", **{**HALF, "optimizer": optimizer})
    whole = trained(settings, 4).checkpoint()
    save_checkpoint(tmp_path / "half.npz", trained(settings, 2).checkpoint())
    half = load_checkpoint(tmp_path / "half.npz")
    assert tuple(half.progress.scale) != (2.0**12, 0)
    resumed = trained(settings, 2, half).checkpoint()
    same(whole.parameters, resumed.parameters)
    for one, other in zip(whole.progress.rows, resumed.progress.rows):
        assert one["loss"] == other["loss"]
    assert whole.progress.scale == resumed.progress.scale
    assert whole.progress.updates == resumed.progress.updates


def test_a_checkpoint_from_before_there_was_a_scale(tmp_path):
    path = tmp_path / "last.npz"
    save_checkpoint(path, trained(preset("demo", **SMALL), 1).checkpoint())
    with np.load(path) as archive:
        arrays = dict(archive)
    meta = json.loads(bytes(arrays["meta"]))
    del meta["progress"]["scale"], meta["settings"]["dtype"]
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    np.savez(path, **arrays)
    found = load_checkpoint(path)
    assert found.settings.dtype == "float32"
    assert found.progress.scale == (2.0**12, 0)


def test_the_decoder_multiplies_float16_on_a_gpu(monkeypatch):
    monkeypatch.setattr(native, "GPUS", 1)
    decoder = _Decoder(3, in_units=2, flatten=False, dtype="float16")
    nodes = json.loads(decoder(mx.sym.var("x")).tojson())["nodes"]
    assert [node["op"] for node in nodes if node["op"] != "null"] == ["FullyConnected", "Cast"]
    monkeypatch.setattr(native, "GPUS", 0)
    nodes = json.loads(decoder(mx.sym.var("x")).tojson())["nodes"]
    assert [n["op"] for n in nodes if n["op"] != "null"][-2:] == ["FullyConnected", "Cast"]
    assert sum(node["op"] == "Cast" for node in nodes) == 4


@pytest.mark.parametrize("workers", [(2, False), (1, True)])
def test_several_workers_are_in_float32(workers):
    workers = SimpleNamespace(count=workers[0], asynchronous=workers[1])
    with pytest.raises(InputError, match="dtype: got float16, wanted float32 for several workers"):
        Training(preset("demo", **HALF), TEXT, CPU, workers=workers)


def test_the_unrolled_model_is_float32():
    with pytest.raises(InputError, match="dtype: got float16, wanted float32 for the unrolled"):
        preset("unrolled", dtype="float16")
