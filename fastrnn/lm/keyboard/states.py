"""A writer that keeps the states of texts it has read: what is typed next costs one step."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from fastrnn.lm.generation import Writer
from fastrnn.lm.keyboard.network import Network

# A text is read in pieces of at most so many tokens, whose ends are kept.
PIECE = 64


class Prefix(NamedTuple):
    """A text that was read: its hash, the state after it, and log-probabilities of what follows."""

    read: Any
    state: Any
    log_probabilities: np.ndarray


class Kept:
    """Prefixes by the hash of their tokens; the least recently used go when there are too many.

    Parameters
    ----------
    limit : int
        Bytes of states and log-probabilities to keep.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._prefixes: OrderedDict[bytes, Prefix] = OrderedDict()

    def __len__(self) -> int:
        return len(self._prefixes)

    def get(self, read: Any) -> Optional[Prefix]:
        """The prefix with this hash, if it is still there."""
        key = read.digest()
        found = self._prefixes.get(key)
        if found is not None:
            self._prefixes.move_to_end(key)
        return found

    def put(self, prefix: Prefix) -> None:
        """Keep a prefix, and drop others to stay below the limit."""
        key = prefix.read.digest()
        if key in self._prefixes:
            return
        self._prefixes[key] = prefix
        self.size += _bytes(prefix)
        while self.size > self.limit and self._prefixes:
            self.size -= _bytes(self._prefixes.popitem(last=False)[1])


def _own(state: Any) -> Any:
    """`state` in arrays of its own: a part of another would keep all of that in memory."""
    if isinstance(state, list):
        return [part if part.base is None else part.copy() for part in state]
    return state.copy()


def _bytes(prefix: Prefix) -> int:
    parts = prefix.state if isinstance(prefix.state, list) else [prefix.state]
    arrays = [part for part in parts if part is not None]
    # About what the objects around them take, too.
    return sum(array.nbytes for array in arrays) + prefix.log_probabilities.nbytes + 1000


class Hashes:
    """The hash of every beginning of a text.

    Hashes of 16 bytes that no two texts share, in practice: a state is never that of another text.
    """

    def __init__(self, seed: Any, numbers: np.ndarray) -> None:
        self.numbers = numbers.astype(np.int32)
        self._marks = [seed]
        for begin in range(0, len(numbers) - PIECE + 1, PIECE):
            mark = self._marks[-1].copy()
            mark.update(self.numbers[begin : begin + PIECE].tobytes())
            self._marks.append(mark)

    def at(self, length: int) -> Any:
        """The hash of the first `length` tokens."""
        block = length // PIECE
        mark = self._marks[block]
        if length % PIECE:
            mark = mark.copy()
            mark.update(self.numbers[block * PIECE : length].tobytes())
        return mark


class Deadline:
    """A point in time, by which at least one piece of work is done all the same."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._begun = False

    def passed(self) -> bool:
        """Whether no further piece of work should begin."""
        over = self._begun and time.monotonic() >= self._end
        self._begun = True
        return over


class KeepingWriter(Writer):
    """A writer whose states are :class:`Prefix`, looked up before they are computed.

    Not for several threads at once.
    """

    def __init__(self, writer: Writer, kept: Kept, name: str) -> None:
        super().__init__(writer.model, writer.vocabulary, writer.settings, writer.context)
        self.kept = kept
        self._network = Network.of(self.model, self.settings, self.context)
        # The hash of an empty text differs from model to model, and so do all others.
        self._nothing = Prefix(
            hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16),
            self._first_state(),
            np.empty(0),
        )
        # Before the first token: what is likely there is what follows the empty prompt.
        likely, _ = self.read(self._prompt(""))
        self.root = self._nothing._replace(log_probabilities=likely)

    def _first_state(self) -> Any:
        if self.settings.model == "unrolled":
            return np.full(self.settings.window, self.vocabulary.start, np.int32)
        state = self.model.begin_state(1, ctx=self.context)
        return [part.asnumpy() for part in state]

    def _run(self, numbers: np.ndarray, state: Any) -> Tuple[Any, Any]:
        if self._network is None:
            return super()._run(numbers, state)
        return self._network(numbers, state)

    def hashes(self, numbers: np.ndarray) -> Hashes:
        """The hashes of a text's beginnings."""
        return Hashes(self._nothing.read, numbers)

    def read(self, numbers: np.ndarray, state: Any = None) -> Tuple[np.ndarray, Any]:
        """As :meth:`Writer.read`."""
        if state is not None and len(numbers) == 1:
            rows, (after,) = self.step(numbers, [state])
            return rows[0], after
        start = state or self._nothing
        hashes = Hashes(start.read, numbers)
        prefix = self.reach(hashes, len(numbers), Deadline(float("inf")), start)
        assert prefix is not None
        return prefix.log_probabilities, prefix

    def step(self, numbers: np.ndarray, states: Sequence[Any]) -> Tuple[np.ndarray, List[Any]]:
        """As :meth:`Writer.step`; only what is not kept is computed."""
        after: Dict[int, Prefix] = {}
        reads = []
        for n, prefix in enumerate(states):
            reads.append(prefix.read.copy())
            reads[n].update(np.int32(numbers[n]).tobytes())
            found = self.kept.get(reads[n])
            if found is not None:
                after[n] = found
        missing = [n for n in range(len(states)) if n not in after]
        if missing:
            rows, new = super().step(numbers[missing], [states[n].state for n in missing])
            for n, row, state in zip(missing, rows, new):
                after[n] = Prefix(reads[n], _own(state), row.copy())
                self.kept.put(after[n])
        ordered = [after[n] for n in range(len(states))]
        return np.stack([prefix.log_probabilities for prefix in ordered]), ordered

    def reach(
        self, hashes: Hashes, length: int, deadline: Deadline, start: Optional[Prefix] = None
    ) -> Optional[Prefix]:
        """The prefix of the first `length` tokens, or None where time is over before.

        What has been read by then is kept, so that a later call gets further. `start` is the prefix
        of none, by default at the beginning of a text.
        """
        place, prefix = self._longest(hashes, length, start or self.root)
        while place < length:
            if deadline.passed():
                return None
            end = piece_end(place, length)
            prefix, _ = self.read_piece(hashes, place, end, prefix)
            place = end
        return prefix

    def _longest(self, hashes: Hashes, length: int, start: Prefix) -> Tuple[int, Prefix]:
        """The longest beginning of the first `length` tokens that is kept."""
        nearby = range(length, max(length - PIECE, 0), -1)
        for place in (*nearby, *range((nearby.stop - 1) // PIECE * PIECE, 0, -PIECE)):
            found = self.kept.get(hashes.at(place))
            if found is not None:
                return place, found
        return 0, start

    def read_piece(
        self, hashes: Hashes, begin: int, end: int, prefix: Prefix
    ) -> Tuple[Prefix, np.ndarray]:
        """Go on from `prefix`, and also return the log-probabilities after each token."""
        numbers = hashes.numbers[begin:end]
        rows, state = self.read_all(numbers, prefix.state)
        if isinstance(state, list):
            state = [part if isinstance(part, np.ndarray) else part.asnumpy() for part in state]
        after = Prefix(hashes.at(end).copy(), _own(state), rows[-1].copy())
        self.kept.put(after)
        return after, rows


def piece_end(begin: int, end: int) -> int:
    """Where the piece that begins at `begin` ends: at most at `end`.

    Pieces are aligned powers of two. So a text loses its last tokens one after the other at the
    cost of a few steps each, since the ends of the pieces before are kept.
    """
    size = PIECE
    while begin % size or begin + size > end:
        size //= 2
    return begin + size
