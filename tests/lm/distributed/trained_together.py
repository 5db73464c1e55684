"""Trainings with several workers, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from fastrnn.lm import data
from fastrnn.lm.training.checkpoint import load_checkpoint

TEXT = data.load_text("builtin")[:3000]
# Five rows, which no number of workers divides.
OPTIONS = ["--hidden", "64", "--embed", "16", "--batch", "5", "--steps", "20", "--dropout", "0"]
OPTIONS += ["--sample", "0", "--ngram", "0", "--device", "cpu", "--validation", "0.1"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(*arguments):
    return [sys.executable, "-m", "fastrnn", *map(str, arguments)]


def run(*arguments, timeout=240, **environment):
    """Run `fastrnn` in a process of its own; output and errors are one text."""
    return subprocess.run(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**ENVIRONMENT, **environment},
        timeout=timeout,
        check=False,
    )


def train(workers, folder, *arguments):
    """Train with so many workers; return the last checkpoint and what was printed."""
    launch = ["launch", "-n", workers, "--"] if workers > 1 else []
    done = run(*launch, "train", "--out", folder, *OPTIONS, *arguments)
    assert done.returncode == 0, done.stdout
    return load_checkpoint(Path(folder) / "last.npz"), done.stdout


def assert_same(one, other):
    """Compare parameters, the optimizer's state and losses, up to the rounding of a few updates."""
    assert one.parameters.keys() == other.parameters.keys()
    for name, value in one.parameters.items():
        close(other.parameters[name], value, name)
    assert one.optimizer.keys() == other.optimizer.keys()
    for name, arrays in one.optimizer.items():
        for got, wanted in zip(other.optimizer[name], arrays):
            close(got, wanted, name)
    for name in ("loss", "loss_1_64", "validation"):
        losses = [[row[name] for row in c.progress.rows] for c in (one, other)]
        np.testing.assert_allclose(*losses, rtol=1e-5, err_msg=name)


def close(got, wanted, name):
    """Compare as vectors: where a gradient is nearly zero, Adam makes a step of its rounding."""
    assert got.shape == wanted.shape, name
    away, size = np.linalg.norm(got - wanted), np.linalg.norm(wanted)
    assert away <= 1e-4 * size, f"{name}: {away} of {size}"
