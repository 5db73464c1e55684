"""Training: the same arithmetic however it is cut up."""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small_runs import CPU, EVERY_KIND, SMALL, TEXT, same, trained

from fastrnn.lm import InputError, Vocabulary, data, preset
from fastrnn.lm.models import parameter_values
from fastrnn.lm.training import Training
from fastrnn.lm.training.checkpoint import load_checkpoint, save_checkpoint
from fastrnn.lm.training.updates import Updates, rate_of
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()


@pytest.mark.parametrize(("name", "changes"), EVERY_KIND)
def test_two_and_two_epochs_are_four(name, changes, tmp_path):
    settings = preset(name, **{**SMALL, **changes})
    whole = trained(settings, 4).checkpoint()
    path = tmp_path / "half.npz"
    save_checkpoint(path, trained(settings, 2).checkpoint())
    resumed_run = trained(settings, 2, load_checkpoint(path)).checkpoint()
    same(whole.parameters, resumed_run.parameters)
    for parameter, arrays in whole.optimizer.items():
        for one, other in zip(arrays, resumed_run.optimizer[parameter]):
            np.testing.assert_array_equal(one, other)
    losses = [[row["loss"] for row in c.progress.rows] for c in (whole, resumed_run)]
    assert losses[0] == losses[1]
    assert whole.progress.best_epoch == resumed_run.progress.best_epoch


def test_another_seed_is_another_run():
    one, other = (trained(preset("demo", **SMALL, seed=seed), 1) for seed in (1, 2))
    weights = [parameter_values(t.model)["decoder.weight"] for t in (one, other)]
    assert np.abs(weights[0] - weights[1]).max() > 0


@pytest.mark.parametrize("contexts", [2, 3])
@pytest.mark.parametrize(
    "changes",
    [
        {"clip": 0.5},
        {"model": "unrolled"},
        {"rate": 0.1, "cell": "gru", "tie_weights": True, "embed": 16},
        {"optimizer": "adam", "rate": 0.01},
        {"optimizer": "adam", "rate": 0.01, "cell": "gru", "tie_weights": True, "embed": 16},
    ],
)
def test_several_devices_do_as_one(changes, contexts):
    settings = preset("demo", **{**SMALL, "dropout": 0.0, "optimizer": "sgd", "rate": 0.5})
    settings = settings.updated({"batch": 5, **changes})  # no device count divides five rows
    one = trained(settings, 2)
    many = trained(settings, 2, contexts=[mx.cpu(i) for i in range(contexts)])
    for name, value in parameter_values(one.model).items():
        got = many.model.collect_params()[one_name(many.model, name)]
        for context in many.contexts:
            close(got.data(context).asnumpy(), value, name)
    losses = [[row["loss"] for row in t.progress.rows] for t in (one, many)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert losses[0][1] < losses[0][0]


def close(got, wanted, name):
    bound = 1e-5 * np.abs(wanted).max()
    np.testing.assert_allclose(got, wanted, rtol=0, atol=bound, err_msg=name)


def one_name(model, structural):
    return model._collect_params_with_prefix()[structural].name


def test_a_checkpoint_goes_to_other_devices(tmp_path):
    settings = preset("demo", **SMALL, dropout=0.0)
    half = trained(settings, 1).checkpoint()
    two = Training(settings, TEXT, [mx.cpu(0), mx.cpu(1)], half)
    two.run_epoch()
    whole = trained(settings, 2)
    for name, value in parameter_values(whole.model).items():
        close(parameter_values(two.model)[name], value, name)


def test_a_checkpoint_without_the_optimizers_state():
    settings = preset("demo", **SMALL)
    half = trained(settings, 1).checkpoint()
    del half.optimizer["decoder.bias"]
    with pytest.raises(InputError, match=r"optimizer: .* for decoder\.bias has the shapes \[\]"):
        Training(settings, TEXT, CPU, half)


@pytest.mark.parametrize("model", ["language", "unrolled"])
def test_initial_scale_of_all_weights(model):
    settings = preset("zaremba-small", **{**SMALL, "init": 0.02, "model": model})
    values = parameter_values(Training(settings, TEXT, CPU).model)
    weights = {name: value for name, value in values.items() if name.endswith("weight")}
    assert "embedding.weight" in weights
    for name, value in weights.items():
        assert 0.019 < np.abs(value).max() <= 0.02, name


def test_clipping_is_on_the_global_norm_of_the_mean_over_rows():
    changes = {"optimizer": "sgd", "rate": 1.0, "clip": 0.01, "epochs": 1}
    settings = preset("demo", **{**SMALL, **changes, "dropout": 0.0, "steps": 10_000})
    training = Training(settings, TEXT, CPU)
    before = parameter_values(training.model)
    training.run_epoch()  # one batch, as long as the text
    after = parameter_values(training.model)
    moved = math.sqrt(sum(((after[n] - before[n]).astype(float) ** 2).sum() for n in before))
    assert moved == pytest.approx(0.01, rel=1e-3)


def test_the_windows_of_an_epoch_are_a_permutation():
    training = Training(preset("unrolled", data="builtin", batch=8), TEXT, CPU)
    train, width = training.corpus.train, training.settings.window
    begins = np.arange(0, len(train) - width, training.settings.stride)
    order = begins[np.random.default_rng(3).permutation(len(begins))]
    count, batches = training._batches(np.random.default_rng(3))
    windows, targets = map(np.concatenate, zip(*batches))
    assert len(targets) == 8 * count == len(order) // 8 * 8
    for begin, window, target in zip(order, windows, targets):
        assert [*window, target] == train[begin : begin + width + 1].tolist()


def test_the_rate_decays():
    training = Training(preset("zaremba-small", **SMALL), TEXT, CPU)
    assert [training.rate(epoch) for epoch in (1, 4, 5, 6, 13)] == [1, 1, 0.5, 0.25, 2**-9]


@pytest.mark.parametrize("rate", [1e-3, 1e-9, 0.0])
@pytest.mark.parametrize("decay", [1e-20, 0.0])
def test_the_rate_stops_to_decay_before_it_leaves_the_range_of_float32(decay, rate):
    training = trained(preset("demo", **SMALL, rate=rate, decay=decay, decay_after=1), 4)
    rates = [row["rate"] for row in training.progress.rows]
    once = rate * decay if rate > 1e-8 else rate
    assert rates == [rate, once, once, once]


def test_the_rate_of_a_long_training():
    settings = preset("demo", epochs=1000)
    least = rate_of(settings, 1000)
    assert 0.7e-8 < least < 1e-8
    epochs = [epoch for epoch in range(1, 1001) if rate_of(settings, epoch) > least]
    assert epochs == list(range(1, 42))
    # The servers of asynchronous workers let it decay in the same epochs.
    updates = SimpleNamespace(_settings=settings, _half=False, _own_rows=16)
    updates._workers = SimpleNamespace(asynchronous=True, count=1)
    scheduler = Updates._options(updates, 40, 10)["lr_scheduler"]
    assert scheduler.step == [10, 20]
    assert rate_of(settings, 40) * settings.decay**2 == pytest.approx(least)


def test_the_log_shows_the_tutorials_columns():
    # 150 batches of one step each.
    settings = preset("demo", **{**SMALL, "batch": 4, "steps": 1, "validation": 0.0})
    training = Training(settings, TEXT[:601], CPU)
    reported = []
    row = training.run_epoch(lambda *report: reported.append(report))
    assert all(report[3] > 0 for report in reported)
    assert [r[:2] for r in reported] == [(i, 150) for i in range(1, 151)]
    losses = [r[2] for r in reported]
    assert row["loss"] == pytest.approx(np.mean(losses))
    assert row["loss_1_64"] == pytest.approx(np.mean(losses[:64]))
    assert row["loss_65_128"] == pytest.approx(np.mean(losses[64:128]))
    assert math.isnan(row["validation"])
    assert training.progress.best == row["loss"]


def test_early_stop():
    # Nothing gets better at rate 0.
    settings = preset("demo", **{**SMALL, "rate": 0.0, "epochs": 9, "patience": 2})
    training = Training(settings, TEXT, CPU)
    while not training.finished:
        training.run_epoch()
    assert (training.progress.epoch, training.progress.best_epoch) == (3, 1)
    goes_on = Training(settings.updated({"patience": 3}), TEXT, CPU, training.checkpoint())
    assert not goes_on.finished


def test_divergence_is_an_error():
    changes = {"optimizer": "sgd", "rate": 1e38, "dropout": 0.0}
    training = Training(preset("demo", **{**SMALL, **changes}), TEXT, CPU)
    with pytest.raises(InputError, match=r"training diverged; try a lower --rate"):
        for _ in range(3):
            training.run_epoch()


@pytest.mark.parametrize(
    ("changes", "length", "message"),
    [
        ({}, 4, "too short: 4 tokens to train on, and a batch of 4 takes 5"),
        ({"validation": 0.1}, 20, "too short: 2 tokens to validate on"),
        ({"model": "unrolled", "batch": 4}, 12, "a batch of 4 takes 13"),
    ],
)
def test_too_short(changes, length, message):
    settings = preset("demo", **{**SMALL, "validation": 0.0, **changes})
    with pytest.raises(InputError, match=message):
        Training(settings, TEXT[:length], CPU)


def test_more_devices_than_rows():
    with pytest.raises(InputError, match="batch: got 1, too few rows for 2 devices"):
        Training(preset("demo", **{**SMALL, "batch": 1}), TEXT, [mx.cpu(0), mx.cpu(1)])


def test_checkpoint_of_another_text():
    settings = preset("demo", **SMALL)
    checkpoint = Training(settings, TEXT, CPU).checkpoint()
    with pytest.raises(InputError, match="not the text that the checkpoint was trained on"):
        Training(settings, TEXT + "!", CPU, checkpoint)


def test_checkpoint_with_another_vocabulary():
    settings = preset("demo", **SMALL)
    checkpoint = Training(settings, TEXT, CPU).checkpoint()
    checkpoint.vocabulary = Vocabulary("ab", checkpoint.vocabulary.tokenizer)
    with pytest.raises(InputError, match="vocabulary: the text has .* differ from"):
        Training(settings, TEXT, CPU, checkpoint)


def test_the_real_presets_meet_the_real_text():
    folder = os.environ.get("FASTRNN_DATA")
    if not folder or not (Path(folder) / "nietzsche.txt").is_file():
        pytest.skip("FASTRNN_DATA names no folder with nietzsche.txt")
    text = data.load_text("nietzsche")
    settings = preset("tutorial", embed=4, hidden=4)
    training = Training(settings, text, CPU)
    assert len(training.corpus.vocabulary) == 84
    count, produced = training._batches(np.random.default_rng())
    batches = list(produced)
    # The table's second column is the mean over batches 65 to 128.
    assert count == len(batches) >= 128
    assert {x.shape for x, _ in batches[:-1]} == {(100, 32)}
