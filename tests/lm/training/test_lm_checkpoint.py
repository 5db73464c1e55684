"""Checkpoint files: whole or not at all, and honest about damage."""

from __future__ import annotations

import errno
import json
import os
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fastrnn.lm import InputError, Vocabulary, preset
from fastrnn.lm.files import atomic_writer, remove_partial, write_atomically
from fastrnn.lm.tokenizers import CharacterTokenizer
from fastrnn.lm.training.checkpoint import Checkpoint, Progress, load_checkpoint, save_checkpoint

RANDOM = np.random.default_rng(0)


def example(epoch=1):
    rows = [{"epoch": e, "loss": 1 / 3, "validation": float("nan")} for e in range(1, epoch + 1)]
    return Checkpoint(
        settings=preset("demo", hidden=5, rate=0.1),
        vocabulary=Vocabulary("abü\n", CharacterTokenizer()),
        text_sha256="0" * 64,
        progress=Progress(17 * epoch, rows),
        parameters={
            "a.weight": RANDOM.standard_normal((3, 4)).astype(np.float32),
            "b.bias": np.zeros(0, np.float32),
        },
        optimizer={"a.weight": [RANDOM.standard_normal((3, 4)), np.float32([np.nan, -0.0])]},
    )


def test_every_bit_comes_back(tmp_path):
    path = tmp_path / "last.npz"
    saved = example()
    save_checkpoint(path, saved)
    loaded = load_checkpoint(path)
    assert loaded.settings == saved.settings
    assert loaded.vocabulary == saved.vocabulary
    assert (loaded.progress.best, loaded.progress.updates) == (1 / 3, 17)
    assert loaded.progress.rows[0]["loss"] == 1 / 3
    for name, array in saved.parameters.items():
        assert loaded.parameters[name].dtype == array.dtype
        assert loaded.parameters[name].tobytes() == array.tobytes()
    for one, other in zip(saved.optimizer["a.weight"], loaded.optimizer["a.weight"]):
        assert one.tobytes() == other.tobytes()
    assert os.listdir(tmp_path) == ["last.npz"]
    with np.load(path) as archive:
        assert "parameters/a.weight" in archive.files


def test_every_truncation_is_noticed(tmp_path):
    path = tmp_path / "last.npz"
    save_checkpoint(path, example())
    content = path.read_bytes()
    for length in [0, 1, *range(2, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"last\.npz: truncated, damaged or no checkpoint"):
            load_checkpoint(path)


def content_of(path):
    checkpoint = load_checkpoint(path)
    arrays = dict(checkpoint.parameters)
    for name, kept in checkpoint.optimizer.items():
        arrays.update({f"{name} {number}": array for number, array in enumerate(kept)})
    values = {name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()}
    progress = repr(checkpoint.progress)
    return checkpoint.settings, checkpoint.vocabulary, checkpoint.text_sha256, progress, values


def test_a_flipped_bit_is_noticed_or_changes_nothing(tmp_path):
    path = tmp_path / "last.npz"
    save_checkpoint(path, example())
    whole, wanted = path.read_bytes(), content_of(path)
    noticed = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            # A bit that is never read, such as of the time of writing.
            assert content_of(path) == wanted
        except InputError:
            noticed += 1
    assert noticed > len(whole) / 2


def test_an_array_that_says_it_is_smaller_is_noticed(tmp_path):
    """NumPy reads as far as an array goes, which is then not to its checksum."""
    path = tmp_path / "last.npz"
    large = example()
    large.parameters["a.weight"] = np.ones((3000, 4), np.float32)  # more than is read at once
    save_checkpoint(path, large)
    content = path.read_bytes()
    assert b"'shape': (3000, 4)" in content
    path.write_bytes(content.replace(b"'shape': (3000, 4)", b"'shape': (3000, 2)"))
    with pytest.raises(InputError, match="truncated, damaged or no checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other-7"}, "the checkpoint's format is 'other-7', wanted 'fastrnn-lm-2'"),
        ({"settings": {"hidden": 0}}, "hidden: got 0"),
        ({"settings": {"colour": 1}}, "there is no setting 'colour'"),
        ({"vocabulary": {"level": "character", "tokens": ["ab"]}}, "'ab' is not one character"),
        ({"progress": {"epochs": 1}}, "damaged or no checkpoint"),
        ({"parameters": ["c.weight"]}, "damaged or no checkpoint"),
    ],
)
def test_wrong_content(tmp_path, change, message):
    path = tmp_path / "last.npz"
    save_checkpoint(path, example())
    with np.load(path) as archive:
        arrays = dict(archive)
    meta = {**json.loads(bytes(arrays["meta"])), **change}
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=message) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_of_the_first_format(tmp_path):
    """It had its JSON under another name and more of it; the arrays are the same."""
    path = tmp_path / "last.npz"
    save_checkpoint(path, example())
    wanted = content_of(path)
    with zipfile.ZipFile(path) as archive, np.load(path) as arrays:
        members = {name: archive.read(name) for name in archive.namelist()}
        meta = json.loads(bytes(arrays["meta"]))
    del members["meta.npy"]
    meta["format"] = "fastrnn-lm-1"
    meta["progress"].update(epoch=1, best_epoch=1, best=1 / 3)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("meta.json", json.dumps(meta))
        for name, content in members.items():
            archive.writestr(name, content)
    assert content_of(path) == wanted


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.npz: there is no such checkpoint"):
        load_checkpoint(tmp_path / "none.npz")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        load_checkpoint(tmp_path)


def test_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "last.npz"
    save_checkpoint(path, example(1))

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"last\.npz: not written: no space left on the disk"):
        save_checkpoint(path, example(2))
    monkeypatch.undo()
    assert load_checkpoint(path).progress.epoch == 1
    assert os.listdir(tmp_path) == ["last.npz"]


def test_interrupt_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "log.csv"
    write_atomically(path, b"old")

    def interrupted(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["log.csv"]


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / "last.npz.0123.partial").write_bytes(b"half a file")
    (tmp_path / "best.npz").write_bytes(b"another one")
    remove_partial(tmp_path / "last.npz")
    assert os.listdir(tmp_path) == ["best.npz"]


def test_two_writers_do_not_meet(tmp_path):
    path = tmp_path / "nietzsche.txt"
    with atomic_writer(path) as one, atomic_writer(path) as other:
        one.write(b"one")
        other.write(b"other")
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["nietzsche.txt"]


def test_the_usual_permissions(tmp_path):
    write_atomically(tmp_path / "ours", b"")
    (tmp_path / "usual").write_bytes(b"")
    ours, usual = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "usual"))
    assert oct(ours) == oct(usual)


def test_the_first_error_is_the_one_told(tmp_path, monkeypatch):
    def unlink(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(ZeroDivisionError), atomic_writer(tmp_path / "last.npz"):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("number", "fails"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)]
)
def test_folders_that_cannot_be_synced(tmp_path, monkeypatch, number, fails):
    real = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    if fails:
        with pytest.raises(InputError, match=r"log\.csv: not written: Input/output error"):
            write_atomically(tmp_path / "log.csv", b"new")
    else:
        write_atomically(tmp_path / "log.csv", b"new")
        assert (tmp_path / "log.csv").read_bytes() == b"new"
