"""Calls of the command line, in this process and in one of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from fastrnn import cli
from fastrnn.lm import data

TEXT = data.load_text("builtin")[:3000]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TINY = ["--hidden", "16", "--embed", "8", "--batch", "4", "--steps", "20", "--epochs", "2"]
TINY += ["--sample", "30", "--device", "cpu"]
# An evaluation without what takes its time.
QUICK = ["--keystrokes", "0"]


def call(capsys, *arguments):
    """Exit code, lines of stdout, lines of stderr."""
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as leave:
        code = leave.code
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err.splitlines()


def fails(capsys, *arguments):
    """The one line on stderr of a command that fails."""
    code, _, err = call(capsys, *arguments)
    assert code == 2
    assert len(err) == 1
    return err[0]


def document(capsys, *arguments):
    """What ``--json`` prints, which has no number that JSON does not have."""

    def refuse(name):
        raise AssertionError(name)

    code, out, err = call(capsys, *arguments, "--json")
    assert (code, err, len(out)) == (0, [], 1)
    assert out[0].isascii()
    return json.loads(out[0], parse_constant=refuse)


def started(*arguments, closed=(), **streams):
    """A process of the command; `closed` are descriptors that it does not have."""

    def close():
        for descriptor in closed:
            os.close(descriptor)

    command = [sys.executable, "-m", "fastrnn", *map(str, arguments)]
    return subprocess.Popen(
        command, env=ENVIRONMENT, preexec_fn=close, **streams  # noqa: PLW1509
    )  # fmt: skip
