"""What the persistent kernels store, load and wait for, step by step, as programs of the model.

Each function is a transcription of a kernel: of its order of primitives, not of its arithmetic.
`sources.py` finds the primitives in the sources, and a test compares. What a thread stores carries
the number of the round, and each load says which round it needs.

A block has a thread for each role: the one that publishes, a lane that polls, one beside it that
only reads, one in a warp that waits for other blocks, and one in a warp that waits for none. All of
them store a part of what is exchanged. So no role relies on what another thread of it does.
"""

from __future__ import annotations

from typing import Callable, Dict, NamedTuple, Sequence, Tuple

from builder import Builder, Variant, Warp

FORWARD = "persistent_forward.cuh"
BACKWARD = "persistent_backward.cuh"
SCATTER = "persistent_scatter.cuh"
STEPS = 3
# Calls that need no transcription.
OUTSIDE = {
    "product.cuh LoadNext LoadExchanged16": "each lane loads weights that it has stored itself",
}


# ---- the kernels --------------------------------------------------------------------------------
#
# Names of places end in numbers: the block, the buffer, the thread of the block that writes it.


def forward(build: Builder, last: bool = True) -> None:
    """persistent_forward.cuh: blocks exchange h; `last`: also that of the last step.

    No block reads that one. It only gives waits a later flag to read, and three blocks 25 times as
    many executions.
    """

    def put_state(block: int, step: int) -> None:
        for i, thread in enumerate(build.threads(block)):
            build.store(thread, f"h{block}.{step % build.variant.buffers}.{i}", step + 1)

    def publish(function: str, block: int, round_: int) -> None:
        if build.visit(f"{FORWARD} {function} Publish"):
            build.publish(f"{FORWARD} Publish Publish", block, round_)

    for block in build.blocks:
        # Weights and biases: each is loaded by one thread, and read by others.
        build.store(build.threads(block)[-1], f"weights{block}", 1)
        put_state(block, 0)
        publish("Run", block, 1)
    for step in range(STEPS):
        for block in build.blocks:
            _multiply(build, FORWARD, "Multiply", block, step, "h")
            build.sync_threads(f"{FORWARD} RunStep __syncthreads", block)
            _add_warps(build, block, step)
            if last or step + 1 < STEPS:
                put_state(block, step + 1)
                publish("RunStep", block, step + 2)


def tagged(build: Builder) -> None:
    """persistent_forward.cuh with tagged_words.cuh: each word says whether it is there."""

    def put_state(block: int, step: int) -> None:
        for i, thread in enumerate(build.threads(block)):
            place = f"h{block}.{step % build.variant.buffers}.{i}"
            build.store_tagged(f"{FORWARD} PutNumber StoreTagged", thread, place, step + 1)

    def publish(function: str, block: int) -> None:
        if build.visit(f"{FORWARD} {function} Publish"):
            build.sync_threads(f"{FORWARD} Publish __syncthreads", block)

    for block in build.blocks:
        build.store(build.threads(block)[-1], f"weights{block}", 1)
        put_state(block, 0)
        publish("Run", block)
    for step in range(STEPS):
        buffer = step % build.variant.buffers
        for block in build.blocks:
            for warp, (_, waits_for) in enumerate(build.warps[block]):
                for i, thread in enumerate(build.lanes(block, warp)):
                    places = [
                        f"h{other}.{buffer}.{writer}"
                        for other in waits_for
                        for writer in range(len(build.threads(other)))
                    ]
                    site = "product.cuh LoadTagged LoadTagged16"
                    build.load_tagged(site, thread, places, step + 1)
                    build.load(thread, f"weights{block}", 1)
                    build.store(thread, f"warpsums{block}.{warp}.{i}", step + 1)
            build.sync_threads(f"{FORWARD} RunStep __syncthreads", block)
            _add_warps(build, block, step)
            put_state(block, step + 1)
            publish("RunStep", block)


def _multiply(build: Builder, file: str, name: str, block: int, step: int, what: str) -> None:
    # Each warp waits for its blocks, multiplies what they exchange, and stores its sums.
    buffer = step % build.variant.buffers
    for warp, (_, waits_for) in enumerate(build.warps[block]):
        build.wait(f"{file} {name} Wait", block, warp, waits_for, step + 1)
        for i, thread in enumerate(build.lanes(block, warp)):
            places = [
                f"{what}{other}.{buffer}.{writer}"
                for other in waits_for
                for writer in range(len(build.threads(other)))
            ]
            build.load_exchanged("product.cuh LoadSlices LoadExchanged16", thread, places, step + 1)
            build.load(thread, f"weights{block}", 1)
            build.store(thread, f"warpsums{block}.{warp}.{i}", step + 1)


def _add_warps(build: Builder, block: int, step: int) -> None:
    # product.cuh, Sum.
    for thread in build.threads(block):
        for warp in range(len(build.warps[block])):
            for i in range(len(build.lanes(block, warp))):
                build.load(thread, f"warpsums{block}.{warp}.{i}", step + 1)


def backward(build: Builder, parts: int = 2, in_cluster: bool = False) -> None:
    """persistent_backward.cuh: blocks exchange gate gradients, and those of a tile sums."""
    for block in build.blocks:
        build.store(build.threads(block)[-1], f"weights{block}", 1)
    tiles = [range(first, first + parts) for first in range(0, len(build.blocks), parts)]
    if in_cluster:
        for tile in tiles:
            for block in tile:
                build.init_byte_barriers(f"{BACKWARD} Run InitByteBarrier", block)
            build.cluster_barrier(f"{BACKWARD} Run ClusterBarrier", tile)
    for step in range(STEPS):
        buffer = step % build.variant.buffers
        for block in build.blocks:
            for i, thread in enumerate(build.threads(block)):
                build.store(thread, f"gradients{block}.{buffer}.{i}", step + 1)
            build.publish(f"{BACKWARD} RunStep Publish", block, step + 1)
        for block in build.blocks:
            _multiply(build, BACKWARD, "Multiply", block, step, "gradients")
            build.sync_threads(f"{BACKWARD} Multiply __syncthreads", block)
            if parts == 1:
                _add_warps(build, block, step)
        if parts == 1:
            continue
        for tile in tiles:
            (_add_parts_in_cluster if in_cluster else _add_parts)(build, tile, step)


def _add_parts(build: Builder, tile: Sequence[int], step: int) -> None:
    buffer = (step + 1) % build.variant.buffers
    for block in tile:
        _add_warps(build, block, step)
        for i, thread in enumerate(build.threads(block)):
            build.store(thread, f"sums{block}.{buffer}.{i}", step + 1)
        build.publish(f"{BACKWARD} AddParts Publish", block, step + 1, "sumsflag")
    for block in tile:
        for warp in range(len(build.warps[block])):
            build.wait(f"{BACKWARD} AddParts Wait", block, warp, tile, step + 1, "sumsflag")
        for thread in build.threads(block):
            places = [
                f"sums{other}.{buffer}.{i}"
                for other in tile
                for i in range(len(build.threads(other)))
            ]
            build.load_exchanged(f"{BACKWARD} AddParts LoadExchanged", thread, places, step + 1)


def _add_parts_in_cluster(build: Builder, tile: Sequence[int], step: int) -> None:
    name = f"{BACKWARD} AddPartsInCluster"
    buffer, phase = step % build.variant.buffers, step // build.variant.buffers + 1
    for block in tile:
        build.expect_bytes(f"{name} ExpectBytes", block, buffer, phase)
        _add_warps(build, block, step)
        for i, thread in enumerate(build.threads(block)):
            for other in tile:
                place = f"parts{other}.{buffer}.{block}.{i}"
                build.store_to_cluster(
                    f"{name} StoreToCluster", thread, place, step + 1, other, buffer, phase
                )
    for block in tile:
        senders = [thread for other in tile for thread in build.threads(other)]
        build.wait_for_bytes(f"{name} WaitForBytes", block, senders, buffer, phase)
        build.sync_threads(f"{name} __syncthreads", block)
        for thread in build.threads(block):
            for other in tile:
                for i in range(len(build.threads(other))):
                    build.load(thread, f"parts{block}.{buffer}.{other}.{i}", step + 1)


def scatter(build: Builder) -> None:
    """persistent_scatter.cuh: each block stores sums for all blocks."""
    for block in build.blocks:
        build.store(build.threads(block)[-1], f"weights{block}", 1)
        build.store(build.threads(block)[-1], f"zeros{block}", 1)
        build.sync_threads(f"{SCATTER} ScatterBlock __syncthreads", block)
    for step in range(STEPS):
        buffer = step % build.variant.buffers
        for block in build.blocks:
            threads = build.threads(block)
            for i, thread in enumerate(threads):
                build.load(thread, f"zeros{block}", 1)  # It overwrites them.
                build.store(thread, f"gradients{block}.{i}", step + 1)
            build.sync_threads(f"{SCATTER} RunStep __syncthreads", block)
            for i, thread in enumerate(threads):
                build.load(thread, f"weights{block}", 1)
                for writer in range(len(threads)):
                    build.load(thread, f"gradients{block}.{writer}", step + 1)
                for other in build.blocks:
                    place = f"sums{other}.{block}.{buffer}.{i}"
                    build.store_exchanged(
                        f"{SCATTER} RunStep StoreExchanged16", thread, place, step + 1
                    )
            build.publish(f"{SCATTER} RunStep Publish", block, step + 1)
        for block in build.blocks:
            _add_up(build, block, step)


def _add_up(build: Builder, block: int, step: int) -> None:
    # Each warp waits for some blocks, and adds up their sums; then all threads add up the warps'.
    buffer = step % build.variant.buffers
    for warp, (_, waits_for) in enumerate(build.warps[block]):
        build.wait(f"{SCATTER} AddUp Wait", block, warp, waits_for, step + 1)
        for i, thread in enumerate(build.lanes(block, warp)):
            places = [
                f"sums{block}.{other}.{buffer}.{writer}"
                for other in waits_for
                for writer in range(len(build.threads(other)))
            ]
            site = f"{SCATTER} AddBlocks LoadExchanged16"
            build.load_exchanged(site, thread, places, step + 1)
            build.store(thread, f"warpsums{block}.{warp}.{i}", step + 1)
    build.sync_threads(f"{SCATTER} AddUp __syncthreads", block)
    _add_warps(build, block, step)


def staging(build: Builder) -> None:
    """product_float.cuh: the lanes of a warp stage each slice for each other."""
    lanes = build.lanes(0, 0)
    for slice_ in range(STEPS):
        for thread in lanes:  # What it loads is another protocol's.
            build.load_exchanged("product_float.cuh LoadWords LoadExchanged16", thread, [], 0)
        for i, thread in enumerate(lanes):
            build.store(thread, f"staged{i}", slice_ + 1)
        build.sync_warp("product_float.cuh MultiplySlice __syncwarp", 0, 0)
        for thread in lanes:
            for i in range(len(lanes)):
                build.load(thread, f"staged{i}", slice_ + 1)
        build.sync_warp("product_float.cuh MultiplySlice __syncwarp#2", 0, 0)


# ---- what is checked ----------------------------------------------------------------------------


class Case(NamedTuple):
    """A protocol, its number of blocks, and what the warps of each block wait for."""

    name: str
    kernel: Callable[..., None]
    blocks: int
    warps: Callable[[int], Sequence[Warp]]
    cluster: int = 1
    options: Tuple[Tuple[str, object], ...] = ()

    def build(self, primitives: Dict[str, Tuple[str, str]], variant: Variant) -> Builder:
        builder = Builder(self.blocks, self.warps, primitives, variant, self.cluster)
        self.kernel(builder, **dict(self.options))
        return builder


def _one_each(blocks: int) -> Callable[[int], Sequence[Warp]]:
    # Warp i waits for block i, and the last one for none: together they wait for all.
    return lambda block: [*(Warp(2, [i]) for i in range(blocks)), Warp(1, [])]


def _all(block: int) -> Sequence[Warp]:
    return [Warp(2, [0, 1])] * 2


def _own_part(block: int) -> Sequence[Warp]:
    # Two blocks, of which each multiplies its own gradients.
    return [Warp(2, [block]), Warp(1, [])]


def _part_of_two(block: int) -> Sequence[Warp]:
    # Two tiles of two blocks: the blocks of a tile multiply the gradients of different tiles.
    first = block % 2 * 2
    return [Warp(2, [first]), Warp(2, [first + 1])]


def _part_in_one_warp(block: int) -> Sequence[Warp]:
    first = block % 2 * 2
    return [Warp(2, [first, first + 1])]


CASES = [
    Case("forward", forward, 2, _one_each(2)),
    Case("forward", forward, 2, _all),
    Case("forward", forward, 3, _one_each(3), 1, (("last", False),)),
    Case("forward, tagged", tagged, 2, _one_each(2)),
    Case("forward, tagged", tagged, 3, _one_each(3)),
    Case("backward, whole", backward, 2, _one_each(2), 1, (("parts", 1),)),
    Case("backward, whole", backward, 3, _one_each(3), 1, (("parts", 1),)),
    Case("backward, through L2", backward, 2, _own_part),
    Case("backward, through L2", backward, 4, _part_in_one_warp),
    Case("backward, in clusters", backward, 2, _own_part, 2, (("in_cluster", True),)),
    Case("backward, in clusters", backward, 4, _part_of_two, 2, (("in_cluster", True),)),
    Case("backward, scattered", scatter, 2, _one_each(2)),
    Case("backward, scattered", scatter, 3, _one_each(3)),
    Case("staging", staging, 1, lambda block: [Warp(2, [])]),
]
