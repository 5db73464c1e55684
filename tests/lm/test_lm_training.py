"""Training: the same arithmetic however it is cut up, and whatever interrupts it."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastrnn.lm import InputError, Settings, Vocabulary, data, preset, runs
from fastrnn.lm.evaluation import batch_loss, evaluate, measure, predict, predicted
from fastrnn.lm.models import parameter_values
from fastrnn.lm.runs import Run, can_plot, open_checkpoint, resumed
from fastrnn.lm.training import Training
from fastrnn.lm.training.checkpoint import load_checkpoint, save_checkpoint
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()
CPU = [mx.cpu()]
# Large enough for a few batches an epoch, small enough for a second.
SMALL = {"embed": 8, "hidden": 16, "batch": 4, "steps": 20, "epochs": 4, "validation": 0.1}
SMALL = {**SMALL, "data": "builtin", "sample": 0, "ngram": 0}
TEXT = data.load_text("builtin")[:3000]
EVERY_KIND = [
    ("demo", {"dropout": 0.3, "layers": 2}),
    ("demo", {"cell": "gru", "tie_weights": True, "embed": 16, "clip": 0.5}),
    ("unrolled", {"window": 5}),
    ("zaremba-small", {}),
]


def trained(settings, epochs, checkpoint=None, contexts=CPU):
    training = Training(settings, TEXT, contexts, checkpoint)
    for _ in range(epochs):
        training.run_epoch()
    return training


def same(one, other):
    assert list(one) == list(other)
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


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


def test_batch_loss_is_cross_entropy():
    training = Training(preset("demo", **SMALL), TEXT, CPU)
    tokens = training.corpus.train[:24].reshape(6, 4)
    arrays = [mx.nd.array(a, dtype="int32") for a in (tokens[:-1], tokens[1:])]
    states = training.model.begin_state(4)
    loss, _ = batch_loss(training.model, *arrays, states)
    logits = training.model(arrays[0], states)[0].asnumpy().astype(float)
    likelihood = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    wanted = -np.take_along_axis(likelihood, tokens[1:, :, None], -1).sum()
    assert float(loss.asscalar()) == pytest.approx(wanted, rel=1e-5)


def test_evaluation_carries_the_state():
    training = Training(preset("demo", **{**SMALL, "batch": 1}), TEXT, CPU)
    numbers = training.corpus.train[:200]
    losses = [
        evaluate(training.model, numbers, training.settings.updated({"steps": steps}), mx.cpu())
        for steps in (7, 50, 199)
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


@pytest.mark.parametrize(("model", "wanted"), [("language", (1, 101)), ("unrolled", (3, 103))])
def test_predicted_tokens(model, wanted):
    settings = Settings(model=model, batch=4, steps=20)
    assert predicted(np.arange(103), settings) == wanted


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


# A run in a folder


def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_folder_of_a_run(tmp_path):
    folder = tmp_path / "runs" / "one"
    settings = preset("demo", **{**SMALL, "data": str(book(tmp_path)), "epochs": 2})
    seen = []
    run = Run(folder, settings, CPU)
    run.train(after_epoch=lambda row: seen.append((row["epoch"], (folder / "last.npz").exists())))
    assert seen == [(1, True), (2, True)]
    names = ["best.npz", "last.npz", "log.csv"] + ["loss.png"] * can_plot()
    assert sorted(p.name for p in folder.iterdir()) == names
    rows = list(csv.DictReader((folder / "log.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["validation"]) < float(rows[0]["validation"])
    assert rows[0]["loss_65_128"] == ""
    assert not can_plot() or (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="already holds a run; use --resume"):
        Run(folder, settings, CPU)
    Run(folder, settings, CPU, overwrite=True)


@pytest.mark.parametrize("calls", [1, 2])
def test_a_run_that_is_replaced_never_mixes_with_the_new_one(tmp_path, monkeypatch, calls):
    """The new run ends within its first save, before or after best.npz has its name."""
    folder = tmp_path / "run"
    settings = preset("demo", **{**SMALL, "data": str(book(tmp_path)), "epochs": 1})
    Run(folder, settings, CPU).train()
    old = (folder / "best.npz").read_bytes()
    new = Run(folder, settings.updated({"seed": 2}), CPU, overwrite=True)
    assert (folder / "last.npz").exists()

    left = iter(range(calls - 1))

    def deadly(path, checkpoint):
        next(left)
        save_checkpoint(path, checkpoint)

    monkeypatch.setattr(runs, "save_checkpoint", deadly)
    with pytest.raises(StopIteration):
        new.train()
    assert (old == (folder / "best.npz").read_bytes()) == (calls == 1)
    assert [path.name for path in folder.iterdir()] == ["best.npz"]
    with pytest.raises(InputError, match=r"last\.npz: there is no such checkpoint"):
        open_checkpoint(folder, last=True)
    with pytest.raises(InputError, match="already holds a run"):
        Run(folder, settings, CPU)


def test_best_stays_when_last_gets_worse(tmp_path):
    settings = preset("demo", **{**SMALL, "data": str(book(tmp_path)), "epochs": 1})
    run = Run(tmp_path / "run", settings, CPU)
    run.train()
    good = parameter_values(run.training.model)
    worse = Settings.from_dict({**settings.as_dict(), "epochs": 2, "rate": 5.0})
    run.training.settings = worse
    run.train()
    assert open_checkpoint(tmp_path / "run").progress.epoch == 1
    assert open_checkpoint(tmp_path / "run", last=True).progress.epoch == 2
    same(open_checkpoint(tmp_path / "run").parameters, good)


def test_only_some_settings_change_on_resume():
    settings = preset("demo")
    assert resumed(settings, {"epochs": 99, "hidden": settings.hidden}).epochs == 99
    with pytest.raises(InputError, match="hidden: the run to resume has 256, got 99; only data"):
        resumed(settings, {"hidden": 99})


# The victim trains; in the second epoch's save it kills itself at a chosen place.
VICTIM = """
import json, os, signal, sys, zipfile
from pathlib import Path
from fastrnn.mxnet import import_mxnet
from fastrnn.lm import Settings, runs

folder, settings, module, function, times = json.loads(sys.argv[1])
place = {"archive": zipfile.ZipFile, "os": os}[module]
original = getattr(place, function)
calls = 0

def deadly(*arguments, **options):
    global calls
    calls += 1
    if calls == times:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **options)

def after_epoch(row):
    setattr(place, function, deadly)

run = runs.Run(Path(folder), Settings.from_dict(settings), [import_mxnet().cpu()])
run.train(after_epoch=after_epoch)
"""
SCRIPT_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(
    ("module", "function", "times"),
    [
        ("archive", "open", 1),  # the first array of best.npz
        ("archive", "open", 12),  # amid the optimizer's arrays
        ("os", "fsync", 1),  # best.npz is not yet on the disk
        ("os", "replace", 1),  # best.npz is complete but has no name yet
        ("os", "replace", 2),  # best.npz is new, last.npz is not
        ("os", "replace", 3),  # log.csv
    ],
)
def test_kill_during_a_save_loses_nothing(tmp_path, module, function, times):
    settings = preset("demo", **{**SMALL, "data": str(book(tmp_path)), "epochs": 3, "rate": 1e-4})
    folder = tmp_path / "run"
    argument = json.dumps([str(folder), settings.as_dict(), module, function, times])
    killed = subprocess.run(
        [sys.executable, "-c", VICTIM, argument], env=SCRIPT_ENVIRONMENT, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    last = open_checkpoint(folder, last=True)
    assert last.progress.epoch == (2 if times == 3 else 1)
    assert open_checkpoint(folder).progress.epoch in (1, 2)
    run = Run(folder, last.settings, CPU, last)
    run.train()
    whole = trained(settings, 3)
    same(parameter_values(run.training.model), parameter_values(whole.model))
    assert not list(folder.glob("*.partial"))
    assert len(list(csv.DictReader((folder / "log.csv").open()))) == 3


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


@pytest.mark.parametrize(("name", "changes"), EVERY_KIND)
def test_how_often_suggestions_are_right(name, changes):
    training = trained(preset(name, **{**SMALL, **changes, "validation": 0.2}), 1)
    model, settings, numbers = training.model, training.settings, training.corpus.validation
    vocabulary = training.corpus.vocabulary
    unknown = vocabulary.number("<unk>") if "<unk>" in vocabulary else None
    found = measure(model, numbers, settings, mx.cpu(), unknown)
    assert found.loss == evaluate(model, numbers, settings, mx.cpu())
    assert found.tokens == predicted(numbers, settings)[1] - predicted(numbers, settings)[0]
    counted = np.zeros(2)
    for scores, target in predictions(model, numbers, settings):
        best = [n for n in np.argsort(-scores, kind="stable") if n != unknown][:3]
        counted += [target == best[0], target in best]
    assert counted[0] > 0
    assert [found.first, found.first_three] == pytest.approx(counted / found.tokens)


def predictions(model, numbers, settings):
    """Logits and target of each token, by reading the streams of an evaluation one by one."""
    first, last = predicted(numbers, settings)
    if settings.model == "unrolled":
        for at in range(first, last):
            window = mx.nd.array(numbers[None, at - settings.window : at], dtype="int32")
            yield model(window).asnumpy()[0], numbers[at]
        return
    rows = min(settings.batch, (len(numbers) - 1) // settings.steps)
    for stream in np.arange(last - 1).reshape(rows, -1):
        tokens = mx.nd.array(numbers[stream][:, None], dtype="int32")
        logits, _ = predict(model, tokens, model.begin_state(1))
        yield from zip(logits.asnumpy()[:, 0], numbers[stream + 1])


def test_equally_likely_tokens_rank_by_their_number():
    class Even(mx.gluon.Block):
        def forward(self, tokens):
            return mx.nd.zeros((len(tokens), 5))

    numbers = np.array([0, 0, 0, 0, 1, 2, 3, 4], np.int32)
    settings = preset("unrolled", window=3)
    assert measure(Even(), numbers, settings, mx.cpu())[1:] == (0.2, 0.6, 5)
    assert measure(Even(), numbers, settings, mx.cpu(), unknown=0)[1:] == (0.2, 0.6, 5)
    assert measure(Even(), numbers, settings, mx.cpu(), unknown=1)[1:] == (0.2, 0.6, 5)
