"""All executions of a program that the PTX memory model allows, as far as its threads wait.

The model is that of NVIDIA's *PTX ISA*, chapter "Memory Consistency Model", as Lustig,
Sahasrabuddhe and Giroux formalize it in "A Formal Analysis of the NVIDIA PTX Memory Consistency
Model" (ASPLOS 2019), for one proxy. A program here has weak, relaxed, acquire and release loads and
stores and barriers, but no fences and no atomic read-modify-write operations. Each place has one
thread that writes it. So the coherence order of a place is the program order of its writer, and the
observation order has only its first case: a read observes the write that it reads, if they are
morally strong.

Of the axioms, Causality and SC per location are checked for each choice of writes that the polls
read. Coherence holds where base causality has no cycle; Fence-SC and the atomicity of
read-modify-writes have nothing to say here. No Thin Air is left out: more executions are then
allowed than there are, and what holds in all of them holds.

What a thread reads without polling orders nothing, since such loads are weak. So the polls alone
decide the causality order, and each other read is judged by itself: which writes may it return? A
poll stands for the last load of its loop. The loads before it could only add order.
"""

from __future__ import annotations

from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

__all__ = ["Event", "Execution", "Program", "Thread", "Verdict", "check", "executions"]


class Thread(NamedTuple):
    """A thread by its block, its warp in the block and its lane in the warp."""

    block: int
    warp: int
    lane: int


class Event(NamedTuple):
    """A load or a store. What is stored and what a load should return is known by `value`.

    A poll ends when it returns `value` or more.
    """

    thread: Thread
    kind: str  # "write", "read" or "poll"
    place: str
    value: int
    order: str = "weak"  # "weak", "relaxed", "acquire" or "release"
    scope: str = "gpu"  # "cta", "cluster" or "gpu"
    exact: bool = False  # a poll that must not find a later value
    tagged: bool = False  # a poll that no other value ends

    @property
    def strong(self) -> bool:
        return self.order != "weak"


class Program:
    """Events and barriers of all threads, in an order in which they could run.

    Parameters
    ----------
    cluster : int
        The blocks of a cluster.
    initial : dict
        What places hold at first, by the letters with which their names begin; others hold 0. The
        end of earlier work on the stream synchronizes with the start of every thread.
    """

    def __init__(self, cluster: int = 1, initial: Optional[Dict[str, int]] = None) -> None:
        self.cluster = cluster
        self._initial = initial or {}
        self.nodes: List[Optional[Event]] = []  # None: a barrier
        self.edges: List[Tuple[int, int]] = []
        self.writes: Dict[str, List[int]] = {}  # by place, in program order
        self._polls: Dict[Tuple[Thread, str], List[int]] = {}
        self._last: Dict[Thread, int] = {}

    def initial(self, place: str) -> int:
        return self._initial.get(_kind(place), 0)

    def add(self, event: Event) -> None:
        """Append an event to its thread."""
        node = self._append([event.thread], event)
        if event.kind == "write":
            writes = self.writes.setdefault(event.place, [])
            assert not writes or self.nodes[writes[0]].thread == event.thread, event
            writes.append(node)
        elif event.kind == "poll":
            self._polls.setdefault((event.thread, event.place), []).append(node)

    def add_async(self, store: Event, count: Event, alone: bool = False) -> None:
        """Let a thread issue an asynchronous store and the strong store that follows it.

        Both are after what the thread has done, unless they are `alone`, but nothing that it does
        later is after them.
        """
        last = self._last.pop(store.thread, None)
        if last is not None and not alone:
            self._last[store.thread] = last
        self.add(store)
        self.add(count)
        del self._last[store.thread]
        if last is not None:
            self._last[store.thread] = last

    def barrier(self, threads: Sequence[Thread]) -> None:
        """Let threads meet: everything before it, in any of them, is before everything after it."""
        self._append(threads, None)

    def _append(self, threads: Sequence[Thread], event: Optional[Event]) -> int:
        node = len(self.nodes)
        self.nodes.append(event)
        for thread in threads:
            if thread in self._last:
                self.edges.append((self._last[thread], node))
            self._last[thread] = node
        return node

    def acquires(self, poll: int) -> List[int]:
        """Return the acquires of a poll's thread at its place, from the poll on."""
        return [p for p in self.polls_from(poll) if self.nodes[p].order == "acquire"]

    def polls_from(self, poll: int) -> List[int]:
        """Return a thread's polls of one place, from this one on."""
        own = self.nodes[poll]
        return [p for p in self._polls[own.thread, own.place] if p >= poll]

    def of_kind(self, kind: str) -> List[int]:
        return [i for i, event in enumerate(self.nodes) if event is not None and event.kind == kind]

    def morally_strong(self, a: Event, b: Event) -> bool:
        """Whether two operations on one place are morally strong."""

        def includes(one: Event, other: Event) -> bool:
            blocks = {"cta": 1, "cluster": self.cluster, "gpu": 1 << 30}[one.scope]
            return one.thread.block // blocks == other.thread.block // blocks

        if a.thread == b.thread:
            return True
        return a.strong and b.strong and includes(a, b) and includes(b, a)


class Order:
    """A transitive relation: the program's own, and edges from some nodes (*ends*) to others.

    What follows an end is kept; what follows another node is found by the ends after it.
    """

    def __init__(self, program: Program, ends: Sequence[int]) -> None:
        static = [0] * len(program.nodes)  # a set of bits for each node
        for a, b in reversed(program.edges):  # an edge leads to a later node
            static[a] |= static[b] | 1 << b
        self._static = static
        self._first = []  # the ends after a node that follow no other of them
        for after in static:
            ahead = [end for end in ends if after >> end & 1]
            behind = 0
            for end in ahead:
                behind |= static[end]
            self._first.append([end for end in ahead if not behind >> end & 1])
        self._after = {end: static[end] for end in ends}

    def copy(self) -> Order:
        other = Order.__new__(Order)
        other._static, other._first = self._static, self._first
        other._after = dict(self._after)
        return other

    def __call__(self, a: int, b: int) -> bool:
        return bool(self._following(a) >> b & 1)

    def _following(self, node: int) -> int:
        if node in self._after:
            return self._after[node]
        after = self._static[node]
        for end in self._first[node]:
            after |= self._after[end]
        return after

    def add(self, end: int, to: int) -> None:
        new = self._following(to) | 1 << to
        if self._after[end] | new == self._after[end]:
            return
        for node, after in self._after.items():
            if node == end or after >> end & 1:
                self._after[node] = after | new

    def is_within(self, other: Order) -> bool:
        """Whether the other one orders all that this one does."""
        return all(not after & ~other._after[end] for end, after in self._after.items())

    def has_cycle(self) -> bool:
        return any(after >> end & 1 for end, after in self._after.items())


class Execution:
    """Which writes the polls read, and what follows from that; `None` is the initial write."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.reads: Dict[int, Optional[int]] = {}
        self._observers: Dict[int, Tuple[int, ...]] = {}  # of a write
        polls = program.of_kind("poll")
        polled = {program.nodes[poll].place for poll in polls}
        writes = [w for w in program.of_kind("write") if program.nodes[w].place in polled]
        self.precedes = Order(program, [*polls, *writes])  # base causality
        self._flow = self.precedes.copy()  # what is stored before it is read

    def copy(self) -> Execution:
        other = Execution.__new__(Execution)
        other.program, other.reads = self.program, dict(self.reads)
        other._observers = dict(self._observers)
        other.precedes, other._flow = self.precedes.copy(), self._flow.copy()
        return other

    def causes(self, a: int, b: int) -> bool:
        """Whether a is before b, an operation on the same place, in causality order."""
        return self.precedes(a, b) or any(
            self.precedes(poll, b) for poll in self._observers.get(a, ())
        )

    def let_read(self, poll: int, write: Optional[int]) -> None:
        """Let a poll read a write, and add what it synchronizes with."""
        self.reads[poll] = write
        if write is None:
            return
        self._flow.add(write, poll)
        if not self._observes(poll):
            return
        self._observers[write] = (*self._observers.get(write, ()), poll)
        nodes, place = self.program.nodes, self.program.writes[self.program.nodes[poll].place]
        # A release pattern is a release and perhaps a later strong write of the same thread; an
        # acquire pattern is a strong read and perhaps a later acquire.
        for first in place[: place.index(write) + 1]:
            if nodes[first].order != "release":
                continue
            for last in self.program.acquires(poll):
                if self.program.morally_strong(nodes[first], nodes[last]):
                    self.precedes.add(first, last)

    def _observes(self, poll: int) -> bool:
        write, nodes = self.reads[poll], self.program.nodes
        return write is not None and self.program.morally_strong(nodes[write], nodes[poll])

    def value(self, read: int, write: Optional[int]) -> int:
        """Return what a read gets from a write."""
        nodes = self.program.nodes
        return self.program.initial(nodes[read].place) if write is None else nodes[write].value

    def may_return(self, read: int, write: Optional[int]) -> bool:
        """Whether the axiom Causality lets a read return what a write stored."""
        place = self.program.writes.get(self.program.nodes[read].place, [])
        if write is not None and self.causes(read, write):
            return False
        later = place if write is None else place[place.index(write) + 1 :]
        return not any(self.causes(other, read) for other in later)

    def is_consistent(self) -> bool:
        """Whether the axioms hold so far; reading more writes cannot repair what is broken.

        They held before the newest poll, so only what follows it can contradict them.
        """
        newest = next(reversed(list(self.reads)))
        if self.precedes(newest, newest):
            return False
        for poll, write in self.reads.items():
            if (
                poll == newest
                or self.precedes(newest, poll)
                or (write is not None and self.precedes(newest, write))
            ) and not self.may_return(poll, write):
                return False
        return all(self._in_order(*sorted((poll, newest))) for poll in self.reads if poll != newest)

    def _in_order(self, a: int, b: int) -> bool:
        # SC per location. With one writer, it adds to Causality that a thread never reads an older
        # write than before.
        first, second = self.program.nodes[a], self.program.nodes[b]
        if first.place != second.place or first.thread != second.thread:
            return True
        if not (self._observes(a) and (self.reads[b] is None or self._observes(b))):
            return True
        return (self.reads[b] if self.reads[b] is not None else -1) >= self.reads[a]

    def depends(self, a: int, b: int) -> bool:
        """Whether a happens only after b: by what polls wait for, and barriers for them."""
        return self._flow(b, a)

    def can_interleave(self) -> bool:
        """Whether the polls read what is stored before them in some interleaving of threads."""
        return not self._flow.has_cycle()


def executions(program: Program, interleaved: bool = False) -> Iterator[Execution]:
    """Yield each consistent choice of the writes that the polls read.

    Parameters
    ----------
    program : Program
    interleaved : bool
        Only those in which polls read what is stored before them in some interleaving. Without No
        Thin Air there are others.
    """

    def choices(poll: int) -> List[Optional[int]]:
        event = program.nodes[poll]
        writes = program.writes.get(event.place, [])
        if event.tagged:
            return [write for write in writes if program.nodes[write].value == event.value]
        found = [write for write in writes if program.nodes[write].value >= event.value]
        return [*found, None] if program.initial(event.place) >= event.value else found

    # Those that cannot choose come first: contradictions are then found early.
    polls = sorted(program.of_kind("poll"), key=lambda poll: len(choices(poll)))

    def extend(execution: Execution, depth: int) -> Iterator[Execution]:
        if depth == len(polls):
            yield execution
            return
        for write in choices(polls[depth]):
            if not execution.may_return(polls[depth], write):
                continue  # What is forbidden already stays so.
            longer = execution.copy()
            longer.let_read(polls[depth], write)
            if longer.is_consistent() and (not interleaved or longer.can_interleave()):
                yield from extend(longer, depth + 1)

    yield from extend(Execution(program), 0)


class Verdict(NamedTuple):
    """How many executions were judged, and an example of what goes wrong for each kind of place."""

    executions: int
    faults: Dict[str, str]


def check(program: Program, interleaved: bool = False) -> Verdict:
    """Judge the executions, up to the first bad one: every read may return only what it should.

    Blocks write single numbers and read 16 bytes at once. To operations of different sizes that
    race, the memory model does not apply at all; so no weak read may race with a write.
    """
    faults: Dict[str, str] = {}
    count, judged = 0, []
    for execution in executions(program, interleaved):
        count += 1
        faults.update(_faults_of(execution, "poll"))
        # An execution that orders all that another one does has no fault that the other has not.
        if not any(order.is_within(execution.precedes) for order in judged):
            judged.append(execution.precedes)
            faults.update(_unordered_writes(execution))
            faults.update(_faults_of(execution, "read"))
        if faults:
            break
    return Verdict(count, faults)


def _faults_of(execution: Execution, kind: str) -> Iterator[Tuple[str, str]]:
    for node in execution.program.of_kind(kind):
        event = execution.program.nodes[node]
        fault = _poll_fault(execution, node) if kind == "poll" else _read_fault(execution, node)
        if fault:
            yield _kind(event.place), f"{event} {fault}"


def _unordered_writes(execution: Execution) -> Iterator[Tuple[str, str]]:
    # Only asynchronous stores are not in program order.
    for place, writes in execution.program.writes.items():
        for first, second in zip(writes, writes[1:]):
            if not execution.precedes(first, second):
                yield _kind(place), f"{execution.program.nodes[second]} may come first"


def _kind(place: str) -> str:
    return place.rstrip("0123456789.")


def _poll_fault(execution: Execution, poll: int) -> str:
    value = execution.value(poll, execution.reads[poll])
    event = execution.program.nodes[poll]
    if event.tagged:
        return _tag_fault(execution, poll)
    return f"returns {value}" if event.exact and value != event.value else ""


def _tag_fault(execution: Execution, poll: int) -> str:
    # A word may be written while it is polled, but then as a whole. And the word that is waited for
    # may not be overwritten before.
    program = execution.program
    event = program.nodes[poll]
    for write in program.writes[event.place]:
        stored = program.nodes[write]
        if not program.morally_strong(stored, event):
            return f"races with the write of {stored.value}"
        if stored.value > event.value and not execution.depends(write, poll):
            return f"may find {stored.value}, and wait for ever"
    return ""


def _read_fault(execution: Execution, read: int) -> str:
    event = execution.program.nodes[read]
    writes = execution.program.writes.get(event.place, [])
    for write in writes:
        if not execution.precedes(write, read) and not execution.precedes(read, write):
            return f"races with the write of {execution.value(read, write)}"
    for write in (None, *writes):
        value = execution.value(read, write)
        if value != event.value and execution.may_return(read, write):
            return f"may return {value}"
    return ""
