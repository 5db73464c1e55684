"""Checkpoints: one file each, with all it takes to write text or to go on training.

The file is a ZIP archive without compression: ``meta.json`` (format, settings, vocabulary,
progress) and the arrays ``parameters/NAME.npy`` and ``optimizer/NAME/NUMBER.npy``; `numpy.load`
opens it too. Every member has a checksum, so a damaged file is noticed.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List

import numpy as np

from fastrnn.lm.config import Settings
from fastrnn.lm.errors import InputError
from fastrnn.lm.files import atomic_writer, describe
from fastrnn.lm.vocabulary import Vocabulary

FORMAT = "fastrnn-lm-1"


# What the readers of archives, arrays and JSON raise for bytes that are not what they should be.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    TypeError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)


@dataclass
class Progress:
    """How far a training run has come.

    Attributes
    ----------
    epoch : int
        Finished epochs.
    updates : int
        Steps the optimizer has made.
    best_epoch : int
        The epoch with the lowest loss so far (validation, or training without a validation part).
    best : float
        That loss, nats per token.
    rows : list of dict
        What ``log.csv`` shows, one for each epoch.
    """

    epoch: int = 0
    updates: int = 0
    best_epoch: int = 0
    best: float = float("inf")
    rows: List[Dict[str, float]] = field(default_factory=list)


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
    """Write `checkpoint` to `path`: whole, or the old file stays.

    Raises
    ------
    InputError
        If the file cannot be written, for example because the disk is full.
    """
    meta = {
        "format": FORMAT,
        "settings": checkpoint.settings.as_dict(),
        "vocabulary": json.loads(checkpoint.vocabulary.to_json()),
        "text_sha256": checkpoint.text_sha256,
        "progress": vars(checkpoint.progress),
        "parameters": list(checkpoint.parameters),
        "optimizer": {name: len(arrays) for name, arrays in checkpoint.optimizer.items()},
    }
    with atomic_writer(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("meta.json", json.dumps(meta))
        for name, array in checkpoint.parameters.items():
            _write_array(archive, f"parameters/{name}.npy", array)
        for name, arrays in checkpoint.optimizer.items():
            for number, array in enumerate(arrays):
                _write_array(archive, f"optimizer/{name}/{number}.npy", array)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    InputError
        If the file is missing, truncated, damaged, or not a checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            meta = json.loads(archive.read("meta.json"))
            if meta["format"] != FORMAT:
                raise InputError(
                    f"{path}: the checkpoint's format is {meta['format']!r}, wanted {FORMAT!r}"
                )
            parameters = {
                name: _read_array(archive, f"parameters/{name}.npy") for name in meta["parameters"]
            }
            optimizer = {
                name: [_read_array(archive, f"optimizer/{name}/{n}.npy") for n in range(count)]
                for name, count in meta["optimizer"].items()
            }
        return Checkpoint(
            settings=Settings.from_dict(meta["settings"]),
            vocabulary=Vocabulary.from_json(json.dumps(meta["vocabulary"])),
            text_sha256=meta["text_sha256"],
            progress=Progress(**meta["progress"]),
            parameters=parameters,
            optimizer=optimizer,
        )
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such checkpoint") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {describe(error)}") from None
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except _DAMAGED as error:
        raise InputError(f"{path}: truncated, damaged or no checkpoint ({error})") from None


def _write_array(archive: zipfile.ZipFile, name: str, array: Any) -> None:
    with archive.open(name, "w", force_zip64=True) as member:
        np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    # Read in one go: only at the end of a member is its checksum compared.
    return np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
