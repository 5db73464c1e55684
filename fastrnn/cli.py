"""The command ``fastrnn``: train, launch, evaluate, generate, suggest, keyboard, data, check, info.

The demo is ``fastrnn train --preset demo --out FOLDER`` (both are the defaults, FOLDER being
``runs/demo``; ``--overwrite`` to run it again): it needs no network, and prints in the end the
validation loss in bits per character, that of an n-gram model with three characters of context on
the same split, and 400 characters of generated text.

Exit codes: 0 for success, 1 if ``check`` found something wrong, 2 for bad input (one line on
stderr), 130 after Ctrl-C, 141 when the reader of the output, such as ``head``, has closed the pipe.
Nothing is shown on a standard stream that is closed.
"""

from __future__ import annotations

import io
import json
import signal
import sys
from typing import Optional, Sequence

from fastrnn.lm.command.parser import BAD_INPUT, make_parser
from fastrnn.lm.command.streams import open_closed_streams, say, silence
from fastrnn.lm.distributed.launch import launch

OK, FOUND_WRONG = 0, 1
# What a shell reports of a program that these signals end.
INTERRUPTED, PIPE_CLOSED = 128 + signal.SIGINT, 128 + signal.SIGPIPE


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        ``sys.argv[1:]`` by default.
    """
    open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Characters that the terminal's encoding lacks are escaped.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as interrupt:
        say(f"\nfastrnn: interrupted{interrupt}")
        return INTERRUPTED
    except BrokenPipeError:
        silence(sys.stdout)
        return PIPE_CLOSED
    except OSError as error:
        silence(sys.stdout)
        return _refuse(error)
    except (ImportError, MemoryError, RuntimeError, ValueError) as error:
        # Besides InputError: what the layers and MXNet, whose error is a RuntimeError, raise for
        # options, sizes and devices that they cannot serve.
        return _refuse(error)


def _refuse(error: Exception) -> int:
    """Say in one line what is wrong; MXNet has that in the last of several."""
    lines = str(error).strip().splitlines() or ["out of memory"]
    say(f"fastrnn: {lines[-1].strip()}")
    return BAD_INPUT


def _run(arguments: Optional[Sequence[str]]) -> int:
    try:
        options = make_parser().parse_args(arguments)
    except SystemExit as leave:  # after --help, --version or an error already reported
        return int(leave.code or OK)
    if options.command == "info":
        from fastrnn._info import features, format_features

        print(json.dumps(features()) if options.json else format_features())
        return OK
    if options.command == "check":
        from fastrnn.check.command import main as check

        return FOUND_WRONG if check(options) else OK
    if options.command == "data":
        from fastrnn.lm.command.description import describe

        describe(options)
        return OK
    if options.command == "launch":
        return launch(options)
    # Only here: --help, `info` and `data` also work without MXNet.
    from fastrnn.lm.command import commands

    commands.COMMANDS[options.command](options)
    return OK
