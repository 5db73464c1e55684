"""Training: one network, its optimizer and its data, on one device or several."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from contextlib import nullcontext
from dataclasses import astuple
from typing import (
    Any,
    Callable,
    ContextManager,
    Deque,
    Dict,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np

from fastrnn.lm.batches import (
    Batch,
    arrange,
    bptt_batches,
    sliding_windows,
    too_short,
)
from fastrnn.lm.config import Settings
from fastrnn.lm.data import title
from fastrnn.lm.data.corpus import Corpus, encode_corpus, fingerprint
from fastrnn.lm.data.texts import Text
from fastrnn.lm.distributed.workers import ALONE, Workers
from fastrnn.lm.errors import InputError
from fastrnn.lm.evaluation import evaluate
from fastrnn.lm.models import build_model, parameter_values, parameters_of, set_parameter_values
from fastrnn.lm.tokenizers import UNKNOWN
from fastrnn.lm.training.checkpoint import Checkpoint, Progress
from fastrnn.lm.training.steps import differentiate
from fastrnn.lm.training.updates import Updates, rate_of
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()

# Losses are read this many batches after they were asked for, so that the device always has work.
_BATCHES_AHEAD = 2
# The losses of these batches of an epoch are logged on their own, as the tutorial shows them.
_LOGGED = ((0, 64), (64, 128))
# Where a text is may differ from one machine to the next.
_PLACES = ("data", "validation_data", "test_data")

Report = Callable[[int, int, float, float], None]


class Training:
    """Trains one network.

    Parameters
    ----------
    settings : Settings
    text : str or Text
        All of it; `settings` say how it is split.
    contexts : sequence of mxnet.Context
        Where to train. Each batch is divided among several.
    checkpoint : Checkpoint, optional
        Go on from there, with its vocabulary; the text must be the one it was trained on.
    workers : Workers, optional
        Those that train together, each on its rows of each batch.

    Attributes
    ----------
    text : Text
    corpus : Corpus
    model : UnrolledRNN or LanguageModel
    progress : Progress

    Raises
    ------
    InputError
        For a text that is too short, or another one than the checkpoint's or the first worker's.
    """

    def __init__(
        self,
        settings: Settings,
        text: Union[str, Text],
        contexts: Sequence[Any],
        checkpoint: Optional[Checkpoint] = None,
        workers: Workers = ALONE,
    ) -> None:
        self.settings = settings
        self.workers = workers
        self.contexts = list(contexts)
        self.text = text = Text.of(text)
        self.text_sha256 = fingerprint(text, settings)
        if checkpoint:
            self.corpus = same_corpus(text, settings, checkpoint)
        else:
            self.corpus = encode_corpus(text, settings)
        self._check_lengths()
        self._check_workers()
        # Plain SGD leaves rows without a gradient as they are; Adam does not.
        on_cpus = self.contexts[0].device_type == "cpu"
        sparse = settings.optimizer == "sgd" and on_cpus and not workers.apart
        sparse = sparse and settings.dtype == "float32"
        self.model = build_model(settings, len(self.corpus.vocabulary), sparse)
        seed_epoch(settings.seed, 0)
        initializer = mx.init.Uniform(settings.init) if settings.init else mx.init.Xavier()
        self.model.initialize(initializer, ctx=self.contexts)
        self.model.hybridize()
        # What encloses each part of a step; `profile` has a clock instead.
        self.part: Callable[[str], ContextManager[Any]] = nullcontext
        self.progress = checkpoint.progress if checkpoint else Progress()
        self._updates = Updates(
            parameters_of(self.model),
            settings,
            self.contexts,
            workers,
            self.progress.epoch + 1,
            self._batches(np.random.default_rng(0))[0],
        )
        if checkpoint:
            set_parameter_values(self.model, checkpoint.parameters)
            self._updates.restore(checkpoint.optimizer, self.progress)

    def _check_lengths(self) -> None:
        settings = self.settings
        devices = len(self.contexts) * self.workers.count
        if settings.batch < devices:
            raise InputError(f"batch: got {settings.batch}, too few rows for {devices} devices")
        if self.corpus.vocabulary.tokens == (UNKNOWN,):
            raise InputError(
                f"min_count: got {settings.min_count}, but no character is that frequent in the "
                f"training part"
            )
        least = settings.batch + 1
        if settings.model == "unrolled":
            least = settings.window + settings.stride * (settings.batch - 1) + 1
        if len(self.corpus.train) < least:
            wanted = f"a batch of {settings.batch} takes {least}"
            raise too_short(self.corpus.train, wanted, " to train on")
        held_out = settings.validation or settings.validation_data
        if held_out and len(self.corpus.validation) <= settings.window:
            wanted = "--validation wants a larger share, or 0"
            if settings.validation_data:
                wanted = "--validation-data wants a longer text"
            raise too_short(self.corpus.validation, wanted, " to validate on")

    def _check_workers(self) -> None:
        """Fail unless all workers train on the same text with the same settings, in float32."""
        several = self.workers.count > 1 or self.workers.asynchronous
        if several and self.settings.dtype != "float32":
            raise InputError(
                f"dtype: got {self.settings.dtype}, wanted float32 for several workers, or for "
                f"dist_async"
            )
        values = self.settings.as_dict().items()
        settings = {name: value for name, value in values if name not in _PLACES}
        self.workers.check_equal("settings", json.dumps(settings))
        vocabulary = self.corpus.vocabulary.to_json()
        self.workers.check_equal("data", json.dumps([self.text_sha256, vocabulary]))

    def run_epoch(self, report: Optional[Report] = None) -> Dict[str, float]:
        """One pass over the training part, then the loss on the validation part.

        Parameters
        ----------
        report : callable, optional
            Called after each batch with the number of finished batches, of all batches, the mean
            loss of this worker's part of the latest batch, and the tokens that it trains on per
            second.

        Returns
        -------
        dict
            The row of the log: `epoch`, `loss`, `loss_1_64`, `loss_65_128` (means over all, the
            first 64 and the next 64 batches), `validation` (nats per token, or nan without a
            validation part), `rate`, `tokens_per_second`, `seconds`.
        """
        started = time.perf_counter()
        epoch = self.progress.epoch + 1
        generator = seed_epoch(self.settings.seed, epoch, self.workers.rank)
        self._updates.set_rate(self.rate(epoch))
        count, batches = self._batches(generator)
        made = self._updates.made
        losses: List[float] = []
        tokens: List[float] = []
        for loss, targets in self._train_on(batches):
            losses.append(loss)
            tokens.append(targets)
            _check_finite(loss, f"in batch {len(losses)}")
            if report:
                speed = sum(tokens) / (time.perf_counter() - started)
                report(len(losses), count, loss / targets, speed)
        mx.nd.waitall()
        trained = time.perf_counter() - started
        losses, tokens = self.workers.summed("epoch", [*losses, *tokens]).reshape(2, -1).tolist()
        row = {"epoch": epoch, "loss": _mean(losses, tokens)}
        for first, last in _LOGGED:
            part = slice(first, last)
            row[f"loss_{first + 1}_{last}"] = _mean(losses[part], tokens[part])
        row["validation"] = self.validate()
        row["rate"] = self.rate(epoch)
        row["tokens_per_second"] = sum(tokens) / trained
        row["seconds"] = time.perf_counter() - started
        judged = "validation" if len(self.corpus.validation) else "loss"
        _check_finite(row[judged], f"after epoch {epoch}")
        now = self.progress
        updates = now.updates + self._updates.made - made
        self.progress = Progress(updates, [*now.rows, row], astuple(self._updates.scale))
        return row

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or too many went by without a better loss."""
        waited = self.progress.epoch - self.progress.best_epoch
        patience = self.settings.patience
        return self.progress.epoch >= self.settings.epochs or (0 < patience <= waited)

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 1."""
        return rate_of(self.settings, epoch)

    def _batches(self, generator: np.random.Generator) -> Tuple[int, Iterator[Batch]]:
        """How many batches an epoch has, and this worker's rows of them."""
        settings, own = self.settings, self.workers.share(self.settings.batch)
        if settings.model == "language":
            streams = arrange(self.corpus.train, settings.batch)
            count = math.ceil(len(streams[0]) / settings.steps)
            inputs, targets = (array[:, own] for array in streams)
            return count, bptt_batches(inputs, targets, settings.steps)
        windows, targets = sliding_windows(self.corpus.train, settings.window, settings.stride)
        # Windows that do not fill a batch are left out of this epoch, other ones of the next.
        full = len(windows) // settings.batch * settings.batch
        order = np.arange(len(windows), dtype=np.min_scalar_type(len(windows)))
        generator.shuffle(order)
        rows = order[:full].reshape(-1, settings.batch)
        return len(rows), ((windows[part], targets[part]) for part in rows[:, own])

    def _train_on(self, batches: Iterator[Batch]) -> Iterator[Tuple[float, int]]:
        """Train on `batches`; yields the summed loss of each and its number of targets."""
        own = self.workers.share(self.settings.batch)
        states = self._begin_states(own.stop - own.start)
        waiting: Deque[Tuple[List[Any], int]] = deque()
        for inputs, targets in batches:
            losses, states = self._step(inputs, targets, states)
            waiting.append((losses, targets.size))
            if len(waiting) > _BATCHES_AHEAD:
                with self.part("reading back"):
                    latest = _read(*waiting.popleft())
                yield latest
        while waiting:
            yield _read(*waiting.popleft())

    def train_endlessly(self) -> Iterator[Tuple[float, int]]:
        """Train on the first epoch's batches again and again, as :meth:`run_epoch` does once."""
        while True:
            _, batches = self._batches(seed_epoch(self.settings.seed, 1))
            yield from self._train_on(batches)

    def _step(
        self, inputs: np.ndarray, targets: np.ndarray, states: List[Any]
    ) -> Tuple[List[Any], List[Any]]:
        """One update; the loss summed over the batch, and the detached states, for each device."""
        with self.part("data"):
            parts = list(zip(self._divide(inputs), self._divide(targets), states))
        scale = self._updates.scale.value
        results = [
            differentiate(self.model, x, y, state, self.part, scale) for x, y, state in parts
        ]
        self._updates.step(self.part)
        return [loss for loss, _ in results], [state for _, state in results]

    def _divide(self, array: np.ndarray) -> List[Any]:
        axis = 1 if self.settings.model == "language" and array.ndim == 2 else 0
        return mx.gluon.utils.split_and_load(
            mx.nd.array(array, dtype="int32"), self.contexts, batch_axis=axis, even_split=False
        )

    def _begin_states(self, rows: int) -> List[Any]:
        if self.settings.model == "unrolled":
            return [None] * len(self.contexts)
        parts = self._divide(np.zeros((1, rows), np.int32))
        return [
            self.model.begin_state(part.shape[1], ctx=context)
            for part, context in zip(parts, self.contexts)
        ]

    def validate(self) -> float:
        """Mean loss on the validation part, nats per token; nan if there is none."""
        if not len(self.corpus.validation):
            return math.nan
        loss = math.nan
        if self.workers.rank == 0:
            loss = evaluate(self.model, self.corpus.validation, self.settings, self.contexts[0])
        return float(self.workers.from_first([loss])[0])

    def checkpoint(self) -> Checkpoint:
        """The state of the training, copied to the host."""
        return Checkpoint(
            settings=self.settings,
            vocabulary=self.corpus.vocabulary,
            text_sha256=self.text_sha256,
            progress=self.progress,
            parameters=parameter_values(self.model),
            optimizer=self._updates.state(),
        )


def same_corpus(text: Text, settings: Settings, checkpoint: Checkpoint) -> Corpus:
    """`text`, cut and split as it was when `checkpoint` was trained on it."""
    if fingerprint(text, settings) != checkpoint.text_sha256:
        raise InputError(
            f"data: {title(settings.data)} is not the text that the checkpoint was trained on"
        )
    known = checkpoint.vocabulary
    if known.level == "character" and UNKNOWN not in known:
        # Of a run from before rare characters could be unknown, whatever was asked for.
        settings = settings.updated({"min_count": 1})
    corpus = encode_corpus(text, settings, known.tokenizer)
    if corpus.vocabulary != checkpoint.vocabulary:
        raise InputError(
            f"vocabulary: the text has {len(corpus.vocabulary)} tokens that differ from the "
            f"checkpoint's {len(checkpoint.vocabulary)}"
        )
    return corpus


def seed_epoch(seed: int, epoch: int, worker: int = 0) -> np.random.Generator:
    """Seed MXNet for one epoch of a worker and return NumPy's generator, the same for all workers.

    With a seed of its own for each epoch, a resumed run draws what an uninterrupted one draws.
    """
    sequence = np.random.SeedSequence([seed, epoch])
    mx.random.seed(int(sequence.generate_state(worker + 1)[worker]) >> 1)
    return np.random.default_rng(sequence)


def _check_finite(loss: float, when: str) -> None:
    if not math.isfinite(loss):
        raise InputError(
            f"the loss is {loss} {when}: training diverged; try a lower --rate or --clip"
        )


def _read(losses: List[Any], targets: int) -> Tuple[float, int]:
    """The loss summed over the devices, for which it waits."""
    return sum(float(loss.asscalar()) for loss in losses), targets


def _mean(losses: Sequence[float], tokens: Sequence[float]) -> float:
    return sum(losses) / sum(tokens) if tokens else math.nan
