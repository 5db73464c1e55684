"""Training: one network, its optimizer and its data, on one device or several."""

from __future__ import annotations

import math
import time
from collections import deque
from contextlib import nullcontext
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
from fastrnn.lm.errors import InputError
from fastrnn.lm.evaluation import evaluate
from fastrnn.lm.models import build_model, parameter_values, parameters_of, set_parameter_values
from fastrnn.lm.tokenizers import UNKNOWN
from fastrnn.lm.training.checkpoint import Checkpoint, Progress
from fastrnn.lm.training.steps import differentiate, global_norm
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()

# Losses are read this many batches after they were asked for, so that the device always has work.
_BATCHES_AHEAD = 2
# The losses of these batches of an epoch are logged on their own, as the tutorial shows them.
_LOGGED = ((0, 64), (64, 128))

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

    Attributes
    ----------
    text : Text
    corpus : Corpus
    model : UnrolledRNN or LanguageModel
    progress : Progress

    Raises
    ------
    InputError
        For a text that is too short, or another one than the checkpoint's.
    """

    def __init__(
        self,
        settings: Settings,
        text: Union[str, Text],
        contexts: Sequence[Any],
        checkpoint: Optional[Checkpoint] = None,
    ) -> None:
        self.settings = settings
        self.contexts = list(contexts)
        self.text = text = Text.of(text)
        self.text_sha256 = fingerprint(text, settings)
        if checkpoint:
            self.corpus = same_corpus(text, settings, checkpoint)
        else:
            self.corpus = encode_corpus(text, settings)
        self._check_lengths()
        # Plain SGD leaves rows without a gradient as they are; Adam does not.
        sparse = settings.optimizer == "sgd" and self.contexts[0].device_type == "cpu"
        self.model = build_model(settings, len(self.corpus.vocabulary), sparse)
        seed_epoch(settings.seed, 0)
        initializer = mx.init.Uniform(settings.init) if settings.init else mx.init.Xavier()
        self.model.initialize(initializer, ctx=self.contexts)
        self.model.hybridize()
        self._parameters = parameters_of(self.model)
        self._trainer = self._make_trainer()
        # What encloses each part of a step; `profile` has a clock instead.
        self.part: Callable[[str], ContextManager[Any]] = nullcontext
        self.progress = Progress()
        if checkpoint:
            self._restore(checkpoint)

    def _check_lengths(self) -> None:
        settings = self.settings
        if settings.batch < len(self.contexts):
            raise InputError(
                f"batch: got {settings.batch}, too few rows for {len(self.contexts)} devices"
            )
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

    def _make_trainer(self) -> Any:
        # Gradients are clipped between their sum over the devices and the update, so the store
        # that sums them must not update.
        return mx.gluon.Trainer(
            list(self._parameters.values()),
            self.settings.optimizer,
            {"learning_rate": self.settings.rate},
            kvstore="device" if self.contexts[0].device_type == "gpu" else "local",
            update_on_kvstore=False,
        )

    def run_epoch(self, report: Optional[Report] = None) -> Dict[str, float]:
        """One pass over the training part, then the loss on the validation part.

        Parameters
        ----------
        report : callable, optional
            Called after each batch with the number of finished batches, of all batches, the mean
            loss of the latest batch, and the tokens trained on per second.

        Returns
        -------
        dict
            The row of the log: `epoch`, `loss`, `loss_1_64`, `loss_65_128` (means over all, the
            first 64 and the next 64 batches), `validation` (nats per token, or nan without a
            validation part), `rate`, `tokens_per_second`, `seconds`.
        """
        started = time.perf_counter()
        epoch = self.progress.epoch + 1
        generator = seed_epoch(self.settings.seed, epoch)
        self._trainer.set_learning_rate(self.rate(epoch))
        count, batches = self._batches(generator)
        losses: List[float] = []
        tokens: List[int] = []
        for loss, targets in self._train_on(batches):
            losses.append(loss)
            tokens.append(targets)
            _check_finite(loss, f"in batch {len(losses)}")
            if report:
                speed = sum(tokens) / (time.perf_counter() - started)
                report(len(losses), count, loss / targets, speed)
        mx.nd.waitall()
        trained = time.perf_counter() - started
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
        self.progress = Progress(now.updates + len(losses), [*now.rows, row])
        return row

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or too many went by without a better loss."""
        waited = self.progress.epoch - self.progress.best_epoch
        patience = self.settings.patience
        return self.progress.epoch >= self.settings.epochs or (0 < patience <= waited)

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 1."""
        return self.settings.rate * self.settings.decay ** max(0, epoch - self.settings.decay_after)

    def _batches(self, generator: np.random.Generator) -> Tuple[int, Iterator[Batch]]:
        """How many batches an epoch has, and these."""
        settings = self.settings
        if settings.model == "language":
            streams = arrange(self.corpus.train, settings.batch)
            count = math.ceil(len(streams[0]) / settings.steps)
            return count, bptt_batches(*streams, settings.steps)
        windows, targets = sliding_windows(self.corpus.train, settings.window, settings.stride)
        # Windows that do not fill a batch are left out of this epoch, other ones of the next.
        full = len(windows) // settings.batch * settings.batch
        order = np.arange(len(windows), dtype=np.min_scalar_type(len(windows)))
        generator.shuffle(order)
        rows = order[:full].reshape(-1, settings.batch)
        return len(rows), ((windows[part], targets[part]) for part in rows)

    def _train_on(self, batches: Iterator[Batch]) -> Iterator[Tuple[float, int]]:
        """Train on `batches`; yields the summed loss of each and its number of targets."""
        states = self._begin_states(self.settings.batch)
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
        rows = targets.shape[-1]
        with self.part("data"):
            parts = list(zip(self._divide(inputs), self._divide(targets), states))
        results = [differentiate(self.model, x, y, state, self.part) for x, y, state in parts]
        with self.part("clipping"):
            self._trainer.allreduce_grads()
            divisor = self._clip(rows) if self.settings.clip else rows
        with self.part("update"):
            self._trainer.update(divisor)
        return [loss for loss, _ in results], [state for _, state in results]

    def _clip(self, rows: float) -> float:
        """Limit the gradients' global norm; returns what the update shall divide them by."""
        gradients = [[p.grad(c) for p in self._parameters.values()] for c in self.contexts]
        if self.contexts[0].device_type == "cpu":
            # The update divides anyway, so gradients need no pass of their own. The divisor is a
            # number of the host: MXNet scales row-sparse arrays by an array only in a dense pass.
            norm = float(global_norm(gradients[0]).asscalar())
            return max(norm / self.settings.clip, rows)
        for of_device in gradients:
            mx.gluon.utils.clip_global_norm(
                of_device, self.settings.clip * rows, check_isfinite=False
            )
        return rows

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
        return evaluate(self.model, self.corpus.validation, self.settings, self.contexts[0])

    def checkpoint(self) -> Checkpoint:
        """The state of the training, copied to the host."""
        # Not Trainer.save_states: it writes a pickle, and loading a pickle runs the code in it.
        # Resuming a checkpoint from an unknown source must be safe.
        states = self._trainer._updaters[0].states
        optimizer = {}
        for index, name in enumerate(self._parameters):
            arrays = states.get(index)  # None for plain SGD
            if arrays is not None:
                optimizer[name] = [array.asnumpy() for array in arrays]
        return Checkpoint(
            settings=self.settings,
            vocabulary=self.corpus.vocabulary,
            text_sha256=self.text_sha256,
            progress=self.progress,
            parameters=parameter_values(self.model),
            optimizer=optimizer,
        )

    def _restore(self, checkpoint: Checkpoint) -> None:
        set_parameter_values(self.model, checkpoint.parameters)
        self.progress = checkpoint.progress
        if not checkpoint.progress.updates:
            return
        optimizer = self._trainer.optimizer
        # The count of updates enters Adam's arithmetic.
        optimizer.begin_num_update = optimizer.num_update = checkpoint.progress.updates
        for updater, context in zip(self._trainer._updaters, self.contexts):
            for index, (name, parameter) in enumerate(self._parameters.items()):
                state = optimizer.create_state_multi_precision(index, parameter.data(context))
                arrays, values = state or (), checkpoint.optimizer.get(name, [])
                got, wanted = ([a.shape for a in kept] for kept in (values, arrays))
                if got != wanted:
                    raise InputError(
                        f"optimizer: the checkpoint's state for {name} has the shapes {got}, "
                        f"wanted {wanted}"
                    )
                for array, value in zip(arrays, values):
                    array[:] = mx.nd.array(value, ctx=context, dtype=value.dtype)
                updater.states[index] = state
                updater.states_synced[index] = True


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


def seed_epoch(seed: int, epoch: int) -> np.random.Generator:
    """Seed MXNet for one epoch and return NumPy's generator for it.

    With a seed of its own for each epoch, a resumed run draws what an uninterrupted one draws.
    """
    sequence = np.random.SeedSequence([seed, epoch])
    mx.random.seed(int(sequence.generate_state(1)[0]) >> 1)
    return np.random.default_rng(sequence)


def _check_finite(loss: float, when: str) -> None:
    if not math.isfinite(loss):
        raise InputError(
            f"the loss is {loss} {when}: training diverged; try a lower --rate or --clip"
        )


def _read(losses: List[Any], targets: int) -> Tuple[float, int]:
    """The loss summed over the devices, for which it waits."""
    return sum(float(loss.asscalar()) for loss in losses), targets


def _mean(losses: Sequence[float], tokens: Sequence[int]) -> float:
    return sum(losses) / sum(tokens) if tokens else math.nan
