"""Checkpoints: one file each, with everything needed to generate text or to continue training.

The file is what `numpy.savez` writes, without pickles: ``meta``, which is JSON in UTF-8 (format,
settings, vocabulary, progress), and the arrays ``parameters/NAME`` and ``optimizer/NAME/NUMBER``.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Dict, List, Sequence

import numpy as np

from fastrnn.lm.config import Settings
from fastrnn.lm.errors import InputError
from fastrnn.lm.files import explained, write_atomically
from fastrnn.lm.tokenizers.vocabulary import Vocabulary
from fastrnn.lm.training.scaling import LossScale

FORMAT = "fastrnn-lm-2"
# What the readers of archives, arrays and JSON raise for bytes that are not what they should be.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    TypeError,
    ValueError,
    RuntimeError,
)


@dataclass
class Progress:
    """How far a training run has come.

    Attributes
    ----------
    updates : int
        Steps the optimizer has made.
    rows : list of dict
        What ``log.csv`` shows, one for each finished epoch.
    scale : sequence
        The fields of the :class:`LossScale` of training in float16.
    """

    updates: int = 0
    rows: List[Dict[str, float]] = field(default_factory=list)
    scale: Sequence[Any] = astuple(LossScale())

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.rows)

    @property
    def best(self) -> float:
        """The lowest loss so far, of validation if there is such a part, in nats per token."""
        return min(map(_judged, self.rows), default=math.inf)

    @property
    def best_epoch(self) -> int:
        """The first epoch with that loss, 0 if none is finished."""
        losses = [_judged(row) for row in self.rows]
        return losses.index(min(losses)) + 1 if losses else 0


def _judged(row: Dict[str, float]) -> float:
    """The loss by which an epoch is judged: of validation, or of training where that is nan."""
    return row["loss"] if math.isnan(row["validation"]) else row["validation"]


@dataclass
class Checkpoint:
    """A model with everything around it, as NumPy arrays and plain values.

    Attributes
    ----------
    settings : Settings
    vocabulary : Vocabulary
    text_sha256 : str
        Of the text it was trained on, in UTF-8.
    progress : Progress
    parameters : dict of str to ndarray
    optimizer : dict of str to list of ndarray
        The optimizer's state for each parameter; no entry where it keeps none.
    """

    settings: Settings
    vocabulary: Vocabulary
    text_sha256: str
    progress: Progress
    parameters: Dict[str, np.ndarray]
    optimizer: Dict[str, List[np.ndarray]]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to `path`: whole, or the old file stays and InputError says why."""
    meta = {
        "format": FORMAT,
        "settings": checkpoint.settings.as_dict(),
        "vocabulary": json.loads(checkpoint.vocabulary.to_json()),
        "text_sha256": checkpoint.text_sha256,
        "progress": vars(checkpoint.progress),
        # So that an array which a damaged archive does not list is missed.
        "parameters": list(checkpoint.parameters),
        "optimizer": {name: len(states) for name, states in checkpoint.optimizer.items()},
    }
    arrays = {"meta": np.frombuffer(json.dumps(meta).encode("utf-8"), np.uint8)}
    for name, array in checkpoint.parameters.items():
        arrays[f"parameters/{name}"] = array
    for name, states in checkpoint.optimizer.items():
        for number, array in enumerate(states):
            arrays[f"optimizer/{name}/{number}"] = array
    # In memory: NumPy before 2 leaves an archive open that it cannot finish, and closing that
    # fails once the file is gone.
    archive = io.BytesIO()
    np.savez(archive, **arrays)
    # Released before `archive` goes: an archive with an exported buffer cannot be freed quietly.
    with archive.getbuffer() as data:
        write_atomically(path, data)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    InputError
        If the file is missing, truncated, damaged, or not a checkpoint.
    """
    with explained(f"{path}: cannot be read"):
        try:
            with open(path, "rb") as file:
                return _read(file)
        except FileNotFoundError:
            raise InputError(f"{path}: there is no such checkpoint") from None
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except _DAMAGED as error:
            raise InputError(f"{path}: truncated, damaged or no checkpoint ({error})") from None


def parse_checkpoint(data: bytes) -> Checkpoint:
    """The checkpoint whose file has these bytes."""
    return _read(io.BytesIO(data))


def _read(file: BinaryIO) -> Checkpoint:
    with zipfile.ZipFile(file) as members:
        # Every member to its end, where its checksum is: NumPy reads as far as an array goes.
        damaged = members.testzip()
    if damaged:
        raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
    file.seek(0)
    archive = np.load(file, allow_pickle=False)
    old = "meta.json" in archive.files  # where fastrnn-lm-1 has it; the rest is the same
    meta = json.loads(bytes(archive["meta.json" if old else "meta"]))
    if meta["format"] not in (FORMAT, "fastrnn-lm-1"):
        raise InputError(f"the checkpoint's format is {meta['format']!r}, wanted {FORMAT!r}")
    return Checkpoint(
        settings=Settings.from_dict(meta["settings"]),
        vocabulary=Vocabulary.from_json(json.dumps(meta["vocabulary"])),
        text_sha256=meta["text_sha256"],
        progress=Progress(
            meta["progress"]["updates"],
            meta["progress"]["rows"],
            meta["progress"].get("scale", astuple(LossScale())),
        ),
        parameters={name: archive[f"parameters/{name}"] for name in meta["parameters"]},
        optimizer={
            name: [archive[f"optimizer/{name}/{number}"] for number in range(count)]
            for name, count in meta["optimizer"].items()
        },
    )
