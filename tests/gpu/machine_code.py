"""Reads the machine code of persistent kernels: the loop over the steps, and what is in it.

    python tests/gpu/machine_code.py FILE...    a table, of cubins or of what nvdisasm -c printed

The *step loop* of a kernel is the part of its control flow that reaches the acquire of another
block's flag and is reached from it. An acquire is known by what follows its load: the L1 cache is
emptied (CCTL.IVALL). A kernel of tagged words has no acquires: it polls what it loads. A function
that the compiler did not inline is not followed, but its CALL is counted. A warp whose lanes have
diverged leaves the loop at BRA.DIV to meet again; that path is left out, because these kernels do
not diverge there. (Before sm_90 it is what BRA.CONV jumps over.)
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path
from shutil import which
from typing import Dict, FrozenSet, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Set

CODE = re.compile(
    r"^(?P<label>\.L_x_\d+):"
    r"|/\*[0-9a-f]{4,}\*/ +(?P<guard>@!?U?P\w+)? *(?P<opcode>[A-Z][\w.]*) *(?P<operands>[^;]*);",
    re.MULTILINE,
)
TARGET = re.compile(r"`\((\.L_x_\d+)\)")
ACQUIRE = "CCTL.IVALL"
TAGGED = "NS0_6SignalE1E"  # Signal::kTags (csrc/cuda/plan.h) as a template argument
JUMPS = ("BRA", "JMP", "UBRA", "CALL")
# After these the warp goes on nowhere, or where this code does not tell.
ENDS = ("EXIT", "RET", "BRX", "JMX", "BPT")

# What the tables count: instructions whose opcode without modifiers is one of these.
CLASSES = {
    "generic": ("LD", "ST"),
    "local": ("LDL", "STL"),
    "bar": ("BAR", "UCGABAR_ARV", "UCGABAR_WAIT"),
    "lds": ("LDS",),
    "sts": ("STS",),
    "ldg": ("LDG",),
    "stg": ("STG",),
    "mma": ("HMMA",),
    "ffma": ("FFMA",),
    "mufu": ("MUFU",),
}


class Instruction(NamedTuple):
    """An instruction, at its place in the kernel."""

    index: int
    guard: str
    opcode: str
    operands: str

    @property
    def name(self) -> str:
        """The opcode without its modifiers."""
        return self.opcode.split(".", 1)[0]

    @property
    def is_call(self) -> bool:
        """Whether it calls a function. A CALL of a label within the kernel does not come back."""
        return self.name == "CALL" and not TARGET.search(self.operands)

    @property
    def is_exchanged_load(self) -> bool:
        """Whether it reads, past the L1 cache, what another block may have written."""
        return self.name == "LDG" and ".STRONG.GPU" in self.opcode

    def __str__(self) -> str:
        return f"{self.guard} {self.opcode} {self.operands}".strip()


class Kernel:
    """A kernel's machine code.

    Parameters
    ----------
    name : str
        Its mangled name.
    text : str
        Its instructions and labels, as nvdisasm prints them.
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.code: List[Instruction] = []
        labels: Dict[str, int] = {}
        for match in CODE.finditer(text):
            if match["label"]:
                labels[match["label"]] = len(self.code)
            else:
                at = len(self.code)
                operands = match["operands"].strip()
                self.code.append(Instruction(at, match["guard"] or "", match["opcode"], operands))
        self._step_loop: Optional[List[Instruction]] = None
        self.next = [self._next(instruction, labels) for instruction in self.code]
        self.previous: List[List[int]] = [[] for _ in self.code]
        for index, following in enumerate(self.next):
            for after in following:
                self.previous[after].append(index)

    def _next(self, instruction: Instruction, labels: Dict[str, int]) -> List[int]:
        """Return which instructions may follow one."""
        target = TARGET.search(instruction.operands)
        jumps = instruction.name in JUMPS and target is not None
        # The condition is a guard, or the first operand (BRA.U !UP0, ...).
        conditional = bool(instruction.guard) or bool(re.match("!?U?P[0-9]", instruction.operands))
        following = []
        if jumps and ".DIV" not in instruction.opcode and target is not None:
            following.append(labels[target.group(1)])
        ends = (jumps and ".DIV" not in instruction.opcode) or instruction.name in ENDS
        if (conditional or not ends) and instruction.index + 1 < len(self.code):
            following.append(instruction.index + 1)
        return following

    def loop_of(self, start: int, without: FrozenSet[int] = frozenset()) -> Set[int]:
        """Return the loop that an instruction is in: what it reaches and is reached from.

        It is the largest that does without the instructions `without`; empty if there is none.
        """
        after = reachable(self.next, [start], without)
        return after & reachable(self.previous, [start], without) if start in after else set()

    def loops(self, without: FrozenSet[int]) -> Dict[int, FrozenSet[int]]:
        """Return the loops, as of `loop_of`, by each of their instructions."""
        found: Dict[int, FrozenSet[int]] = {}
        for start in set(range(len(self.code))) - without:
            if start not in found:
                loop = frozenset(self.loop_of(start, without))
                found.update((member, loop) for member in loop)
        return found

    def step_loop(self) -> List[Instruction]:
        """Return the instructions of the step loop; none if the kernel polls no other block."""
        if self._step_loop is None:
            polls = [i for i in self.code if i.opcode == ACQUIRE]
            polls = polls or [i for i in self.code if i.is_exchanged_load]
            loops = [self.loop_of(i.index) for i in polls]
            self._step_loop = [self.code[i] for i in sorted(max(loops, key=len, default=set()))]
        return self._step_loop

    def polls(self) -> Dict[int, int]:
        """Return the acquires in the step loop: where, and where the flags are loaded."""
        loop = {i.index for i in self.step_loop()}
        found = {}
        for at in loop:
            if self.code[at].opcode != ACQUIRE:
                continue
            near = [i for i in range(max(at - 4, 0), at) if self.code[i].is_exchanged_load]
            if near:  # else it is a cluster's barrier
                found[at] = near[-1]
        return found


def reachable(
    edges: Sequence[Sequence[int]], starts: Iterable[int], without: FrozenSet[int] = frozenset()
) -> Set[int]:
    """Return what edges lead to from `starts`, not through or to `without`."""
    found: Set[int] = set()
    pending = list(starts)
    while pending:
        for index in edges[pending.pop()]:
            if index not in found and index not in without:
                found.add(index)
                pending.append(index)
    return found


def kernels(machine_code: str) -> Iterator[Kernel]:
    """Yield the kernels of what `nvdisasm -c` printed."""
    for part in re.split(r"(?=^\.text\.)", machine_code, flags=re.MULTILINE)[1:]:
        head, _, text = part.partition(":")
        yield Kernel(head[len(".text.") :], text)


def readable(mangled: str) -> str:
    """Return a kernel's name with its template arguments: cell, math, numbers, signal."""
    match = re.search(
        r"Persistent(\w+?)KernelINS_\d+(\w+?)CellENS0_\d+(\w+?)MathE((?:L\w+?E)+)E", mangled
    )
    if match is None:
        return mangled
    numbers = re.findall(r"L(?:[ib]|NS0_9ReductionE)(\d+)E", match.group(4))
    tagged = ["tagged"] * ("L" + TAGGED in match.group(4))
    return " ".join([match.group(1), match.group(2), match.group(3), *numbers, *tagged])


def count(code: Sequence[Instruction]) -> Dict[str, int]:
    """Count instructions: those of each of CLASSES, fences, calls, exchanged loads, and all."""
    names = Counter(i.name for i in code)
    found = {key: sum(names[name] for name in members) for key, members in CLASSES.items()}
    # A release to other blocks; one to its own block may precede it.
    found["membar"] = sum(i.name == "MEMBAR" and ".CTA" not in i.opcode for i in code)
    found["call"] = sum(i.is_call for i in code)
    found["exchanged"] = sum(i.is_exchanged_load for i in code)
    found["all"] = len(code)
    return found


# ---- the lint -----------------------------------------------------------------------------------


def is_tagged(words: Sequence[str]) -> bool:
    """Tell whether the kernel of these words of its name polls tagged words, and no flags."""
    return words[-1] == "tagged"


def expected_fences(name: str) -> Optional[int]:
    """Return how many fences a persistent kernel's step has; None for other kernels.

    One is before each flag that a block sets; tagged words have none. Backward has a second flag
    if blocks add up their sums through L2 (Reduction::kThroughL2, 1 in csrc/cuda/plan.h).
    """
    words = readable(name).split()
    if len(words) == 1:
        return None
    if is_tagged(words):
        return 0
    return 2 if words[0] == "Backward" and words[5] == "1" else 1


def lint(kernel: Kernel) -> Iterator[str]:
    """Yield what is wrong with a persistent kernel's step loop."""
    fences = expected_fences(kernel.name)
    loop = kernel.step_loop()
    if fences is None or not loop:
        return
    name = readable(kernel.name)
    found = count(loop)
    for key, what in (
        ("generic", "loads or stores of which the compiler does not know the memory space"),
        ("call", "calls"),
        ("local", "accesses of local memory"),
    ):
        if found[key]:
            yield f"{name}: {found[key]} {what} in a step"
    if found["membar"] != fences:
        yield f"{name}: {found['membar']} fences in a step, not {fences}"
    if not is_tagged(name.split()):
        yield from _lint_exchanged(kernel, name, loop)


def _lint_exchanged(kernel: Kernel, name: str, loop: Sequence[Instruction]) -> Iterator[str]:
    """Yield what is wrong with the loads of what other blocks have written.

    What holds of those of a right kernel: each load of global memory that a warp may issue between
    an acquire and the next barrier is LDG.STRONG.GPU; and after its first HMMA a warp loads no more
    of them, but in an inner loop: over slices whose weights are in shared memory or streamed. The
    exception are streamed weights of IEEE float32, which a warp has written itself.
    """
    barriers = frozenset(i.index for i in loop if i.name == "BAR")
    inside = frozenset(i.index for i in loop)
    awaited = reachable(kernel.next, kernel.polls(), barriers) & inside
    loads = [kernel.code[i] for i in sorted(awaited) if kernel.code[i].name == "LDG"]
    flags = set(kernel.polls().values())
    loads = [load for load in loads if load.index not in flags]
    if not loads:
        yield f"{name}: no load of what other blocks have written"
    words = readable(kernel.name).split()
    streams = words[2] == "Float" and words[-1] == "1" and words[0] != "Scatter"
    weak = [i for i in loads if not (i.is_exchanged_load or (streams and ".64" in i.opcode))]
    if weak:
        yield f"{name}: {len(weak)} loads after an acquire are not LDG.STRONG.GPU: {weak[0]}"
    products = [i.index for i in loop if i.name == "HMMA"]
    after = reachable(kernel.next, products, barriers)
    outside = frozenset(range(len(kernel.code))) - inside
    for load in loads:
        late = load.is_exchanged_load and load.index in after
        if late and not kernel.loop_of(load.index, barriers | outside):
            yield f"{name}: loads after the first product: {load}"
            return


# ---- the table ----------------------------------------------------------------------------------


def find_nvdisasm() -> Optional[str]:
    """Return nvdisasm's path: on the PATH, or from PyPI's nvidia-cuda-nvdisasm."""
    packages = Path(sysconfig.get_paths()["purelib"], "nvidia")
    found = sorted(str(path) for path in packages.glob("cu*/bin/nvdisasm"))
    return which("nvdisasm") or (found[-1] if found else None)


def read(path: Path) -> str:
    """Return the machine code of a file: a cubin, or text."""
    if path.suffix != ".cubin":
        return path.read_text()
    nvdisasm = find_nvdisasm()
    if nvdisasm is None:
        sys.exit("nvdisasm was not found (pip install nvidia-cuda-nvdisasm)")
    return subprocess.run(
        [nvdisasm, "-c", str(path)], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def main() -> int:
    """Print what each kernel's step loop has."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--lint", action="store_true")
    arguments = parser.parse_args()
    columns = ["all", "exchanged", "call", "membar", *CLASSES]
    print(f"{'kernel':44s}" + "".join(f"{column:>10s}" for column in columns))
    for path in arguments.files:
        for kernel in kernels(read(path)):
            found = count(kernel.step_loop())
            print(f"{readable(kernel.name):44s}" + "".join(f"{found[c]:10d}" for c in columns))
            if arguments.lint:
                for complaint in lint(kernel):
                    print("   ", complaint)
    return 0


if __name__ == "__main__":
    sys.exit(main())
