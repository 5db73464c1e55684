"""Builds programs from the primitives of the kernels, and leaves some of them out.

A primitive is named by the file and the function of csrc/cuda/persistent that call it (*site*).
"""

from __future__ import annotations

from typing import Callable, Dict, FrozenSet, Iterable, List, NamedTuple, Sequence, Tuple

from axioms import Event, Program, Thread

EXCHANGE = "exchange.cuh"


class Variant(NamedTuple):
    """A change of a protocol: primitives left out, other orders, fewer buffers, another start."""

    without: FrozenSet[str] = frozenset()
    orders: Tuple[Tuple[str, str, str], ...] = ()  # primitive, order, scope
    buffers: int = 2
    early: FrozenSet[str] = frozenset()  # sites that wait for the round before
    old_flags: bool = False  # flags are not zeroed before the launch
    # The count of an asynchronous store is after that store alone, not after what its thread did.
    counts_alone: bool = False


class Warp(NamedTuple):
    """The lanes of a warp that are modelled, and the blocks for which it waits."""

    lanes: int
    waits_for: Sequence[int]


class Builder:
    """Builds a program from the primitives of device.cuh and exchange.cuh."""

    def __init__(
        self,
        blocks: int,
        warps: Callable[[int], Sequence[Warp]],
        primitives: Dict[str, Tuple[str, str]],
        variant: Variant,
        cluster: int = 1,
    ) -> None:
        old = {"flag": 1 << 20, "sumsflag": 1 << 20} if variant.old_flags else {}
        self.program = Program(cluster, old)
        self.blocks = range(blocks)
        self.variant = variant
        self.sites: List[str] = []  # by first visit
        self.orders = {**primitives, **{name: to for name, *to in variant.orders}}
        self.warps = [warps(block) for block in self.blocks]

    def lanes(self, block: int, warp: int) -> List[Thread]:
        return [Thread(block, warp, lane) for lane in range(self.warps[block][warp].lanes)]

    def threads(self, block: int) -> List[Thread]:
        return [t for warp in range(len(self.warps[block])) for t in self.lanes(block, warp)]

    def visit(self, site: str) -> bool:
        """Note a site, and return whether it is there."""
        if site not in self.sites:
            self.sites.append(site)
        return site not in self.variant.without

    def order_at(self, site: str) -> Tuple[str, str]:
        """Return the order and the scope of the primitive that a site calls."""
        return self.orders[site.rsplit(maxsplit=1)[-1].partition("#")[0]]

    # ---- primitives -----------------------------------------------------------------------------

    def store(self, thread: Thread, place: str, round_: int) -> None:
        self.program.add(Event(thread, "write", place, round_))

    def load(self, thread: Thread, place: str, round_: int) -> None:
        self.program.add(Event(thread, "read", place, round_))

    def load_exchanged(self, site: str, thread: Thread, places: Iterable[str], round_: int) -> None:
        self.visit(site)
        for place in places:
            self.program.add(Event(thread, "read", place, round_, *self.order_at(site)))

    def sync_threads(self, site: str, block: int) -> None:
        if self.visit(site):
            self.program.barrier(self.threads(block))

    def sync_warp(self, site: str, block: int, warp: int) -> None:
        if self.visit(site):
            self.program.barrier(self.lanes(block, warp))

    def cluster_barrier(self, site: str, blocks: Iterable[int]) -> None:
        if self.visit(site):
            self.program.barrier([t for block in blocks for t in self.threads(block)])

    def store_exchanged(self, site: str, thread: Thread, place: str, round_: int) -> None:
        self.visit(site)
        self.program.add(Event(thread, "write", place, round_, *self.order_at(site)))

    # The bytes that each thread counts at a barrier are a place of their own, and so is what the
    # block expects: a phase has ended when all of them have its number. They must not have a later
    # one, since the barrier would have counted that in this phase.

    def init_byte_barriers(self, site: str, block: int) -> None:
        for buffer, number in enumerate(["", "#2"][: self.variant.buffers]):
            if self.visit(site + number):
                self.store(self.threads(block)[0], f"barrier{block}.{buffer}", 1)

    def expect_bytes(self, site: str, block: int, buffer: int, phase: int) -> None:
        if not self.visit(site):
            return
        thread, place = self.threads(block)[0], f"expected{block}.{buffer}"
        self.program.add(Event(thread, "write", place, phase, *self.order_at(site)))

    def store_to_cluster(
        self,
        site: str,
        thread: Thread,
        place: str,
        round_: int,
        block: int,
        buffer: int,
        phase: int,
    ) -> None:
        self.visit(site)
        self.load(thread, f"barrier{block}.{buffer}", 1)
        counted = f"bytes{block}.{buffer}.{thread.block}.{self.threads(thread.block).index(thread)}"
        self.program.add_async(
            Event(thread, "write", place, round_),
            Event(thread, "write", counted, phase, *self.order_at(site)),
            alone=self.variant.counts_alone,
        )

    def wait_for_bytes(
        self, site: str, block: int, senders: Sequence[Thread], buffer: int, phase: int
    ) -> None:
        if not self.visit(site):
            return
        order = self.order_at(site)
        for lane in self.lanes(block, 0):
            places = [f"expected{block}.{buffer}"]
            for sender in senders:
                index = self.threads(sender.block).index(sender)
                places.append(f"bytes{block}.{buffer}.{sender.block}.{index}")
            for place in places:
                self.program.add(Event(lane, "poll", place, phase, *order, exact=True))

    # ---- tagged_words.cuh -----------------------------------------------------------------------

    def store_tagged(self, site: str, thread: Thread, place: str, round_: int) -> None:
        self.visit(site)
        self.program.add(Event(thread, "write", place, round_, *self.order_at(site)))

    def load_tagged(self, site: str, thread: Thread, places: Iterable[str], round_: int) -> None:
        self.visit(site)
        order = self.order_at(site)
        for place in places:
            self.program.add(Event(thread, "poll", place, round_, *order, tagged=True))

    # ---- exchange.cuh ---------------------------------------------------------------------------

    def publish(self, site: str, block: int, round_: int, flag: str = "flag") -> None:
        if not self.visit(site):
            return
        self.sync_threads(f"{EXCHANGE} Publish __syncthreads", block)
        release = f"{EXCHANGE} Publish StoreRelease"
        self.visit(release)
        thread = self.threads(block)[0]
        self.program.add(Event(thread, "write", f"{flag}{block}", round_, *self.order_at(release)))

    def wait(
        self,
        site: str,
        block: int,
        warp: int,
        waits_for: Sequence[int],
        round_: int,
        flag: str = "flag",
    ) -> None:
        if not self.visit(site):
            return
        least = round_ - (site in self.variant.early)
        acquire = f"{EXCHANGE} Wait LoadAcquire"
        self.visit(acquire)
        lanes = self.lanes(block, warp)
        for i, other in enumerate(waits_for):
            self.program.add(
                Event(
                    lanes[i % len(lanes)], "poll", f"{flag}{other}", least, *self.order_at(acquire)
                )
            )
        self.sync_warp(f"{EXCHANGE} Wait __syncwarp", block, warp)
