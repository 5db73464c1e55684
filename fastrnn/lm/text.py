"""Text as arrays: vocabularies, the split of a corpus, BPTT batches and sliding windows.

Nothing here needs MXNet. Token numbers are int32.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Iterable, Iterator, List, NamedTuple, Sequence, Tuple, Union

import numpy as np

from fastrnn.lm.errors import InputError

UNKNOWN = "<unk>"
END_OF_LINE = "<eos>"
LEVELS = ("character", "word", "whitespace")

# A marker such as <unk>, a word with its apostrophes and hyphens, an ending such as 's on its
# own, or one sign of punctuation.
_WORD = re.compile(r"<\w+>|\w+(?:['’-]\w+)*|['’](?:s|t|re|ve|ll|d|m)\b|[^\w\s]")
_NO_SPACE_BEFORE = re.compile(r" (?=[.,;:!?)\]}%]|['’](?:s|t|re|ve|ll|d|m)\b)")
_NO_SPACE_AFTER = re.compile(r"(?<=[(\[{]) ")


class Vocabulary:
    """The tokens a model knows, numbered from 0 without gaps.

    Parameters
    ----------
    tokens : sequence of str
        Every token once; its position is its number.

    Raises
    ------
    InputError
        If `tokens` is empty or holds a token twice.
    """

    level = ""

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = tuple(tokens)
        self._number = {token: number for number, token in enumerate(self.tokens)}
        if not self.tokens:
            raise InputError("vocabulary: got no tokens, wanted at least one")
        if len(self._number) != len(self.tokens):
            twice = next(t for t, count in Counter(self.tokens).items() if count > 1)
            raise InputError(f"vocabulary: the token {twice!r} is there more than once")

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._number

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return self.level == other.level and self.tokens == other.tokens

    def __hash__(self) -> int:
        return hash((self.level, self.tokens))

    def number(self, token: str) -> int:
        """The number of one token the vocabulary has."""
        return self._number[token]

    def split(self, text: str) -> Sequence[str]:
        """Cut `text` into tokens, known or not."""
        raise TypeError("use CharacterVocabulary, WordVocabulary or WhitespaceVocabulary")

    def encode(self, text: str) -> np.ndarray:
        """Numbers of the tokens of `text`, shape (tokens,), int32."""
        return self.numbers(self.split(text))

    def numbers(self, tokens: Sequence[str]) -> np.ndarray:
        """Numbers of `tokens`, shape (len(tokens),), int32; unknown ones as the level says."""
        raise TypeError("use CharacterVocabulary, WordVocabulary or WhitespaceVocabulary")

    def decode(self, numbers: Iterable[int]) -> str:
        """The text that `numbers` stand for."""
        raise TypeError("use CharacterVocabulary, WordVocabulary or WhitespaceVocabulary")

    @property
    def start(self) -> int:
        """The token an empty prompt stands for: the end of a line, or else a space, or token 0."""
        for token in (END_OF_LINE, "\n", " "):
            if token in self._number:
                return self._number[token]
        return 0

    def to_json(self) -> str:
        """The vocabulary as JSON text: its level and its tokens in order."""
        return json.dumps({"level": self.level, "tokens": self.tokens}, ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> Vocabulary:
        """The vocabulary that :meth:`to_json` wrote."""
        try:
            fields = json.loads(text)
            level, tokens = fields["level"], fields["tokens"]
            if not all(isinstance(token, str) for token in tokens):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            raise InputError(
                'vocabulary: wanted JSON with "level" and "tokens", a list of strings'
            ) from None
        return _class_of(level)(tokens)

    def save(self, path: Union[str, Path]) -> None:
        """Write :meth:`to_json` to `path`, whole or not at all."""
        from fastrnn.lm.files import write_atomically

        write_atomically(Path(path), self.to_json().encode("utf-8"))

    @staticmethod
    def load(path: Union[str, Path]) -> Vocabulary:
        """Read a vocabulary that :meth:`save` wrote."""
        try:
            return Vocabulary.from_json(Path(path).read_text(encoding="utf-8"))
        except (InputError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: {error}") from None


class CharacterVocabulary(Vocabulary):
    """Characters. There is no unknown character: encoding one is an error that shows it."""

    level = "character"

    def __init__(self, tokens: Sequence[str]) -> None:
        super().__init__(tokens)
        long = [token for token in self.tokens if len(token) != 1]
        if long:
            raise InputError(f"vocabulary: {long[0]!r} is not one character")
        codes = _code_points("".join(self.tokens))
        self._order = np.argsort(codes)
        self._codes = codes[self._order]

    @classmethod
    def build(cls, text: str) -> CharacterVocabulary:
        """The characters of `text` in the order of their code points."""
        return cls(sorted(set(text)))

    def split(self, text: str) -> Sequence[str]:
        return text

    def numbers(self, tokens: Sequence[str]) -> np.ndarray:
        text = "".join(tokens)
        codes = _code_points(text)
        place = np.searchsorted(self._codes, codes).clip(max=len(self) - 1)
        unknown = np.flatnonzero(self._codes[place] != codes)
        if len(unknown):
            at = int(unknown[0])
            raise InputError(
                f"the character {text[at]!r} (U+{ord(text[at]):04X}) at position {at} "
                f"is not among the {len(self)} characters the model knows"
            )
        return self._order[place].astype(np.int32)

    def decode(self, numbers: Iterable[int]) -> str:
        return "".join(self.tokens[int(number)] for number in numbers)


class WordVocabulary(Vocabulary):
    """Words and punctuation signs, the end of a line, and one token for every unknown word."""

    level = "word"

    def __init__(self, tokens: Sequence[str]) -> None:
        super().__init__(tokens)
        for marker in (UNKNOWN, END_OF_LINE):
            if marker not in self._number:
                raise InputError(f"vocabulary: a word vocabulary needs the token {marker}")

    @classmethod
    def build(cls, tokens: Iterable[str], min_count: int = 1) -> WordVocabulary:
        """The tokens seen at least `min_count` times, the most frequent first.

        The markers for unknown words and the end of a line are always there. Ties are in
        alphabetical order, so that the same text gives the same numbers everywhere.
        """
        counts = Counter(tokens)
        counts[UNKNOWN] += min_count
        counts[END_OF_LINE] += min_count
        kept = [token for token, count in counts.items() if count >= min_count]
        return cls(sorted(kept, key=lambda token: (-counts[token], token)))

    @classmethod
    def cut(cls, line: str) -> List[str]:
        """Cut one line into words and punctuation signs."""
        return _WORD.findall(line)

    @classmethod
    def tokenize(cls, text: str) -> List[str]:
        """Cut `text` into tokens; every line break becomes the end-of-line token."""
        tokens: List[str] = []
        lines = text.split("\n")
        for line in lines[:-1]:
            tokens += cls.cut(line)
            tokens.append(END_OF_LINE)
        return tokens + cls.cut(lines[-1])

    def split(self, text: str) -> Sequence[str]:
        return self.tokenize(text)

    def numbers(self, tokens: Sequence[str]) -> np.ndarray:
        unknown = self._number[UNKNOWN]
        return np.array([self._number.get(token, unknown) for token in tokens], np.int32)

    def decode(self, numbers: Iterable[int]) -> str:
        return self.join(self.tokens[int(number)] for number in numbers)

    @classmethod
    def join(cls, tokens: Iterable[str]) -> str:
        """Text from tokens, with spaces where English has them."""
        text = WhitespaceVocabulary.join(tokens)
        return _NO_SPACE_AFTER.sub("", _NO_SPACE_BEFORE.sub("", text))


class WhitespaceVocabulary(WordVocabulary):
    """What stands between spaces, for corpora that come tokenized, such as the Penn Treebank."""

    level = "whitespace"

    @classmethod
    def cut(cls, line: str) -> List[str]:
        return line.split()

    @classmethod
    def join(cls, tokens: Iterable[str]) -> str:
        lines = " ".join(tokens).split(END_OF_LINE)
        return "\n".join(line.strip() for line in lines)


def _class_of(level: str) -> type:
    classes = {c.level: c for c in (CharacterVocabulary, WordVocabulary, WhitespaceVocabulary)}
    if level not in classes:
        raise InputError(f"level: got {level!r}, wanted one of {', '.join(LEVELS)}")
    return classes[level]


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


class Corpus(NamedTuple):
    """A text as token numbers, split by position; the parts do not overlap."""

    vocabulary: Vocabulary
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split_sizes(length: int, validation: float, test: float) -> Tuple[int, int, int]:
    """How many tokens the three parts get: the rounded shares, the rest for training.

    Parameters
    ----------
    length : int
        Tokens in the text.
    validation, test : float
        Shares of the text, 0 or more, together below 1.
    """
    for name, share in (("validation", validation), ("test", test)):
        if not 0 <= share < 1:
            raise InputError(f"{name}: got {share}, wanted a share of the text from 0 to below 1")
    if validation + test >= 1:
        raise InputError(
            f"validation and test: got {validation} and {test}, which leaves nothing to train on"
        )
    held_out, tested = round(length * validation), round(length * test)
    return length - held_out - tested, held_out, tested


def encode_corpus(
    text: str,
    level: str = "character",
    validation: float = 0.05,
    test: float = 0.0,
    min_count: int = 1,
    vocabulary: Union[Vocabulary, None] = None,
) -> Corpus:
    """Number the tokens of `text` and split them by position: training, validation, test.

    A character vocabulary is built from the whole text (there is no unknown character), a word
    vocabulary from the training part alone, so that the other parts hold unknown words as any new
    text does.

    Parameters
    ----------
    text : str
    level : 'character', 'word' or 'whitespace'
    validation, test : float
        Shares of the text, in tokens.
    min_count : int
        Words seen less often in the training part are unknown. Characters are all kept.
    vocabulary : Vocabulary, optional
        Use this one and build none.

    Raises
    ------
    InputError
        For an empty text, a level or share that makes no sense, or an unknown character.
    """
    cls = _class_of(level) if vocabulary is None else type(vocabulary)
    tokens: Sequence[str] = text if cls is CharacterVocabulary else cls.tokenize(text)
    if not len(tokens):
        raise InputError("the text is empty")
    first, second, _ = split_sizes(len(tokens), validation, test)
    if vocabulary is None and cls is CharacterVocabulary:
        vocabulary = CharacterVocabulary.build(text)
    elif vocabulary is None:
        vocabulary = cls.build(tokens[:first], min_count)
    numbers = vocabulary.numbers(tokens)
    return Corpus(
        vocabulary, numbers[:first], numbers[first : first + second], numbers[first + second :]
    )


def arrange(numbers: np.ndarray, batch: int) -> Tuple[np.ndarray, np.ndarray]:
    """Lay a text out as `batch` parallel streams.

    Column n of both arrays is one contiguous piece of the text, and the target of every token is
    the token after it, so column n + 1 of the inputs begins with the last target of column n.
    Every token but the first is a target exactly once, except the at most ``batch - 1`` at the end
    that would not fill a row.

    Parameters
    ----------
    numbers : ndarray, shape (tokens,)
    batch : int

    Returns
    -------
    inputs, targets : ndarray, shape (steps, batch)

    Raises
    ------
    InputError
        If the text is too short for one row.
    """
    if batch < 1:
        raise InputError(f"batch: got {batch}, wanted at least 1")
    steps = (len(numbers) - 1) // batch
    if steps < 1:
        raise InputError(
            f"the text is too short: {len(numbers)} tokens, "
            f"and a batch of {batch} needs at least {batch + 1}"
        )
    inputs = numbers[: steps * batch].reshape(batch, steps)
    targets = numbers[1 : steps * batch + 1].reshape(batch, steps)
    return np.ascontiguousarray(inputs.T), np.ascontiguousarray(targets.T)


def bptt_batches(
    inputs: np.ndarray, targets: np.ndarray, steps: int
) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
    """Cut (total steps, batch) arrays into pieces of `steps` rows; the last one may be shorter.

    Every row is in exactly one piece, in order: carry the state from each to the next.
    """
    if steps < 1:
        raise InputError(f"steps: got {steps}, wanted at least 1")
    for begin in range(0, len(inputs), steps):
        yield inputs[begin : begin + steps], targets[begin : begin + steps]


def sliding_windows(
    numbers: np.ndarray, width: int, stride: int = 1
) -> Tuple[np.ndarray, np.ndarray]:
    """Windows of `width` tokens, each with the token after it.

    Parameters
    ----------
    numbers : ndarray, shape (tokens,)
    width : int
        Tokens in a window.
    stride : int
        Tokens from the begin of one window to the begin of the next.

    Returns
    -------
    windows : ndarray, shape (count, width)
    targets : ndarray, shape (count,)

    Raises
    ------
    InputError
        If the text is too short for one window and its target.
    """
    if width < 1 or stride < 1:
        raise InputError(f"width and stride: got {width} and {stride}, wanted at least 1")
    begins = np.arange(0, len(numbers) - width, stride)
    if not len(begins):
        raise InputError(
            f"the text is too short: {len(numbers)} tokens, "
            f"and a window of {width} needs at least {width + 1}"
        )
    return numbers[begins[:, None] + np.arange(width)], numbers[begins + width]
