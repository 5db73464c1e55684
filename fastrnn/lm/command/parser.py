"""The options of the whole command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn, Optional, get_type_hints

from fastrnn._version import __version__
from fastrnn.lm.command.streams import say
from fastrnn.lm.config import FORMATS, METRICS, PRESETS, Settings
from fastrnn.lm.encodings import UTF_8

BAD_INPUT = 2  # the exit code


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        say(f"{self.prog}: {message} (see {self.prog} --help)")
        self.exit(BAD_INPUT)

    def _print_message(self, message: str, file: Optional[Any] = None) -> None:
        # The usual one drops what cannot be written, such as help on a full disk.
        (file or sys.stdout).write(message)


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = _Parser(
        prog="fastrnn",
        description="Train a language model on a text, and generate text with it.",
        epilog="Start with `fastrnn train`: it needs no data and takes under three minutes.",
    )
    parser.add_argument("--version", action="version", version=f"fastrnn {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_train(commands)
    _add_launch(commands)
    _add_evaluate(commands)
    _add_generate(commands)
    _add_suggest(commands)
    _add_keyboard(commands)
    _add_data(commands)
    _add_check(commands)
    info = _add(
        commands,
        "info",
        "show what this installation can do, and why",
        "example:\n  fastrnn info    versions, native library, CUDA, devices\n",
    )
    _add_json(info)
    return parser


def _add(commands: Any, name: str, summary: str, epilog: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=name)
    return parser


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", default="auto", help="cpu, gpu, gpu:0,1 (they share each batch) or auto"
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")


def _add_train(commands: Any) -> None:
    parser = _add(
        commands,
        "train",
        "train a model on a text",
        "examples:\n"
        "  fastrnn train                                    a small model on a built-in text\n"
        "  fastrnn train --data book.txt --out runs/book    on a text of your own\n"
        "  fastrnn train --data one.txt other.txt 'more/*.txt'   on several files, in this order\n"
        "  fastrnn train --data chat.txt --fit 10m          what takes about ten minutes here\n"
        "  fastrnn train --data book.txt --hidden 512 --epochs 20 --out runs/large\n"
        "  fastrnn train --out runs/book --resume --epochs 30    continue where it stopped\n"
        "  fastrnn train --preset tutorial                  two layers of 1000: takes an hour\n",
    )
    parser.add_argument(
        "--preset", choices=list(PRESETS), help="settings to start from (demo); not with --resume"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="folder for the run (runs/PRESET)"
    )
    parser.add_argument(
        "--fit",
        metavar="TIME",
        help="choose a model for the text and epochs that take about 90s, 10m or 2h here",
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="only train a few steps, and show what their parts take; nothing is kept",
    )
    _add_device(parser)
    parser.add_argument(
        "--kvstore",
        default="auto",
        metavar="NAME",
        help="of MXNet, to train with other workers: dist_sync, dist_async, horovod; auto: "
        "dist_sync in a process that a launcher started, with DMLC_ROLE set (auto)",
    )
    group = parser.add_argument_group("settings (each replaces the preset's)")
    for name, kind in get_type_hints(Settings).items():
        limits = Settings.limits(name)
        flag = "--" + (limits["option"] or name.replace("_", "-"))
        common = {"dest": name, "default": argparse.SUPPRESS, "help": limits["help"]}
        if kind is bool:
            group.add_argument(flag, action="store_true", **common)
            common["help"] = argparse.SUPPRESS
            group.add_argument("--no-" + flag[2:], action="store_false", **common)
        elif limits["choices"]:
            group.add_argument(flag, choices=limits["choices"], **common)
        elif name == "data":
            group.add_argument(flag, nargs="+", metavar="TEXT", **common)
        else:
            metavar = limits["metavar"] or _metavar(kind)
            group.add_argument(flag, type=kind, metavar=metavar, **common)


def _add_launch(commands: Any) -> None:
    parser = _add(
        commands,
        "launch",
        "train with several workers on this machine",
        "examples:\n"
        "  fastrnn launch -n 2 -- train --data book.txt --out runs/book\n"
        "  fastrnn launch -n 4 -- train --out runs/book --resume   with more workers than before\n",
    )
    parser.add_argument(
        "-n", dest="workers", type=int, required=True, metavar="N", help="number of workers"
    )
    parser.add_argument(
        "-s",
        dest="servers",
        type=int,
        default=1,
        metavar="N",
        help="number of servers, which sum gradients (1)",
    )
    parser.add_argument(
        "arguments", nargs=argparse.REMAINDER, metavar="-- train ...", help="what a worker runs"
    )


def _metavar(kind: type) -> str:
    return {int: "N", float: "X"}.get(kind, "TEXT")


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="RUN",
        help="folder of a run (its best model) or a checkpoint file in it",
    )
    _add_device(parser)


def _add_evaluate(commands: Any) -> None:
    parser = _add(
        commands,
        "evaluate",
        "measure how well a model predicts a text",
        "examples:\n"
        "  fastrnn evaluate runs/demo                     on the validation part of its text\n"
        "  fastrnn evaluate runs/demo --ngram 3           and a counting model beside it\n"
        "  fastrnn evaluate runs/book --data other.txt    on another text\n",
    )
    _add_run(parser)
    parser.add_argument(
        "--data",
        nargs="+",
        metavar="TEXT",
        help="measure on all of another text, whatever --split says",
    )
    _add_reading(parser, None)
    parser.add_argument(
        "--split",
        choices=("validation", "test", "train"),
        default="validation",
        help="part of the text that the model was trained on (validation)",
    )
    parser.add_argument(
        "--ngram",
        type=int,
        default=0,
        metavar="N",
        help="also measure an n-gram model with N tokens of context, counted on the training part",
    )
    parser.add_argument("--metric", choices=METRICS, help="unit of the losses shown")
    parser.add_argument(
        "--keystrokes",
        type=int,
        default=100,
        metavar="N",
        help="count the keystrokes that suggestions save in the first N words; 0: do not (100)",
    )
    _add_json(parser)


def _add_reading(parser: argparse.ArgumentParser, encoding: Optional[str]) -> None:
    """How the texts are read that a command names."""
    usual = encoding or "the run's"
    parser.add_argument(
        "--encoding", default=encoding, metavar="TEXT", help=f"of the text ({usual})"
    )
    parser.add_argument("--format", choices=FORMATS, help="of the text (auto)")
    parser.add_argument(
        "--from", dest="sender", default="", metavar="TEXT", help="only this person's messages"
    )


def _add_data(commands: Any) -> None:
    parser = _add(
        commands,
        "data",
        "list the texts with a name, or what files contain",
        "examples:\n"
        "  fastrnn data                         where the texts with a name are\n"
        "  fastrnn data chat.txt 'more/*.txt'   people, characters, words, lines, scripts\n",
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="files, folders, patterns, names")
    _add_reading(parser, UTF_8)
    parser.add_argument("--redact", action="store_true", help="say what --redact would replace")


def _add_check(commands: Any) -> None:
    parser = _add(
        commands,
        "check",
        "check the native kernels on this machine, and time them against MXNet's",
        "examples:\n"
        "  fastrnn check                  on the GPU, or without one on the CPU: a minute\n"
        "  fastrnn check --full           every kernel at full size: ten minutes\n"
        "  fastrnn check --device gpu:1   on the second GPU\n",
    )
    parser.add_argument("--device", default="auto", help="cpu, gpu, gpu:N or auto")
    parser.add_argument("--full", action="store_true", help="take ten minutes, not one")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="layers whose name contains this: 'lstm tf32'"
    )
    _add_json(parser)


def _add_generate(commands: Any) -> None:
    parser = _add(
        commands,
        "generate",
        "generate text with a model",
        "examples:\n"
        '  fastrnn generate runs/demo --prompt "The "    continue these words\n'
        "  fastrnn generate runs/demo --temperature 0.5  tamer; 0 always takes the likeliest\n"
        "  fastrnn generate runs/demo --top-k 5 --seed 7 the same text each time\n"
        "  fastrnn generate runs/demo --count 3 --stop . three sentences\n",
    )
    _add_run(parser)
    parser.add_argument(
        "--prompt", default="", metavar="TEXT", help="text to continue (the start of a line)"
    )
    parser.add_argument(
        "--length", type=int, default=400, metavar="N", help="characters or words to generate (400)"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.8,
        metavar="X",
        help="0: always the likeliest; 1: as learned; higher: wilder (0.8)",
    )
    parser.add_argument(
        "--top-k", type=int, default=0, metavar="N", help="draw only among the N likeliest"
    )
    parser.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        metavar="X",
        help="draw only among the likeliest that together have probability X",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same text")
    parser.add_argument(
        "--count",
        type=int,
        default=1,
        metavar="N",
        help="write N texts in one batch, with a line of three dashes between them (1)",
    )
    parser.add_argument(
        "--stop", metavar="TEXT", help="end a text before this string, which is not written"
    )
    _add_json(parser)


def _add_suggest(commands: Any) -> None:
    parser = _add(
        commands,
        "suggest",
        "suggest how a text may continue",
        "examples:\n"
        '  fastrnn suggest runs/demo "The obj"          next characters, and completed words\n'
        '  fastrnn suggest runs/words "once upon a" -k 3\n',
    )
    _add_run(parser)
    parser.add_argument("prefix", metavar="TEXT", help="the text so far")
    parser.add_argument("-k", type=int, default=5, metavar="N", help="number of suggestions (5)")
    _add_json(parser)


def _add_keyboard(commands: Any) -> None:
    parser = _add(
        commands,
        "keyboard",
        "suggest as you type, in the browser",
        "examples:\n"
        "  fastrnn keyboard                        with the newest run in runs\n"
        "  fastrnn keyboard runs/demo runs/book    choose between them in the page\n"
        "  fastrnn keyboard --port 0 --no-browser  at any free port, which it prints\n",
    )
    parser.add_argument(
        "runs", type=Path, nargs="*", metavar="RUN", help="folders of runs (the newest in runs)"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="NAME",
        help="address to serve at (127.0.0.1: for this machine alone; 0.0.0.0: for its network)",
    )
    parser.add_argument(
        "--port", type=int, default=8765, metavar="N", help="port to serve at (8765); 0: any free"
    )
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    _add_device(parser)
