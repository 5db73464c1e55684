"""Writing text with a trained model, and suggesting how one goes on."""

from __future__ import annotations

from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np

from fastrnn.lm.config import Settings
from fastrnn.lm.errors import InputError
from fastrnn.lm.generation.sampling import check_options, choose, until
from fastrnn.lm.models import build_model, set_parameter_values
from fastrnn.lm.runs import open_checkpoint
from fastrnn.lm.tokenizers import END_OF_LINE, JOINERS, UNKNOWN, in_word, normalize
from fastrnn.lm.tokenizers.vocabulary import Vocabulary
from fastrnn.lm.training.checkpoint import Checkpoint
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()

_WIDEST_BEAM = 32
_LONGEST_WORD = 24  # characters that are added to a word being typed
_MOST_TEXTS = 10_000  # in one batch
# A longer prompt takes more time but no more memory.
_TOKENS_AT_ONCE = 1000


class Suggestion(NamedTuple):
    """A continuation and its probability."""

    text: str
    probability: float


class Suggestions(NamedTuple):
    """What may come next.

    Attributes
    ----------
    next : list of Suggestion
        The most likely next tokens, characters or words.
    completions : list of Suggestion
        Words that the one being typed may become; empty where no word is being typed.
    """

    next: List[Suggestion]
    completions: List[Suggestion]


class Writer:
    """A trained model that writes text, one token at a time with the state carried along.

    Parameters
    ----------
    model : UnrolledRNN or LanguageModel
    vocabulary : Vocabulary
    settings : Settings
    context : mxnet.Context
    """

    def __init__(
        self, model: Any, vocabulary: Vocabulary, settings: Settings, context: Any
    ) -> None:
        self.model = model
        self.vocabulary = vocabulary
        self.settings = settings
        self.context = context

    @staticmethod
    def from_checkpoint(
        checkpoint: Union[Checkpoint, str, Path], context: Optional[Any] = None
    ) -> Writer:
        """The model of a checkpoint, or of a run's folder or file, by default on the CPU."""
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = open_checkpoint(Path(checkpoint))
        context = context or mx.cpu()
        # In float32, which every device computes; parameters in float16 keep their values.
        settings = checkpoint.settings.updated({"dtype": "float32"})
        model = build_model(settings, len(checkpoint.vocabulary))
        model.initialize(ctx=context)
        set_parameter_values(model, checkpoint.parameters)
        return Writer(model, checkpoint.vocabulary, checkpoint.settings, context)

    def read(self, numbers: np.ndarray, state: Any = None) -> Tuple[np.ndarray, Any]:
        """Read at least one token.

        Parameters
        ----------
        numbers : ndarray, shape (tokens,)
        state : optional
            Of the text before, from an earlier call; none at the start of a text.

        Returns
        -------
        log_probabilities : ndarray, shape (vocabulary,), float64
            Of the next token.
        state
            To go on with.
        """
        if self.settings.model == "unrolled":
            width = self.settings.window
            before = np.full(width, self.vocabulary.start) if state is None else state
            state = np.concatenate([before, numbers])[-width:].astype(np.int32)
            logits = self.model(mx.nd.array(state[None], self.context, dtype="int32"))
        else:
            for begin in range(0, len(numbers), _TOKENS_AT_ONCE):
                logits, state = self._run(numbers[begin : begin + _TOKENS_AT_ONCE, None], state)
                logits = logits[-1]
                logits.wait_to_read()  # else all pieces could be under way at once
        return _log_softmax(logits.asnumpy().reshape(-1)), state

    def read_all(self, numbers: np.ndarray, state: Any = None) -> Tuple[np.ndarray, Any]:
        """Read tokens as :meth:`read` does, with the log-probabilities after each of them.

        Returns
        -------
        log_probabilities : ndarray, shape (tokens, vocabulary), float64
        state
        """
        if self.settings.model == "unrolled":
            width = self.settings.window
            before = np.full(width, self.vocabulary.start) if state is None else state
            text = np.concatenate([before, numbers]).astype(np.int32)
            windows = np.stack([text[n + 1 : n + 1 + width] for n in range(len(numbers))])
            logits = self.model(mx.nd.array(windows, self.context, dtype="int32"))
            state = windows[-1]
        else:
            logits, state = self._run(numbers[:, None], state)
        return _log_softmax(_as_numpy(logits).reshape(len(numbers), -1)), state

    def step(self, numbers: np.ndarray, states: Sequence[Any]) -> Tuple[np.ndarray, List[Any]]:
        """Read one token more in each of several texts, all in one batch.

        Parameters
        ----------
        numbers : ndarray, shape (texts,)
        states : sequence
            One for each text, from earlier calls.

        Returns
        -------
        log_probabilities : ndarray, shape (texts, vocabulary), float64
        states : list
        """
        if self.settings.model == "unrolled":
            windows = np.concatenate([np.stack(states)[:, 1:], numbers[:, None]], axis=1)
            logits = self.model(mx.nd.array(windows, self.context, dtype="int32"))
            after: List[Any] = list(windows.astype(np.int32))
        else:
            rows = zip(*([_as_numpy(part) for part in state] for state in states))
            logits, joined = self._run(numbers[None], [np.concatenate(r, axis=1) for r in rows])
            arrays = [_as_numpy(part) for part in joined]
            after = [[part[:, n : n + 1].copy() for part in arrays] for n in range(len(numbers))]
        return _log_softmax(_as_numpy(logits).reshape(len(numbers), -1)), after

    def _run(self, numbers: np.ndarray, state: Any) -> Tuple[Any, Any]:
        """Run the recurrent model over `numbers`, shape (T, N); logits are (T, N, vocabulary)."""
        if state is None:
            state = self.model.begin_state(numbers.shape[1], ctx=self.context)
        elif isinstance(state[0], np.ndarray):
            state = [mx.nd.array(part, self.context) for part in state]
        return self.model(mx.nd.array(numbers, self.context, dtype="int32"), state)

    def generate(
        self,
        prompt: str = "",
        length: int = 400,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: Optional[int] = None,
        stop: Optional[str] = None,
    ) -> Iterator[str]:
        """Continue `prompt`, token by token.

        Parameters
        ----------
        prompt : str
            Any text of known characters, normalized as texts are. The empty one means the start of
            a line.
        length : int
            Tokens to write.
        temperature : float
            0 always takes the likeliest token, 1 draws as the model has learned, less is tamer.
        top_k : int
            Draw among so many of the likeliest tokens; 0 for all.
        top_p : float
            Draw among the likeliest tokens that together have this probability.
        seed : int, optional
            The same seed gives the same text; another text each time without one.
        stop : str, optional
            The text ends before this string, which is not written. It is looked for in what is
            written, not in the prompt.

        Yields
        ------
        str
            The text of one token, with the space before it where words need one. With `stop`, what
            may be the beginning of it waits for the tokens after it.

        Raises
        ------
        InputError
            For an option out of range or a character the model does not know.
        """
        check_options(length, temperature, top_k, top_p, seed, stop)
        generator = np.random.default_rng(seed)

        def draw(log_probabilities: np.ndarray) -> int:
            return choose(log_probabilities, generator, temperature, top_k, top_p)

        pieces = self._pieces(self._prompt(prompt), length, draw)
        if self._has_space(prompt):
            pieces = (piece if n else piece.lstrip(" ") for n, piece in enumerate(pieces))
        return pieces if stop is None else until(pieces, stop)

    def generate_batch(
        self,
        prompt: str = "",
        count: int = 1,
        length: int = 400,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: Optional[int] = None,
        stop: Optional[str] = None,
    ) -> List[str]:
        """Continue `prompt` in `count` ways at once, which takes less time than one after another.

        The other arguments are those of :meth:`generate`. The same seed and count give the same
        texts, and a count of 1 the text that :meth:`generate` gives.
        """
        check_options(length, temperature, top_k, top_p, seed, stop)
        if not 1 <= count <= _MOST_TEXTS:
            raise InputError(f"count: got {count}, wanted 1 to {_MOST_TEXTS:,}")
        generators = [
            np.random.default_rng([seed, row] if seed is not None and row else seed)
            for row in range(count)
        ]
        numbers = self._prompt(prompt)
        scores, state = self.read(numbers)
        rows, states = np.repeat(scores[None], count, axis=0), [state] * count
        before, texts = np.repeat(numbers[-1:], count), [""] * count
        for step in range(length):
            if step:
                rows, states = self.step(before, states)
            chosen = np.zeros(count, np.int32)
            for row, generator in enumerate(generators):
                known = self._known(rows[row])
                chosen[row] = choose(known, generator, temperature, top_k, top_p)
                piece = self._piece(int(before[row]), int(chosen[row]))
                texts[row] += piece.lstrip(" ") if not step and self._has_space(prompt) else piece
            before = chosen
            if stop is not None and all(stop in text for text in texts):
                break
        return texts if stop is None else [text.split(stop, 1)[0] for text in texts]

    def _has_space(self, prompt: str) -> bool:
        """Whether the space before the first word is the prompt's last."""
        return self.vocabulary.level != "character" and prompt[-1:].isspace()

    def _pieces(
        self, numbers: np.ndarray, length: int, draw: Callable[[np.ndarray], int]
    ) -> Iterator[str]:
        state = None
        for _ in range(length):
            log_probabilities, state = self.read(numbers, state)
            chosen = draw(self._known(log_probabilities))
            yield self._piece(int(numbers[-1]), chosen)
            numbers = np.array([chosen], np.int32)

    def _piece(self, before: int, chosen: int) -> str:
        pair = self.vocabulary.decode([before, chosen])
        return pair[len(self.vocabulary.decode([before])) :]

    def _prompt(self, prompt: str) -> np.ndarray:
        numbers = self.vocabulary.encode(prompt)
        return numbers if len(numbers) else np.array([self.vocabulary.start], np.int32)

    def _known(self, log_probabilities: np.ndarray) -> np.ndarray:
        # The marker of unknown words is never written.
        if UNKNOWN in self.vocabulary:
            log_probabilities = log_probabilities.copy()
            log_probabilities[self.vocabulary.number(UNKNOWN)] = -np.inf
        return log_probabilities

    def suggest(self, prefix: str, k: int = 5) -> Suggestions:
        """The `k` likeliest next tokens, and completions of the word being typed.

        The probability of a completion is that of the whole word, given that a word which begins
        so is being typed. At character level, words are spelled with a beam of `k` beginnings, at
        most 32.
        """
        if k < 1:
            raise InputError(f"k: got {k}, wanted at least 1")
        prefix = normalize(prefix)
        log_probabilities, state = self.read(self._prompt(prefix))
        begun = self.vocabulary.tokenizer.begun(prefix)
        tokens = self._likeliest(log_probabilities, k)
        if not begun:
            return Suggestions(tokens, [])
        if self.vocabulary.level == "character":
            return Suggestions(tokens, self._spell(begun, log_probabilities, state, k))
        return Suggestions(tokens, self._complete(prefix, begun, k))

    def _likeliest(self, log_probabilities: np.ndarray, k: int) -> List[Suggestion]:
        known = self._known(log_probabilities)
        return [
            Suggestion(self.vocabulary.tokens[i], float(np.exp(known[i])))
            for i in np.argsort(-known, kind="stable")[:k]
            if known[i] > -np.inf
        ]

    def _complete(self, prefix: str, begun: str, k: int) -> List[Suggestion]:
        """Whole words that begin with `begun`, by what stands before it."""
        scores, _ = self.read(self._prompt(prefix[: len(prefix) - len(begun)]))
        fits = [
            i
            for i, token in enumerate(self.vocabulary.tokens)
            if token.startswith(begun) and token not in (UNKNOWN, END_OF_LINE)
        ]
        probabilities = np.exp(scores[fits])
        total = probabilities.sum()
        best = np.argsort(-probabilities, kind="stable")[:k]
        return [
            Suggestion(self.vocabulary.tokens[fits[i]], float(probabilities[i] / total))
            for i in best
        ]

    def _spell(
        self, begun: str, log_probabilities: np.ndarray, state: Any, k: int
    ) -> List[Suggestion]:
        """Spell words to their end, keeping the `k` likeliest beginnings at each length.

        Where nothing is begun, these are the next words.
        """
        tokens = self.vocabulary.tokens
        inside = np.flatnonzero([t != UNKNOWN and (in_word(t) or t in JOINERS) for t in tokens])
        outside = np.setdiff1d(np.arange(len(tokens)), inside)
        width = min(k, _WIDEST_BEAM)
        scores, beam = np.zeros(1), [begun]
        rows, states = log_probabilities[None], [state]
        words: Dict[str, float] = {}
        for _ in range(_LONGEST_WORD):
            ends = scores + np.logaddexp.reduce(rows[:, outside], axis=1, initial=-np.inf)
            words.update((w, float(e)) for w, e in zip(beam, ends) if w and w[-1] not in JOINERS)
            kth = sorted(words.values(), reverse=True)[:k][-1] if len(words) >= k else -np.inf
            longer = (scores[:, None] + rows[:, inside]).reshape(-1)
            best = np.argsort(-longer, kind="stable")[:width]
            best = best[longer[best] > kth]
            if not len(best):
                break
            parents, chosen = best // len(inside), inside[best % len(inside)]
            beam = [beam[p] + tokens[i] for p, i in zip(parents, chosen)]
            scores = longer[best]
            rows, states = self.step(chosen.astype(np.int32), [states[p] for p in parents])
        likeliest = sorted(words.items(), key=lambda item: -item[1])[:k]
        return [Suggestion(word, float(np.exp(score))) for word, score in likeliest]


def _as_numpy(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.asnumpy()


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    values = logits.astype(np.float64)
    values -= values.max(axis=-1, keepdims=True)
    return values - np.log(np.exp(values).sum(axis=-1, keepdims=True))
