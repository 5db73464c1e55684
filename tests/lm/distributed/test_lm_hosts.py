"""Workers on several hosts, started by the scripts of the documentation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from trained_together import ENVIRONMENT, OPTIONS, TEXT, assert_same, train

from fastrnn.lm.training.checkpoint import load_checkpoint

SCRIPTS = Path(__file__).resolve().parents[3] / "docs" / "distributed"
# Network namespaces stand in for hosts. A name is an address (RFC 5737) and what tells it from the
# name of another process that runs these tests.
HOSTS = ("192.0.2.1", "192.0.2.2")
OWN = f"-{os.getpid()}"
COMMANDS = {
    "fastrnn": f'exec {sys.executable} -m fastrnn "$@"',
    # A connection that ends takes along what it started.
    "ssh": f'shift; host=$1; shift; exec ip netns exec "$host{OWN}" bash -c "$*"',
    "getent": f"echo {HOSTS[0]} STREAM host",
    "srun": f"""
shift
SLURM_PROCID=1 ip netns exec {HOSTS[1]}{OWN} "$@" &
SLURM_PROCID=0 ip netns exec {HOSTS[0]}{OWN} "$@" & wait -n; code=$?
[ $code = 0 ] || kill $(jobs -p)
wait
exit $code
""",
}


def allowed():
    """Whether this process may make network namespaces."""
    if not shutil.which("ip"):
        return False
    name = f"fastrnn{OWN}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return made.returncode == 0


@pytest.fixture
def hosts():
    """Two hosts with a cable between them."""
    if not allowed():
        pytest.skip("no network namespaces here: `ip netns add` is missing or not permitted")

    def ip(*arguments):
        subprocess.run(["ip", *arguments], check=True)

    try:
        for host in HOSTS:
            ip("netns", "add", host + OWN)
        cable = ("type", "veth", "peer", "name", "frnn1", "netns", HOSTS[1] + OWN)
        ip("-n", HOSTS[0] + OWN, "link", "add", "frnn0", *cable)
        for number, host in enumerate(HOSTS):
            ip("-n", host + OWN, "address", "add", f"{host}/24", "dev", f"frnn{number}")
            for device in ("lo", f"frnn{number}"):
                ip("-n", host + OWN, "link", "set", device, "up")
        yield HOSTS
    finally:
        for host in HOSTS:
            subprocess.run(["ip", "netns", "del", host + OWN], capture_output=True, check=False)


@pytest.fixture
def environment(tmp_path):
    """Commands of these names in front of the usual ones."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in COMMANDS.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (folder / name).chmod(0o755)
    return {**ENVIRONMENT, "PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_NUM_NODES": "2"}


@pytest.mark.parametrize("script", ["ssh.sh", "slurm.sh"])
def test_two_hosts_are_one_worker_with_the_joint_batch(script, hosts, environment, tmp_path):
    book = tmp_path / "book.txt"
    book.write_text(TEXT, encoding="utf-8")
    options = ["--epochs", "1", "--data", str(book)]
    names = [" ".join(hosts)] if script == "ssh.sh" else []
    done = subprocess.run(
        ["bash", str(SCRIPTS / script), *names, "train", "--out", "two", *OPTIONS, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**environment, "FASTRNN_SCRIPTS": str(SCRIPTS)},
        cwd=tmp_path,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "workers 2, dist_sync" in done.stdout
    one, _ = train(1, tmp_path / "one", *options)
    assert_same(one, load_checkpoint(tmp_path / "two" / "last.npz"))


@pytest.mark.parametrize("script", ["ssh.sh", "slurm.sh"])
def test_a_host_that_fails_ends_all(script, hosts, environment, tmp_path):
    names = [" ".join(hosts)] if script == "ssh.sh" else []
    fails = tmp_path / "bin" / "fastrnn"
    fails.write_text('#!/bin/sh\n[ "$DMLC_ROLE" = worker ] && exit 7\nexec sleep 1000\n')
    done = subprocess.run(
        ["bash", str(SCRIPTS / script), *names, "train"],
        env={**environment, "FASTRNN_SCRIPTS": str(SCRIPTS)},
        cwd=tmp_path,
        timeout=120,
        check=False,
    )
    assert done.returncode == 7
    for host in hosts:
        # A killed process is listed until the system has ended it.
        gone = f'until [ -z "$(ip netns pids {host}{OWN})" ]; do :; done'
        subprocess.run(["sh", "-c", gone], timeout=60, check=True)
