"""Where the persistent kernels call a primitive that orders memory, and which orders these have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, List, Tuple

CUDA = Path(__file__).parents[2] / "csrc" / "cuda"
# What nvcc's primitives order, and the functions of exchange.cuh, which are made of the others.
OTHERS = ["__syncthreads", "__syncwarp", "Publish", "Wait"]
# What the PTX ISA says of instructions that do not name their order and scope.
IMPLIED = {"st.async": ("release", "cluster"), "mbarrier.arrive": ("release", "cta")}

FUNCTION = re.compile(r"^ *(?:static )?FASTRNN_DEVICE (?:explicit )?(?:[^(=]* )?\*?(\w+)\(")


def _functions(path: Path) -> Dict[str, List[str]]:
    # Lines by function, without comments. Lines outside functions belong to none.
    found: Dict[str, List[str]] = {}
    name = ""
    for line in path.read_text().splitlines():
        start = FUNCTION.match(line)
        name = start.group(1) if start else "" if line.startswith("}") else name
        if name:
            code = line[start.end() :] if start else line
            found.setdefault(name, []).append(code.partition("//")[0])
    return found


def orders() -> Dict[str, Tuple[str, str]]:
    """Return the order and the scope of each primitive of device.cuh that touches memory."""
    found = {}
    for name, lines in _functions(CUDA / "runtime" / "device.cuh").items():
        code = "\n".join(lines)
        if ': "memory"' not in code:
            continue
        instructions = re.findall(r'"(?:\{)?((?:ld|st|mbarrier|barrier)\.[\w.:]+)', code)
        assert instructions, name
        if instructions[0].startswith("barrier.cluster"):
            assert ".release" in instructions[0] and ".acquire" in instructions[-1], name
        # A barrier's wait acquires what its arrival releases.
        words = instructions[-1].split(".")
        order = next((word for word in words if word in ("acquire", "release", "relaxed")), None)
        scope = next((word for word in words if word in ("cta", "cluster", "gpu")), None)
        implied = [to for start, to in IMPLIED.items() if instructions[-1].startswith(start)]
        found[name] = implied[0] if implied and order is None else (order or "weak", scope or "gpu")
    return found


def sites() -> Dict[str, List[str]]:
    """Return the primitives that each function of the kernels calls, in order.

    The key is FILE FUNCTION. A second call of a primitive is named NAME#2, unless it is in the same
    line.
    """
    call = re.compile(rf"\b({'|'.join([*OTHERS, *orders()])})\(")
    found: Dict[str, List[str]] = {}
    for path in sorted((CUDA / "persistent").glob("*.cuh")):
        for function, lines in _functions(path).items():
            calls: List[str] = []
            for line in lines:
                for name in dict.fromkeys(call.findall(line)):
                    same = sum(other.partition("#")[0] == name for other in calls)
                    calls.append(f"{name}#{same + 1}" if same else name)
            if calls:
                found[f"{path.name} {function}"] = calls
    return found
