"""What a warp issues in a step of a persistent kernel, and how long it takes alone.

    python tests/gpu/step_path.py [CUBIN...]    a row for each size of NAMED that a kernel is for

Without files, it compiles the LSTM for sm_90, and also prints the kernels' registers.

The path begins when a warp has acquired the last flag it waits for, and ends at the fence before
its block's flag: what lies between two exchanges. It is that of a warp with the most to do: it has
slices of the product and cells, keeps what backward reads, and publishes. Of what a branch may
skip, the path has all, but of the product only as many slices as the size has.

The latency is that of one warp that issues in order, an instruction each clock, and waits for its
operands, which are there LATENCIES after their instructions were issued. Neither other warps nor
bank conflicts nor the fence count. So the figure is rough, and for comparisons: of two versions of
a kernel, not of two GPUs.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path
from typing import (
    Dict,
    FrozenSet,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from machine_code import Instruction, Kernel, kernels, reachable, read, readable
from nvcc import compile_cell, parse_resources

# Clocks until an instruction's result can be used; for others 5. Rounded from published
# microbenchmarks of A100 and H100.
LATENCIES = {
    "LDG": 270,  # from L2
    "LDS": 30,
    "LD": 40,  # as here: in shared memory, through an address of any space
    "LDC": 30,
    "S2R": 25,
    "S2UR": 25,
    "MUFU": 20,
    "HMMA": 33,
    "BAR": 25,
}
WIDTHS = {".64": 2, ".128": 4}
REGISTER = re.compile(r"\b(U?)R(\d+)(\.64)?|\b(U?P\d)\b")


class Size(NamedTuple):
    """A layer, its kernel's name, and the slices of a warp."""

    name: str
    kernel: str
    slices: int


NAMED = (
    Size("float32 N=3 H=33", "Forward Lstm Float 2 1 0", 1),
    Size("float32 N=8 H=256", "Forward Lstm Float 2 1 0", 2),
    Size("float16 N=8 H=256", "Forward Lstm Half 4 1 0", 1),
    Size("TF32 N=3 H=33", "Forward Lstm Tf32 2 1 0", 1),
)


# Gates by the names of cells, of which the scatter kernels' slices depend.
GATES = {"Lstm": 4, "Gru": 3, "Rnn": 1}


class StepPath:
    """The longest paths between two exchanges: from each poll of a step to the next flag.

    Parameters
    ----------
    kernel : Kernel
        A persistent kernel.
    slices : int
        How many slices of the product the warp has; of a scatter kernel how many tiles, and other
        blocks whose sums it adds up. At most what it keeps in registers, of a kernel on the tensor
        cores that keeps any.
    """

    def __init__(self, kernel: Kernel, slices: int) -> None:
        self.kernel = kernel
        self.slices = slices
        words = readable(kernel.name).split()
        self.scatters = words[0] == "Scatter"
        self.tagged = words[-1] == "tagged"
        self.tensor_cores = words[2] != "Float"
        row_tiles, batch_tiles = (1, int(words[3])) if self.scatters else map(int, words[3:5])
        self.batch_tiles = batch_tiles
        self.tiles = row_tiles * batch_tiles
        streams = not self.scatters and words[6 if words[0] == "Backward" else 5] == "1"
        # As RegisterSlices of product_shape.h: with many sums, a kernel that streams keeps none.
        self.keeps = self.tensor_cores and not (streams and batch_tiles == 4)
        bytes_along_k = 16 * GATES.get(words[1], 1) * (2 if words[2] in ("Half", "Bfloat16") else 4)
        self.slices_of_tile = -(-bytes_along_k // 64) if self.scatters else 1
        inside = {i.index for i in kernel.step_loop()}
        # Calls are the slow paths of divisions, which no number of a usual size takes.
        calls = {i for i in inside if kernel.code[i].is_call}
        self.outside = frozenset(range(len(kernel.code))) - inside | calls
        self.barriers = frozenset(i for i in inside if kernel.code[i].name == "BAR")
        self.fences = frozenset(i for i in inside if kernel.code[i].name == "MEMBAR")
        self.loads = frozenset(i for i in inside if kernel.code[i].is_exchanged_load)
        self.products = frozenset(i for i in inside if kernel.code[i].name == "HMMA")

    def find(self) -> List[Instruction]:
        """Return the instructions of the paths, in order; those of inner loops repeatedly.

        Raises
        ------
        ValueError
            If there is none.
        """
        if self.tagged:
            return self._from_poll(min(self.loads), self._barriers_after(self._stores()))
        if self.scatters:
            return self._scattered()
        paths = (self._from_poll(at, self.fences) for at in sorted(self.kernel.polls()))
        return [instruction for path in paths for instruction in path]

    @property
    def slices_at_once(self) -> int:
        """The slices that a loop over those in shared memory multiplies at a time."""
        if self.keeps or self.scatters or not self.tensor_cores:
            return 1
        loops = (self.kernel.loop_of(i, self.outside | self.barriers) for i in self.products)
        code = min(loops, key=len)
        return self._of_loop([self.kernel.code[i] for i in code])

    def _of_loop(self, code: Sequence[Instruction]) -> int:
        return max(1, sum(i.name == "HMMA" for i in code) // (2 * self.tiles))

    def _stores(self) -> List[int]:
        """Return the stores of tagged words, which other blocks poll."""
        code = self.kernel.code
        return [i.index for i in code if i.name == "STG" and ".STRONG.GPU" in i.opcode]

    def _barriers_after(self, starts: Iterable[int]) -> FrozenSet[int]:
        """Return the barriers that come next."""
        before = reachable(self.kernel.next, starts, self.outside | self.barriers)
        found = {n for i in before for n in self.kernel.next[i]}
        return self.barriers & found

    def _from_poll(self, at: int, goals: FrozenSet[int]) -> List[Instruction]:
        """Return the longest path from a poll on."""
        poll = self.kernel.loop_of(at, self.outside | self.barriers | self.fences)
        starts = {n for i in poll for n in self.kernel.next[i]} - poll
        needed = 2 * self.slices * self.tiles if self.keeps else 0
        without = self.outside | poll
        # Where K is shared, no products come after the second poll.
        for count in (needed, 0):
            found = self._longest(starts, without, goals, self.products, count)
            if found:
                return found
        raise ValueError(f"{readable(self.kernel.name)}: no path from a poll")

    def _scattered(self) -> List[Instruction]:
        """Return the path that adds up other blocks' sums, and the one from there to the flag."""
        (at,) = self.kernel.polls()
        poll = self.kernel.loop_of(at, self.outside | self.barriers | self.fences)
        starts = {n for i in poll for n in self.kernel.next[i]} - poll
        middle = self._barriers_after(starts)
        without = self.outside | poll
        added = self._longest(starts, without, middle, frozenset(), 0)
        after = {n for i in middle for n in self.kernel.next[i]}
        needed = 2 * self.slices * self.batch_tiles * self.slices_of_tile
        needed = needed if self.tensor_cores else 0
        rest = self._longest(after, without, self.fences, self.products, needed)
        if not added or not rest:
            raise ValueError(f"{readable(self.kernel.name)}: no path from a poll")
        return added + rest

    def _longest(
        self,
        starts: Iterable[int],
        without: FrozenSet[int],
        goals: FrozenSet[int],
        counted: FrozenSet[int],
        needed: int,
    ) -> List[Instruction]:
        """Return the longest path with as many of the counted instructions, or a few more.

        16 x 8 sums by 64 bytes take two products on the tensor cores. Those that are predicated off
        are issued, too, and before sm_80 a product takes twice as many.
        """
        loops = self.kernel.loops(without | self.barriers)
        for count in range(needed, 8 * needed + 1):
            longest = _Longest(self, without, loops, goals, counted)
            found = [path for s in starts for path in [longest.path(s, count)] if path]
            if found:
                return [self.kernel.code[i] for i in max(found, key=len)]
        return []

    def trips(self, loop: FrozenSet[int]) -> int:
        """Return how often an inner loop runs."""
        code = [self.kernel.code[i] for i in loop]
        names = {i.name for i in code}
        multiplied = sum(i.name == "FFMA" for i in code)
        if self.scatters:
            if "HMMA" in names:
                return 0  # over tiles in shared memory
            if multiplied and "STG" in names:
                return self.slices  # over tiles
            # A tile has 16 numbers along K in each slice, and each of them 4 sums of a lane.
            of_tile = 16 * 4 * self.batch_tiles * self.slices_of_tile
            return of_tile // multiplied if multiplied else 1
        if any(i.is_exchanged_load for i in code):
            # Weights that are streamed are not in shared memory.
            streamed = "LDS" not in names or any(
                i.name == "LDG" and not i.is_exchanged_load for i in code
            )
            return 0 if self.keeps or streamed else -(-self.slices // self._of_loop(code))
        # A slice has 16 numbers along K, and each of them 4 sums of a lane and tile.
        return 16 * 4 * self.tiles // multiplied if multiplied else 1


class _Longest:
    """The longest paths to instructions, which they do not contain.

    Parameters
    ----------
    owner : StepPath
        Whose kernel it is.
    without : frozenset of int
        Instructions that a path must not have.
    loops : dict of int to frozenset of int
        The inner loops, by each of their instructions.
    goals : frozenset of int
        Where paths end.
    counted : frozenset of int
        Instructions of which a path has a given number.
    """

    def __init__(
        self,
        owner: StepPath,
        without: FrozenSet[int],
        loops: Dict[int, FrozenSet[int]],
        goals: FrozenSet[int],
        counted: FrozenSet[int] = frozenset(),
    ) -> None:
        self.owner = owner
        self.kernel = owner.kernel
        self.without = without
        self.goals = goals
        self.counted = counted
        self.loops = loops
        self.found: Dict[Tuple[int, int], Optional[List[int]]] = {}

    def path(self, start: int, count: int) -> Optional[List[int]]:
        """Return the longest path from an instruction on, with so many of the counted; or None."""
        # Depth first, without recursion: paths are longer than Python's stack.
        pending = [(start, count)]
        while pending:
            key = pending[-1]
            if key in self.found and self.found[key] is not None:
                pending.pop()
                continue
            steps, following = self._ahead(*key)
            new = [n for n in following if n not in self.found]
            if new and key not in self.found:
                self.found[key] = None  # Not through a cycle.
                pending += new
                continue
            pending.pop()
            ends = [self.found[n] for n in following]
            ways = [way for way in ends if way is not None]
            if key[0] in self.goals:
                self.found[key] = [] if key[1] == 0 else None
            else:
                self.found[key] = steps + max(ways, key=len) if ways else None
        return self.found[(start, count)]

    def _ahead(self, at: int, count: int) -> Tuple[List[int], List[Tuple[int, int]]]:
        """Return an instruction, or the loop that begins there, and what may follow."""
        if at in self.goals:
            return [], []
        if at in self.loops:
            loop = self.loops[at]
            trips = self.owner.trips(loop)
            if trips == 0:
                return [], []
            steps = self._once(at, loop) * trips
            after = {n for i in loop for n in self.kernel.next[i]} - loop
        else:
            steps, after = [at], set(self.kernel.next[at])
            count -= at in self.counted
        return steps, [(n, count) for n in after - self.without if count >= 0]

    def _once(self, head: int, loop: FrozenSet[int]) -> List[int]:
        """Return the longest way through a loop once, from its head until it comes back there."""
        outside = frozenset(range(len(self.kernel.code))) - loop
        counted = self.owner.loads & loop if self.owner.scatters else frozenset()
        loops = self.kernel.loops(outside | {head})
        inner = _Longest(self.owner, outside, loops, frozenset([head]), counted)
        starts = [n for n in self.kernel.next[head] if n in loop]
        # The loop over other blocks' sums loads those of several at once, if there are several.
        least = self.owner.slices * self.owner.batch_tiles if counted else 0
        for count in range(least, least + len(counted) + 1):
            ways = [way for n in starts for way in [inner.path(n, count)] if way is not None]
            if ways:
                return [head, *max(ways, key=len)]
        raise ValueError(f"{readable(self.kernel.name)}: no way through a loop")


# ---- latency ------------------------------------------------------------------------------------


def latency(path: Sequence[Instruction]) -> int:
    """Return the clocks until a warp alone has issued all, and waited for their operands."""
    ready: Dict[str, int] = {}
    clock = 0
    for instruction in path:
        reads, writes = registers(instruction)
        clock = max([clock + 1, *(ready.get(r, 0) for r in reads)])
        takes = LATENCIES.get(instruction.name, 5)
        if instruction.name == "BAR":
            clock += takes
        for r in writes:
            ready[r] = clock + takes
    return clock


def registers(instruction: Instruction) -> Tuple[Set[str], Set[str]]:
    """Return which registers and predicates an instruction reads and writes."""
    operands = [o.strip() for o in instruction.operands.split(",")]
    reads, writes = set(_names(instruction.guard, 1)), set()
    name, opcode = instruction.name, instruction.opcode
    stores = name in ("ST", "STS", "STG", "STL", "BAR", "BRA", "BSYNC", "BSSY", "EXIT", "RED")
    width = next((w for suffix, w in WIDTHS.items() if suffix in opcode), 1)
    for place, operand in enumerate(operands):
        is_target = place == 0 and not stores
        # The second target of what sets two: predicates, and carries.
        is_target |= place == 1 and not stores and bool(re.fullmatch(r"U?P\w", operand))
        if name == "HMMA":
            wide = (4, 4 if "16816" in opcode or "TF32" in opcode else 2, 2, 4)[min(place, 3)]
        elif is_target:
            wide = 2 if "WIDE" in opcode or name == "CS2R" else width
        else:
            wide = width if stores and "[" not in operand else 1
        (writes if is_target else reads).update(_names(operand, wide))
    return reads, writes


def _names(operand: str, wide: int) -> Iterator[str]:
    for match in REGISTER.finditer(operand):
        uniform, number, pair, predicate = match.groups()
        if predicate:
            yield predicate
        else:
            for i in range(2 if pair else wide):
                yield f"{uniform}R{int(number) + i}"


def compile_named(folder: Path) -> Tuple[Path, Dict[str, int]]:
    """Compile the LSTM for sm_90; return the cubin, and the registers by readable names."""
    cubin = folder / "lstm.cubin"
    report = compile_cell("lstm", "90", cubin)
    return cubin, {readable(r.kernel): r.registers for r in parse_resources(report)}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cubins", nargs="*", type=Path, metavar="CUBIN")
    parser.add_argument("--show", action="store_true", help="the paths, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cubins, used = arguments.cubins, {}
        if not cubins:
            cubin, used = compile_named(Path(folder))
            cubins = [cubin]
        of_name = {readable(k.name): k for cubin in cubins for k in kernels(read(cubin))}
    print(f"{'':20s}{'instructions':>14s}{'latency':>10s}{'registers':>12s}")
    for size in NAMED:
        if size.kernel not in of_name:
            continue
        found = StepPath(of_name[size.kernel], size.slices).find()
        registers = used.get(size.kernel, "")
        print(f"{size.name:20s}{len(found):14d}{latency(found):10d}{registers:>12}")
        if arguments.show:
            print("\n".join(f"    {instruction}" for instruction in found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
