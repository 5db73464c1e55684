"""Several workers on this machine, started by ``fastrnn launch``."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from trained_together import ENVIRONMENT, OPTIONS, TEXT, assert_same, command, run, train

from fastrnn import cli
from fastrnn.lm.distributed import launch
from fastrnn.lm.training.checkpoint import load_checkpoint

LONG = ["--epochs", "1000", "--data"]


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "options",
    [
        # Neither clipping nor Adam, which would hide a gradient of the wrong scale.
        ["--cell", "gru", "--clip", "0", "--optimizer", "sgd", "--rate", "0.1"],
        ["--preset", "unrolled", "--rate", "0.05", "--optimizer", "sgd", "--clip", "0.5"],
    ],
    ids=["language", "unrolled"],
)
def test_two_workers_are_one_with_the_joint_batch(options, book, tmp_path):
    options = [*options, "--data", book, "--epochs", 2]
    one, _ = train(1, tmp_path / "one", *options)
    two, told = train(2, tmp_path / "two", *options)
    assert_same(one, two)
    # Only the first worker prints.
    assert "workers 2, dist_sync; this one is the first" in told.splitlines()
    assert told.count("epoch 2/2") == told.count("epoch 1/2") > 0


def test_a_run_goes_on_with_more_workers_and_with_fewer(book, tmp_path):
    options, folder = ["--data", book, "--epochs"], tmp_path / "run"
    train(2, folder, *options, 1)
    train(3, folder, "--resume", *options, 2)
    last, _ = train(1, folder, "--resume", *options, 3)
    wanted, _ = train(1, tmp_path / "one", *options, 3)
    assert_same(wanted, last)


def test_workers_that_do_not_wait(book, tmp_path):
    options = ["--data", book, "--kvstore", "dist_async", "--decay", 0.5, "--clip", 4]
    last, told = train(2, tmp_path / "run", *options, "--decay-after", 1, "--epochs", 2)
    assert "workers 2, dist_async" in told
    assert last.optimizer == {}  # it is in the servers
    assert [row["rate"] for row in last.progress.rows] == [0.004, 0.002]
    # The servers count the updates of both workers: 107 in an epoch of each.
    assert told.count("Change learning rate to 2.0") == 1
    losses = [row["validation"] for row in last.progress.rows]
    assert losses[1] < losses[0] < 4
    last, _ = train(1, tmp_path / "run", "--resume", "--data", book, "--epochs", 3)
    assert last.progress.epoch == 3
    assert last.optimizer


def children(process, role):
    """The processes of a role that `fastrnn launch` started."""
    found = []
    for number in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if f"DMLC_ROLE={role}".encode() in Path(f"/proc/{number}/environ").read_bytes().split(
            b"\0"
        ):
            found.append(int(number))
    return found


@pytest.fixture
def running(book, tmp_path):
    """A training that has finished its first epoch, and would go on for long."""
    with subprocess.Popen(
        command("launch", "-n", 2, "--", "train", "--out", tmp_path / "run", *OPTIONS, *LONG, book),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT,
    ) as process:
        told = []
        for line in process.stdout:
            told.append(line)
            if re.match("epoch +1/1000 +train", line):
                break
        else:
            raise AssertionError("".join(told))
        yield process
        process.terminate()


def is_there(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("role", ["worker", "server", "scheduler"])
def test_a_process_that_dies_ends_all(role, running, book, tmp_path):
    everyone = [n for r in ("worker", "server", "scheduler") for n in children(running, r)]
    assert len(everyone) == 4
    os.kill(children(running, role)[0], signal.SIGKILL)
    told = running.communicate(timeout=120)[0]
    assert f"fastrnn launch: a {role} ended by SIGKILL; the others end, too" in told
    assert running.returncode == 128 + signal.SIGKILL
    assert not any(map(is_there, everyone))
    epoch = load_checkpoint(tmp_path / "run" / "last.npz").progress.epoch
    last, _ = train(1, tmp_path / "run", "--resume", "--data", book, "--epochs", epoch + 1)
    assert last.progress.epoch == epoch + 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all(number, running):
    everyone = [n for r in ("worker", "server", "scheduler") for n in children(running, r)]
    running.send_signal(number)
    told = running.communicate(timeout=120)[0]
    assert running.returncode == 128 + number
    assert not any(map(is_there, everyone))
    assert "fastrnn: interrupted" in told


def test_all_end_if_launch_is_killed(running):
    everyone = [n for r in ("worker", "server", "scheduler") for n in children(running, r)]
    running.kill()
    try:
        running.communicate(timeout=60)  # until the last process that could write has ended
    finally:
        for number in filter(is_there, everyone):
            os.kill(number, signal.SIGKILL)


@pytest.mark.parametrize(
    ("signals", "epochs", "wanted"),
    [("--ignore-signal=HUP", 2, 0), ("--default-signal=HUP", 1000, 129)],
)
def test_nohup(signals, epochs, wanted, book, tmp_path):
    options = ["train", "--out", tmp_path / "run", *OPTIONS, "--epochs", epochs, "--data", book]
    with subprocess.Popen(
        ["env", signals, *command("launch", "-n", 1, "--", *options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=ENVIRONMENT,
    ) as process:
        while process.stdout.readline()[:5] != "epoch":
            assert process.poll() is None
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=120)
        assert process.returncode == wanted


def test_one_worker_with_sparse_gradients(book, tmp_path):
    """MXNet's distributed stores take them only where the store updates."""
    options = ["--out", tmp_path / "run", *OPTIONS, "--epochs", 1, "--data", book]
    done = run("launch", "-n", 1, "--", "train", *options, "--optimizer", "sgd", "--rate", "0.1")
    assert done.returncode == 0, done.stdout


def test_bad_options_are_told_once():
    done = run("launch", "-n", 2, "--", "train", "--bogus")
    wanted = "fastrnn: unrecognized arguments: --bogus (see fastrnn --help)\n"
    assert (done.returncode, done.stdout) == (2, wanted)


def test_bad_input_of_the_workers_ends_all(book, tmp_path):
    done = run("launch", "-n", 6, "--", "train", "--out", tmp_path / "run", *OPTIONS)
    assert done.returncode == 2
    assert "batch: got 5, too few rows for 6 devices" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-n", "0", "--", "train"], "workers: got 0, wanted at least 1"),
        (["-n", "2", "-s", "0", "--", "train"], "servers: got 0, wanted at least 1"),
        (["-n", "2"], "launch: got nothing after --, wanted train and its options"),
        (["-n", "2", "--", "info"], "launch: got info after --, wanted train and its options"),
    ],
)
def test_bad_arguments(capsys, arguments, message):
    assert cli.main(["launch", *arguments]) == 2
    assert capsys.readouterr().err == f"fastrnn: {message}\n"


def test_the_port_is_the_schedulers():
    with launch.reserved_port() as port:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((launch.LOOPBACK, port))
        with socket.socket() as scheduler:
            scheduler.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            scheduler.bind((launch.LOOPBACK, port))
            scheduler.listen()
            socket.create_connection((launch.LOOPBACK, port)).close()


def test_workers_share_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MXNET_OMP_MAX_THREADS", raising=False)
    monkeypatch.setattr(launch, "physical_cores", lambda: 12)
    assert launch.environment(4, 1, 9000)["MXNET_OMP_MAX_THREADS"] == "3"
    assert launch.environment(20, 1, 9000)["MXNET_OMP_MAX_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert "MXNET_OMP_MAX_THREADS" not in launch.environment(4, 1, 9000)
