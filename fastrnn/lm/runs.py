"""A training run in a folder: ``best.npz``, ``last.npz``, ``log.csv`` and ``loss.png``."""

from __future__ import annotations

import csv
import importlib.util
import io
import math
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

from fastrnn.lm.config import Settings
from fastrnn.lm.data import lasting, text_of
from fastrnn.lm.data.corpus import held_out
from fastrnn.lm.data.texts import Text
from fastrnn.lm.distributed.workers import ALONE, Workers
from fastrnn.lm.errors import InputError
from fastrnn.lm.files import explained, remove_partial, write_atomically
from fastrnn.lm.training import Report, Training
from fastrnn.lm.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    parse_checkpoint,
    save_checkpoint,
)

BEST, LAST, LOG, PLOT = FILES = "best.npz", "last.npz", "log.csv", "loss.png"
# A resumed run may go on longer or more patiently and show other things, nothing else.
CHANGEABLE = (
    *("data", "validation_data", "test_data"),
    *("epochs", "patience", "metric", "ngram", "sample"),
)


class Run:
    """Trains in `folder` and keeps everything there up to date after each epoch.

    Parameters
    ----------
    folder : Path
        Made if need be.
    settings : Settings
    contexts : sequence of mxnet.Context
    checkpoint : Checkpoint, optional
        From :func:`open_checkpoint`, to go on from there.
    overwrite : bool
        Begin anew where a run already is, which stays until the new one has something to save.
    text : Text, optional
        That of the settings, where it is open already.
    workers : Workers, optional
        Those that train together; only the first one uses `folder`.

    Attributes
    ----------
    training : Training
    saved_epoch : int
        The last epoch that is on the disk.

    Raises
    ------
    InputError
        If the text cannot be read or used, `folder` holds a run already, or takes no files.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        contexts: Sequence[Any],
        checkpoint: Optional[Checkpoint] = None,
        overwrite: bool = False,
        text: Optional[Text] = None,
        workers: Workers = ALONE,
    ) -> None:
        self.folder = folder
        self._keeps = workers.rank == 0
        self._replaces = self._keeps and checkpoint is None and check_free(folder, overwrite)
        text = text or text_of(settings)
        held_out(settings)  # says which file is missing, which a lasting name does not
        places = {
            name: getattr(settings, name) for name in ("data", "validation_data", "test_data")
        }
        settings = settings.updated(
            {name: lasting(place) for name, place in places.items() if place}
        )
        self.training = Training(settings, text, contexts, checkpoint, workers)
        self.saved_epoch = self.training.progress.epoch
        if self._keeps:
            _make_writable(folder)

    def train(
        self,
        report: Optional[Report] = None,
        after_epoch: Optional[Callable[[Dict[str, float]], None]] = None,
    ) -> None:
        """Train until the settings say that it is enough.

        Parameters
        ----------
        report : callable, optional
            As for :meth:`Training.run_epoch`.
        after_epoch : callable, optional
            Called with the log's row when an epoch is on the disk.
        """
        while not self.training.finished:
            row = self.training.run_epoch(report)
            if self._keeps:
                self.save()
            if after_epoch:
                after_epoch(row)

    def save(self) -> None:
        """Write checkpoints, log and picture, each whole or not at all."""
        progress = self.training.progress
        checkpoint = self.training.checkpoint()
        if self._replaces:
            _remove_run(self.folder)
            self._replaces = False
        # The best model first, so that the best epoch of last.npz is always on the disk.
        if progress.best_epoch == progress.epoch:
            save_checkpoint(self.folder / BEST, checkpoint)
        save_checkpoint(self.folder / LAST, checkpoint)
        self.saved_epoch = progress.epoch
        write_log(self.folder / LOG, progress.rows)
        if can_plot():
            write_atomically(self.folder / PLOT, loss_picture(progress.rows))


def check_free(folder: Path, overwrite: bool) -> bool:
    """Whether `folder` holds a run, which is an error unless that may be overwritten."""
    # Other than Path.exists, this is False for names that no file can have.
    found = any(os.path.exists(folder / name) for name in (BEST, LAST))
    if found and not overwrite:
        raise InputError(
            f"out: {folder} already holds a run; use --resume to continue it, --overwrite to "
            f"replace it, or another --out"
        )
    return found


def _make_writable(folder: Path) -> None:
    """Make `folder`, check that it takes files, and remove what killed processes left."""
    with explained(f"out: {folder}: cannot be written to"):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for name in FILES:
            remove_partial(folder / name)


def _remove_run(folder: Path) -> None:
    """Remove all but the best model: --resume must never mix what is left with a new run."""
    for name in (LAST, LOG, PLOT):
        with explained(f"out: {folder}: {name} cannot be replaced"), suppress(FileNotFoundError):
            (folder / name).unlink()


def open_checkpoint(path: Path, last: bool = False) -> Checkpoint:
    """The checkpoint at `path`: a file, or the best (or last) one of a run's folder."""
    if os.path.isdir(path):
        path = path / (LAST if last else BEST)
    return load_checkpoint(path)


def check_resume(resume: bool, workers: Workers) -> None:
    """Fail unless this worker resumes a run if the first one does."""
    first = bool(workers.from_first([float(resume)])[0])
    if first != resume:
        with_it, without = (0, workers.rank) if first else (workers.rank, 0)
        raise InputError(
            f"resume: worker {with_it} has --resume and worker {without} does not; all want it, or "
            f"none"
        )


def checkpoint_for_all(path: Path, workers: Workers) -> Checkpoint:
    """The checkpoint at `path` of the first worker, for all workers."""
    own = load_checkpoint(path) if workers.rank == 0 else None
    data = workers.bytes_from_first(path.read_bytes() if own else b"")
    return own or parse_checkpoint(data)


def resumed(settings: Settings, changes: Dict[str, Any]) -> Settings:
    """A checkpoint's settings with `changes`; InputError for one that makes it another run."""
    for name, value in changes.items():
        if name not in CHANGEABLE and value != getattr(settings, name):
            option = Settings.limits(name)["option"] or name
            raise InputError(
                f"{option}: the run to resume has {getattr(settings, name)!r}, got {value!r}; only "
                f"{', '.join(CHANGEABLE)} can change"
            )
    return settings.updated(changes)


def write_log(path: Path, rows: List[Dict[str, float]]) -> None:
    """Write the rows of the log as CSV; a missing number is an empty field."""
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _shown(name, value) for name, value in row.items()})
    write_atomically(path, file.getvalue().encode("ascii"))


def _shown(name: str, value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.1f}" if name in ("tokens_per_second", "seconds") else f"{value + 0.0:.6g}"


def can_plot() -> bool:
    """Whether matplotlib is there."""
    return importlib.util.find_spec("matplotlib") is not None


def loss_picture(rows: List[Dict[str, float]]) -> bytes:
    """Training and validation loss by epoch, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 4), dpi=120)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    epochs = [row["epoch"] for row in rows]
    for name, label in (("loss", "training"), ("validation", "validation")):
        values = [row[name] for row in rows]
        if not all(math.isnan(value) for value in values):
            axes.plot(epochs, values, marker=".", label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss (nats per token)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines["top"].set_visible(False)
    axes.spines["right"].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.tight_layout()
    file = io.BytesIO()
    canvas.print_png(file)
    return file.getvalue()
