"""What a text under edit means for a model: suggestions, probabilities of keys, surprise."""

from __future__ import annotations

import math
from pathlib import Path
from typing import (
    Any,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    TypedDict,
)

import numpy as np

from fastrnn.lm.generation import Suggestion, Writer
from fastrnn.lm.keyboard.states import (
    PIECE,
    Deadline,
    Hashes,
    KeepingWriter,
    Kept,
    Prefix,
    piece_end,
)
from fastrnn.lm.tokenizers import END_OF_LINE, UNKNOWN, in_word, normalize

_MARKERS = (UNKNOWN, END_OF_LINE)
# Keys that are less likely have no colour.
_FAINTEST = 1e-5
# Between two looks at whether a text that is being read for `write` is still wanted.
_AT_ONCE = 0.05


class Proposal(TypedDict):
    """One suggestion: the word, what taking it inserts at the cursor, and its probability."""

    text: str
    insert: str
    probability: float


class Piece(TypedDict, total=False):
    """One token with the spaces before it.

    It has `bits`, its surprise, or else `unknown` or `typing`, which are true.
    """

    text: str
    bits: float
    unknown: bool
    typing: bool


class Answer(TypedDict):
    """What :meth:`Engine.answer` returns.

    Attributes
    ----------
    start : int
        Where `tokens` begin, in characters.
    tokens : list of Piece
        As far as the text has been read.
    complete : bool
        Whether that is all of it; if not, another call goes on.
    ready : bool
        Whether the text before the cursor has been read: else there is nothing in the rest.
    suggestions : list of Proposal
    keys : dict of str to float
        The probability of each character as the next one typed; those below 0.00001 are left out.
    """

    start: int
    tokens: List[Piece]
    complete: bool
    ready: bool
    suggestions: List[Proposal]
    keys: Dict[str, float]


class _Cut(NamedTuple):
    """A text cut into tokens: where each ends, its number, -1 for those a model passes over."""

    ends: np.ndarray
    numbers: np.ndarray
    known: np.ndarray


class Engine(KeepingWriter):
    """A model, and the states of the texts that it has read lately.

    Parameters
    ----------
    writer : Writer
    kept : Kept
        May be shared with other engines of the same thread.
    name : str
        Of the run; no other engine with the same `kept` may have it.
    """

    def __init__(self, writer: Writer, kept: Kept, name: str) -> None:
        super().__init__(writer, kept, name)
        self.name = name
        self._firsts: Dict[str, Tuple[List[str], np.ndarray]] = {}
        self._words = np.flatnonzero(
            [token not in _MARKERS and any(map(in_word, token)) for token in self.vocabulary.tokens]
        )

    @staticmethod
    def load(run: Path, kept: Kept, name: str, context: Any) -> Engine:
        """The engine of a run's folder, or of a checkpoint."""
        return Engine(Writer.from_checkpoint(run, context), kept, name)

    def answer(
        self, before: str, after: str = "", start: int = 0, k: int = 3, seconds: float = math.inf
    ) -> Answer:
        """What the model makes of a text with a cursor in it.

        Parameters
        ----------
        before, after : str
            The text on both sides of the cursor, with any characters.
        start : int
            The tokens that end up to this character are not wanted. What a model of words makes of
            them may change with what comes after, but not across a space.
        k : int
            Suggestions to make; 0 for none, and no probabilities of keys.
        seconds : float
            Stop reading after this time, and a little after the cursor if there are suggestions to
            make. The answer then says that it is not complete; what has been read is kept for the
            next call.
        """
        text = normalize(before + after)
        before = normalize(before)
        cut = self._cut(text)
        deadline = Deadline(seconds)
        first = int(np.searchsorted(cut.ends, start, side="right"))
        cursor = int(np.searchsorted(cut.ends, len(before), side="right"))
        hashes = self.hashes(cut.numbers[cut.numbers >= 0])
        bits = self._surprise(hashes, cut, first, max(first, cursor), deadline)
        answer: Answer = {
            "start": int(cut.ends[first - 1]) if first else 0,
            "tokens": [],
            "complete": False,
            "ready": False,
            "suggestions": [],
            "keys": {},
        }
        if k and len(bits) == max(first, cursor) - first:
            self._propose(before, k, deadline, answer)
        if len(bits) == max(first, cursor) - first:
            last = len(cut.ends)
            if k and seconds < math.inf:  # suggestions do not wait for a long rest
                last = min(last, max(first, cursor) + PIECE)
            bits += self._surprise(hashes, cut, first + len(bits), last, deadline)
        answer["complete"] = first + len(bits) == len(cut.ends) and (answer["ready"] or not k)
        typing = len(cut.ends) - 1 if self._typing(text, before) else -1
        answer["tokens"] = self._pieces_of(text, cut, first, bits, typing)
        return answer

    def write(
        self, before: str, length: int, temperature: float, seed: Optional[int] = None
    ) -> Iterator[str]:
        """Go on from a text, token by token; nothing comes out while the text is being read."""
        known = self._readable(normalize(before))
        hashes = self.hashes(self._prompt(known))
        pieces = self.generate(known, length, temperature, seed=seed)
        while self.reach(hashes, len(hashes.numbers), Deadline(_AT_ONCE)) is None:
            yield ""
        yield from pieces

    # Tokens and their surprise.

    def _cut(self, text: str) -> _Cut:
        tokens = self.vocabulary.tokenizer.tokenize(text)
        if self.vocabulary.level == "character":
            ends = np.arange(1, len(text) + 1)
        else:
            ends = np.array(list(_ends(text, tokens)), int)
        strange = {t for t in set(tokens) if t == UNKNOWN or t not in self.vocabulary}
        known = np.ones(len(ends), bool)
        if strange:
            known[:] = [token not in strange for token in tokens]
        numbers = np.full(len(ends), self._passed_over, np.int32)
        some: Sequence[str] = [t for t, k in zip(tokens, known) if k] if strange else tokens
        numbers[known] = self.vocabulary.numbers(some)
        return _Cut(ends, numbers, known)

    @property
    def _passed_over(self) -> int:
        """What an unknown token is read as; -1 for nothing."""
        return self.vocabulary.number(UNKNOWN) if UNKNOWN in self.vocabulary else -1

    def _readable(self, text: str) -> str:
        """`text` without what the vocabulary has no number for."""
        if self.vocabulary.level != "character" or UNKNOWN in self.vocabulary:
            return text
        strange = {character for character in set(text) if character not in self.vocabulary}
        return "".join(c for c in text if c not in strange) if strange else text

    def _propose(self, before: str, k: int, deadline: Deadline, answer: Answer) -> None:
        """Add suggestions and keys to `answer`, if the text before the cursor has been read."""
        begun = self.vocabulary.tokenizer.begun(before)
        characters = self.vocabulary.level == "character"
        stands = before if characters else before[: len(before) - len(begun)]
        numbers = self._prompt(self._readable(stands))
        hashes = self.hashes(numbers)
        prefix = self.reach(hashes, len(numbers), deadline)
        if prefix is None:
            return
        answer["ready"] = True
        if characters:
            answer["suggestions"] = self._spelled(before, begun, prefix, k)
            likely = np.exp(self._known(prefix.log_probabilities))
            answer["keys"] = _shown(dict(zip(self.vocabulary.tokens, likely)))
            return
        if begun:
            answer["suggestions"] = [
                self._proposal(word, word.text[len(begun) :])
                for word in self._complete(before, begun, k)
            ]
            answer["keys"] = _shown(self._keys_within(before, begun, prefix))
        else:
            answer["suggestions"] = self._next_words(before, int(numbers[-1]), prefix, k)
            answer["keys"] = _shown(self._keys_after(before, int(numbers[-1]), prefix))

    # Models of characters.

    def _spelled(self, before: str, begun: str, prefix: Prefix, k: int) -> List[Proposal]:
        """The word being typed completed, or the next one, after a space where one is due."""
        lead, likely = "", prefix.log_probabilities
        due = not begun and before and not before[-1].isspace() and " " in self.vocabulary
        if due and likely[self.vocabulary.number(" ")] >= likely.max():
            lead, space = " ", np.array([self.vocabulary.number(" ")], np.int32)
            _, (prefix,) = self.step(space, [prefix])
        words = self._spell(begun, prefix.log_probabilities, prefix, k)
        return [self._proposal(word, lead + word.text[len(begun) :]) for word in words]

    # Models of words.

    def _next_words(self, before: str, last: int, prefix: Prefix, k: int) -> List[Proposal]:
        likely = prefix.log_probabilities[self._words]
        best = self._words[np.argsort(-likely, kind="stable")[:k]]
        apart = not before or before[-1].isspace()
        proposals = []
        for number in best:
            probability = float(np.exp(prefix.log_probabilities[number]))
            word = Suggestion(self.vocabulary.tokens[number], probability)
            piece = word.text if apart else self._piece(last, int(number))
            proposals.append(self._proposal(word, piece))
        return proposals

    def _keys_within(self, before: str, begun: str, prefix: Prefix) -> Dict[str, float]:
        """How all words that begin so go on, and what comes after the one that is whole."""
        weights: Dict[str, float] = {}
        whole = 0.0
        for number, token in enumerate(self.vocabulary.tokens):
            if token.startswith(begun) and token not in _MARKERS:
                weight = float(np.exp(prefix.log_probabilities[number]))
                if token == begun:
                    whole = weight
                else:
                    following = token[len(begun)]
                    weights[following] = weights.get(following, 0.0) + weight
        total = sum(weights.values()) + whole
        if whole:
            _, after = self.read(self._prompt(before))
            ends = self._keys_after(before, self.vocabulary.number(begun), after)
            for key, probability in ends.items():
                weights[key] = weights.get(key, 0.0) + whole * probability
        return {key: weight / total for key, weight in weights.items()} if total else {}

    def _keys_after(self, before: str, last: int, prefix: Prefix) -> Dict[str, float]:
        """How the next token begins: with a space, or with its own first character."""
        likely = np.exp(self._known(prefix.log_probabilities))
        apart = not before or before[-1].isspace()
        characters, places = self._first_characters(None if apart else last)
        sums = np.bincount(places, weights=likely, minlength=len(characters))
        return dict(zip(characters, sums / sums.sum()))

    def _first_characters(self, last: Optional[int]) -> Tuple[List[str], np.ndarray]:
        """The first characters of all tokens after the token `last`, and which of them each has.

        They depend on `last` only in whether a word is set apart from it.
        """
        case = "apart" if last is None else self._joined(last, "a")[:1]
        if case not in self._firsts:
            tokens = range(len(self.vocabulary))
            texts = (
                self.vocabulary.tokens if last is None else [self._piece(last, t) for t in tokens]
            )
            firsts = ["\n" if t.startswith(END_OF_LINE) else t[:1] for t in texts]
            characters = sorted(set(firsts))
            number = {character: n for n, character in enumerate(characters)}
            self._firsts[case] = characters, np.array([number[c] for c in firsts])
        return self._firsts[case]

    def _joined(self, last: int, word: str) -> str:
        """`word` as it stands after the token `last`, which the vocabulary need not have."""
        token, detokenize = self.vocabulary.tokens[last], self.vocabulary.tokenizer.detokenize
        return detokenize([token, word])[len(detokenize([token])) :]

    def _proposal(self, word: Suggestion, insert: str) -> Proposal:
        spaced = self.vocabulary.level == "character" or self._spaced(word.text)
        return {
            "text": word.text,
            "insert": insert + (" " if spaced else ""),
            "probability": round(word.probability, 5),
        }

    def _spaced(self, word: str) -> bool:
        """Whether a space comes after a word: not in Chinese, for example."""
        number = self.vocabulary.number(word)
        return " " in self.vocabulary.decode([number, number])

    def _typing(self, text: str, before: str) -> bool:
        """Whether the text ends with a word that is being typed, and may become another."""
        words = self.vocabulary.level != "character"
        return words and text == before and bool(self.vocabulary.tokenizer.begun(text))

    def _surprise(
        self, hashes: Hashes, cut: _Cut, first: int, last: int, deadline: Deadline
    ) -> List[float]:
        """Bits of tokens from `first` to before `last`, or to where the time was over.

        The bits of an unknown token are nan.
        """
        read = np.concatenate([[0], np.cumsum(cut.numbers >= 0)])
        place, end = int(read[first]), int(read[last])
        bits: List[float] = []
        prefix = self.reach(hashes, place, deadline) if place < end else None
        while prefix is not None and place < end and not deadline.passed():
            stop = piece_end(place, end)
            numbers = hashes.numbers[place:stop]
            rows = [prefix.log_probabilities]
            if len(numbers) == 1:  # it may be kept, from a suggestion
                _, (prefix,) = self.step(numbers, [prefix])
            else:
                prefix, after = self.read_piece(hashes, place, stop, prefix)
                rows.extend(after[:-1])
            bits += [float(row[n]) / -math.log(2) for row, n in zip(rows, numbers)]
            place = stop
        reached = min(last, int(np.searchsorted(read, place, side="right")) - 1)
        found = iter(bits)
        return [
            value if known else math.nan
            for value, known in (
                (next(found) if number >= 0 else math.nan, known)
                for number, known in zip(cut.numbers[first:reached], cut.known[first:reached])
            )
        ]

    @staticmethod
    def _pieces_of(text: str, cut: _Cut, first: int, bits: List[float], typing: int) -> List[Piece]:
        begin = int(cut.ends[first - 1]) if first else 0
        pieces: List[Piece] = []
        for n, value in enumerate(bits, first):
            piece: Piece = {"text": text[begin : cut.ends[n]]}
            if n == typing:
                piece["typing"] = True
            elif math.isnan(value):
                piece["unknown"] = True
            else:
                piece["bits"] = round(value, 3)
            pieces.append(piece)
            begin = int(cut.ends[n])
        return pieces


def _ends(text: str, tokens: Sequence[str]) -> Iterator[int]:
    """Where each token of a text of words ends; between tokens there are only spaces."""
    place = 0
    for token in tokens:
        begin = place
        while not text.startswith(token, begin):
            if token == END_OF_LINE and text[begin] == "\n":
                token = "\n"  # noqa: PLW2901
            elif not text[begin].isspace():
                raise AssertionError(f"{token!r} is not at {begin}")
            else:
                begin += 1
        place = begin + len(token)
        yield place


def _shown(keys: Dict[str, float]) -> Dict[str, float]:
    return {key: round(float(p), 5) for key, p in keys.items() if key and p >= _FAINTEST}
