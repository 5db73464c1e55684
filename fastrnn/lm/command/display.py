"""What the command line shows: losses in the wanted unit, the progress bar, samples."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
import textwrap
import time
from typing import Any, Dict, Optional

from fastrnn.lm.config import Settings, noun
from fastrnn.lm.evaluation import perplexity
from fastrnn.lm.training import Training

# Without a terminal, a line after so much time shows that training goes on.
_TOLD_SECONDS = 60


def unit(settings: Settings) -> str:
    """The unit of the metric, such as ``bits per character``."""
    if settings.metric == "perplexity":
        return "perplexity"
    return f"{settings.metric} per {noun(settings)}"


def in_unit(nats: float, settings: Settings) -> float:
    """A loss in nats per token, in the metric of `settings`."""
    if settings.metric == "bits":
        return nats / math.log(2)
    if settings.metric == "perplexity":
        return perplexity(nats)
    return nats


def figure(nats: float, settings: Settings) -> str:
    """A loss as it is printed."""
    digits = 1 if settings.metric == "perplexity" else 3
    # Rounding errors can make a loss of zero negative; zero added to -0.0 is 0.0.
    return f"{round(in_unit(nats, settings), digits) + 0.0:.{digits}f}"


def speed(tokens_per_second: float, settings: Settings) -> str:
    """Such as ``12.3k characters/s``."""
    if tokens_per_second >= 1000:
        return f"{tokens_per_second / 1000:.1f}k {noun(settings)}s/s"
    return f"{tokens_per_second:.0f} {noun(settings)}s/s"


def epoch_line(row: Dict[str, float], settings: Settings, best: bool) -> str:
    """The line for one finished epoch; a star marks the best so far."""
    digits = len(str(settings.epochs))
    line = f"epoch {row['epoch']:{digits}.0f}/{settings.epochs}"
    line += f"   train {figure(row['loss'], settings)}"
    if not math.isnan(row["validation"]):
        line += f"   validation {figure(row['validation'], settings)}"
    line += f"   {speed(row['tokens_per_second'], settings)}   {duration(row['seconds'])}"
    return line + ("  *" if best else "")


def duration(seconds: float) -> str:
    """Such as ``8.1 s`` or ``2 min 05 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def wrapped(text: str, width: int = 80) -> str:
    """`text` with its long lines wrapped at spaces, and never inside a word."""
    lines = (textwrap.fill(line, width, break_long_words=False) for line in text.split("\n"))
    return "\n".join(lines)


def quoted(text: str) -> str:
    """A token in quotes, with escapes only if it would not show: joined emoji stay joined."""
    visible = any(c.isprintable() and not c.isspace() for c in text)
    return f"'{text}'" if visible and not text.isprintable() else repr(text)


def print_json(values: Any) -> None:
    """Print one JSON document, in ASCII; a number that JSON does not have is null."""
    print(json.dumps(_finite(values), allow_nan=False), flush=True)


def _finite(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


class EpochBar:
    """How far an epoch is, with loss and speed: a bar on stderr while that is a terminal.

    Elsewhere it is a line on stdout after each tenth of an epoch, and after each minute without
    one.
    """

    def __init__(self, training: Training) -> None:
        self._training = training
        self._bar: Optional[Any] = None
        self._drawn = sys.stderr.isatty() and importlib.util.find_spec("tqdm") is not None
        self._tenth = 0
        self._told = self._started = time.monotonic()

    def __call__(self, done: int, batches: int, loss: float, tokens_per_second: float) -> None:
        """As `report` of :meth:`fastrnn.lm.training.Training.run_epoch`."""
        settings = self._training.settings
        shown = f"loss {figure(loss, settings)}, {speed(tokens_per_second, settings)}"
        epoch = f"epoch {self._training.progress.epoch + 1}/{settings.epochs}"
        if not self._drawn:
            self._tell(epoch, done, batches, shown)
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                desc=epoch,
                total=batches,
                leave=False,
                bar_format="{desc} |{bar:30}| {elapsed}, {remaining} left{postfix}",
            )
        self._bar.set_postfix_str(shown, refresh=False)
        self._bar.update(done - self._bar.n)

    def _tell(self, epoch: str, done: int, batches: int, shown: str) -> None:
        """Print the line, if one is due; the end of an epoch has one of its own."""
        now, tenth = time.monotonic(), 10 * done // batches
        if done < batches and (tenth > self._tenth or now - self._told >= _TOLD_SECONDS):
            self._tenth, self._told = tenth, now
            took = duration(now - self._started)
            print(f"{epoch}   {done / batches:4.0%}   {shown}   {took}", flush=True)

    def close(self) -> None:
        """End the epoch: take the bar off the screen; the next report begins a new one."""
        self._tenth = 0
        self._told = self._started = time.monotonic()
        if self._bar is not None:
            self._bar.close()
            self._bar = None
