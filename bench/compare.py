"""Which figures of a row are compared, and how: like with like."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Sequence

Row = Dict[str, Any]

OURS = "fastrnn"
# Of whom several take part in each row; a user has the best of them.
FAMILY = "cuDNN"

# What a time is of, with the keys of its median and quartiles: calls, or a replayed graph.
KEYS = {
    "graph": ("graph_seconds", "graph_low", "graph_high"),
    "calls": ("seconds", "low", "high"),
}


class Ratio(NamedTuple):
    """How many times as long as fastrnn someone takes, and of what the times are."""

    value: float
    kind: str  # of KEYS


def shared_kind(ours: Row, theirs: Row) -> Optional[str]:
    """Graph where both have one, else calls; None where one of them has no time."""
    for kind, (key, *_) in KEYS.items():
        if key in ours and key in theirs:
            return kind
    return None


def ratio(row: Row, name: str) -> Optional[Ratio]:
    """Of someone's time to fastrnn's, if both have one."""
    ours, theirs = row["peers"].get(OURS, {}), row["peers"].get(name, {})
    kind = shared_kind(ours, theirs)
    if kind is None:
        return None
    key = KEYS[kind][0]
    return Ratio(theirs[key] / ours[key], kind)


def own_kind(row: Row) -> str:
    """Of what fastrnn's time is where the limit is looked at: graph if any ratio is of graphs."""
    ratios = [ratio(row, name) for name in row["peers"] if name != OURS]
    return "graph" if any(r is not None and r.kind == "graph" for r in ratios) else "calls"


def seconds(row: Row, name: str) -> Optional[float]:
    """Someone's time that is compared in this row: of the kind that fastrnn's is, or else calls."""
    entry = row["peers"].get(name, {})
    return entry.get(KEYS[own_kind(row)][0], entry.get("seconds"))


def fraction(row: Row) -> Optional[float]:
    """Fastrnn's share of what the limit permits. Above 1, the limit is none."""
    found = seconds(row, OURS)
    return None if found is None else row["limit"] / found


def merged(row: Row) -> Row:
    """The row with the best of the family in place of all of it."""
    family = [name for name in row["peers"] if name.startswith(f"{FAMILY} ")]
    if not family:
        return row

    def rank(name: str) -> Any:
        found, entry = ratio(row, name), row["peers"][name]
        if found is not None:
            # One that could be captured is not compared by the host's time with one that could not.
            return (0 if found.kind == "graph" else 1), found.value
        return (2, entry["seconds"]) if "seconds" in entry else (3, 0.0)

    best = min(family, key=rank)
    entry = {**row["peers"][best], "algorithm": best[len(FAMILY) + 1 :]}
    peers: Dict[str, Row] = {}
    for name, one in row["peers"].items():
        peers.update({FAMILY: entry} if name in family else {name: one})
    return {**row, "peers": peers}


def names(rows: Sequence[Row]) -> List[str]:
    """Who has a time in some row, fastrnn first."""
    timed = [n for row in rows for n, entry in row["peers"].items() if "seconds" in entry]
    return sorted(set(timed), key=lambda name: (name != OURS, timed.index(name)))
