"""What the commands ``train``, ``evaluate``, ``generate`` and ``suggest`` do."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Optional, get_type_hints

import numpy as np

from fastrnn._threads import described
from fastrnn.lm.batches import too_short
from fastrnn.lm.command.devices import parse_devices
from fastrnn.lm.command.display import (
    EpochBar,
    epoch_line,
    figure,
    print_json,
    quoted,
    unit,
    wrapped,
)
from fastrnn.lm.command.fit import fit, seconds_of
from fastrnn.lm.command.interrupts import interrupts_kept
from fastrnn.lm.command.profile import profile, table
from fastrnn.lm.config import Settings, noun, preset
from fastrnn.lm.data import Reading, open_text, text_of, title
from fastrnn.lm.data.corpus import Corpus, encode_text, held_out
from fastrnn.lm.data.places import together
from fastrnn.lm.data.texts import Known, Text
from fastrnn.lm.distributed.workers import Workers, join
from fastrnn.lm.errors import InputError
from fastrnn.lm.evaluation import predicted
from fastrnn.lm.generation import Writer
from fastrnn.lm.keyboard import INSTALL, missing, serve
from fastrnn.lm.keystrokes import Evaluation
from fastrnn.lm.models import parameters_of
from fastrnn.lm.ngram import NGram
from fastrnn.lm.runs import (
    BEST,
    LAST,
    LOG,
    PLOT,
    Run,
    can_plot,
    check_free,
    check_resume,
    checkpoint_for_all,
    open_checkpoint,
    resumed,
)
from fastrnn.lm.tokenizers import UNKNOWN, normalize
from fastrnn.lm.tokenizers.vocabulary import Vocabulary
from fastrnn.lm.training import Training, same_corpus
from fastrnn.lm.training.checkpoint import Checkpoint

# The line between the texts of `generate --count`.
BETWEEN_TEXTS = "---"


def train(options: argparse.Namespace) -> None:
    """``fastrnn train``."""
    workers = join(options.kvstore)
    try:
        _train_with(workers, options)
    except BaseException:
        workers.leave()
        raise


def _train_with(workers: Workers, options: argparse.Namespace) -> None:
    names = get_type_hints(Settings)
    changes = {name: getattr(options, name) for name in names if name in options}
    if "data" in changes:
        changes["data"] = together(changes["data"])
    base = options.preset or "demo"
    folder: Path = options.out or Path("runs") / base
    checkpoint: Optional[Checkpoint] = None
    if options.resume and options.overwrite:
        raise InputError("resume and overwrite: only one of them makes sense")
    if options.resume and options.preset:
        raise InputError("resume and preset: the run keeps its settings; --out names its folder")
    check_resume(options.resume, workers)
    if options.resume:
        checkpoint = checkpoint_for_all(folder / LAST, workers)
        settings = resumed(checkpoint.settings, changes)
    else:
        settings = preset(base, **changes)
    seconds = None if options.fit is None else seconds_of(options.fit)
    if seconds and options.resume:
        raise InputError("fit and resume: the run keeps its settings")
    if workers.count > 1 and (seconds or options.profile):
        raise InputError("fit and profile: they measure one worker, and are not for several")
    text = None
    if seconds:
        check_free(folder, options.overwrite or options.profile)
        text = text_of(settings)
        chosen = fit(preset(base), changes, text, parse_devices(options.device), seconds)
        longer = chosen.seconds > 1.1 * seconds
        print(f"fit     {chosen}{', longer than asked for' if longer else ''}")
        settings = chosen.settings
    if options.profile:
        training = Training(
            settings, text or text_of(settings), parse_devices(options.device), checkpoint, workers
        )
        _introduce(training)
        print(table(profile(training)))
        return
    devices = parse_devices(options.device)
    run = Run(folder, settings, devices, checkpoint, options.overwrite, text, workers)
    if workers.rank:
        run.train()
        return
    _introduce(run.training)
    _train(run)
    _conclude(run)


def _train(run: Run) -> None:
    training = run.training
    bar = EpochBar(training)

    def after_epoch(row: Dict[str, float]) -> None:
        bar.close()
        best = training.progress.best_epoch == training.progress.epoch
        print(epoch_line(row, training.settings, best), flush=True)

    def report(*progress: Any) -> None:
        raise_ignored()
        bar(*progress)

    try:
        with interrupts_kept() as raise_ignored:
            run.train(report, after_epoch)
    except BaseException as error:
        if not _is_interrupt(error):
            raise
        state = (
            f"; {run.folder} has the state after epoch {run.saved_epoch}, --resume goes on from it"
        )
        raise KeyboardInterrupt(state if run.saved_epoch else "") from None
    finally:
        bar.close()


def _is_interrupt(error: Optional[BaseException]) -> bool:
    """Whether the cause is Ctrl-C: a half-written archive may then fail to close."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _introduce(training: Training) -> None:
    settings, corpus = training.settings, training.corpus
    parts = [f"{len(corpus.train):,} {noun(settings)}s to train on"]
    if len(corpus.validation):
        parts.append(f"{len(corpus.validation):,} to validate on")
    if len(corpus.test):
        parts.append(f"{len(corpus.test):,} to test on")
    size = sum(math.prod(p.shape) for p in parameters_of(training.model).values())
    devices = ", ".join(str(context) for context in training.contexts)
    for text in (training.text, *held_out(settings).values()):
        for line in text.reports():
            print(f"read    {line}")
    print(f"text    {title(settings.data)}: {', '.join(parts)}; {len(corpus.vocabulary)} different")
    workers = training.workers
    if workers.count > 1:
        print(f"workers {workers.count}, {workers.store.type}; this one is the first")
    print(f"model   {_describe(training.model, settings)}; {size:,} parameters; on {devices}")
    if training.contexts[0].device_type == "cpu":
        print(f"threads {described()}")
    print(f"losses  {unit(settings)}; * marks the best so far\n", flush=True)


def _describe(model: Any, settings: Settings) -> str:
    if settings.model == "unrolled":
        return f"unrolled over {settings.window} tokens, {settings.hidden} hidden units"
    layers = "1 layer" if settings.layers == 1 else f"{settings.layers} layers"
    return f"{settings.cell} ({model.rnn.backend.name}), {layers} of {settings.hidden}"


def _conclude(run: Run) -> None:
    training, settings = run.training, run.training.settings
    progress, corpus = training.progress, training.corpus
    part = "validation" if len(corpus.validation) else "training"
    print(
        f"\n{part:11} {figure(progress.best, settings)} {unit(settings)}, in epoch "
        f"{progress.best_epoch}"
    )
    if settings.ngram and len(corpus.validation):
        print(_ngram_line(_ngram_loss(corpus, corpus.validation, settings), settings))
    if settings.sample:
        writer = Writer.from_checkpoint(run.folder / BEST, training.contexts[0])
        pieces = writer.generate(length=settings.sample, temperature=0.7, seed=settings.seed)
        print(f"\n{wrapped(''.join(pieces))}")
    kept = [name for name in (BEST, LAST, LOG, PLOT) if (run.folder / name).exists()]
    print(f"\nkept in {run.folder}: {', '.join(kept)}")
    if not can_plot():
        print("no loss.png without matplotlib: pip install 'fastrnn[lm]'")
    print(f"for more: fastrnn generate {run.folder}")
    needed = f" (first {INSTALL})" if missing() else ""
    print(f"in the browser: fastrnn keyboard {run.folder}{needed}")


def _ngram_loss(corpus: Corpus, numbers: np.ndarray, settings: Settings) -> float:
    model = NGram(corpus.train, settings.ngram, len(corpus.vocabulary))
    return model.evaluate(numbers, *predicted(numbers, settings))


def _ngram_line(loss: float, settings: Settings) -> str:
    return (
        f"{'n-gram':11} {figure(loss, settings)} {unit(settings)}, by counting, with "
        f"{settings.ngram} {noun(settings)}s of context"
    )


def evaluate_run(options: argparse.Namespace) -> None:
    """``fastrnn evaluate``."""
    if options.data is None and (options.encoding or options.format or options.sender):
        raise InputError("encoding, format and from: they are for a text that --data names")
    context = parse_devices(options.device)[0]
    checkpoint = open_checkpoint(options.checkpoint)
    changes = {"metric": options.metric} if options.metric else {}
    settings = checkpoint.settings.updated({**changes, "ngram": options.ngram})
    corpus: Optional[Corpus] = None
    if options.data is None or options.ngram:
        text = text_of(settings)
        corpus = same_corpus(text, settings, checkpoint)
    if options.data is not None:
        name = title(together(options.data))
        text = _other_text(options, settings, checkpoint.vocabulary)
        numbers = encode_text(text, checkpoint.vocabulary)
    else:
        assert corpus is not None
        name = f"{options.split} part of {title(settings.data)}"
        numbers = getattr(corpus, options.split)
        text = held_out(settings).get(options.split, text)
        if not len(numbers):
            raise InputError(
                f"split: got {options.split!r}, but the run was trained with --{options.split} "
                f"{getattr(settings, options.split):g}, which leaves that part empty"
            )
    if len(numbers) <= settings.window:
        raise too_short(numbers, f"a loss takes {settings.window + 1}", f" in {name}")
    if options.keystrokes < 0:
        raise InputError(f"keystrokes: got {options.keystrokes}, wanted at least 0")
    writer = Writer.from_checkpoint(checkpoint, context)
    begin = 0 if options.data is not None else _begin(corpus, settings, options.split)
    found = Evaluation.of(writer, numbers, text, begin, options.keystrokes)
    loss = None
    if settings.ngram:
        assert corpus is not None
        loss = _ngram_loss(corpus, numbers, settings)
    passed_over = text.passed_over if isinstance(text, Known) else 0
    unknown = checkpoint.vocabulary.unknown(numbers) + passed_over
    if options.json:
        told = {"text": name, "unknown": unknown, **found.as_dict()}
        print_json({**told, "ngram": _ngram_dict(loss, settings)})
        return
    print(
        f"{'model':11} {figure(found.scores.loss, settings)} {unit(settings)}, on "
        f"{found.scores.tokens:,} {noun(settings)}s: {name}"
    )
    if options.data is not None:
        total = len(numbers) + passed_over
        line = f"{'unknown':11} {unknown:,} of {total:,} {noun(settings)}s ({unknown / total:.1%})"
        print(f"{line}, passed over" if passed_over else line)
    if loss is not None:
        print(_ngram_line(loss, settings))
    print("\n".join(found.lines()))


def _other_text(options: argparse.Namespace, settings: Settings, vocabulary: Vocabulary) -> Text:
    """The text of ``evaluate --data``."""
    encoding = options.encoding or settings.encoding
    reading = Reading(encoding, options.format or "auto", options.sender, settings.redact)
    text = open_text(together(options.data), reading)
    marked = vocabulary.level != "character" or UNKNOWN in vocabulary
    return text if marked else Known(text, vocabulary)


def _begin(corpus: Optional[Corpus], settings: Settings, split: str) -> int:
    """Where in its text a part begins."""
    assert corpus is not None
    apart = held_out(settings)
    order = ("train", "validation", "test")
    before = order[: 0 if split in apart else order.index(split)]
    return sum(len(getattr(corpus, name)) for name in before if name not in apart)


def _ngram_dict(loss: Optional[float], settings: Settings) -> Optional[Dict[str, float]]:
    return None if loss is None else {"context": settings.ngram, "loss": loss}


def generate(options: argparse.Namespace) -> None:
    """``fastrnn generate``."""
    writer = Writer.from_checkpoint(options.checkpoint, parse_devices(options.device)[0])
    sampling = {
        "length": options.length,
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "seed": options.seed,
        "stop": options.stop,
    }
    prompt = normalize(options.prompt)
    if options.json or options.count != 1:
        texts = writer.generate_batch(options.prompt, options.count, **sampling)
        if options.json:
            print_json({"prompt": prompt, "texts": texts})
        else:
            print(f"\n{BETWEEN_TEXTS}\n".join(prompt + text for text in texts), flush=True)
        return
    pieces = writer.generate(options.prompt, **sampling)
    sys.stdout.write(prompt)
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    sys.stdout.flush()


def suggest(options: argparse.Namespace) -> None:
    """``fastrnn suggest``."""
    writer = Writer.from_checkpoint(options.checkpoint, parse_devices(options.device)[0])
    found = writer.suggest(options.prefix, options.k)
    if options.json:
        parts = {key: [item._asdict() for item in items] for key, items in found._asdict().items()}
        print_json({"prefix": normalize(options.prefix), **parts})
        return
    print("next")
    for item in found.next:
        print(f"  {item.probability:6.1%}  {quoted(item.text)}")
    if found.completions:
        print("word")
        for item in found.completions:
            print(f"  {item.probability:6.1%}  {item.text}")


def keyboard(options: argparse.Namespace) -> None:
    """``fastrnn keyboard``."""
    serve(
        options.runs,
        options.host,
        options.port,
        not options.no_browser,
        parse_devices(options.device)[0],
    )


COMMANDS: Dict[str, Callable[[argparse.Namespace], None]] = {
    "train": train,
    "evaluate": evaluate_run,
    "generate": generate,
    "suggest": suggest,
    "keyboard": keyboard,
}
