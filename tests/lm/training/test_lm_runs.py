"""Runs in a folder: what they keep, and what survives whatever ends them."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys

import pytest
from small_runs import CPU, SMALL, TEXT, same, trained

from fastrnn.lm import InputError, Settings, preset, runs
from fastrnn.lm.models import parameter_values
from fastrnn.lm.runs import Run, can_plot, open_checkpoint, resumed
from fastrnn.lm.training.checkpoint import save_checkpoint


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
