"""What a row of results says of fastrnn: its time against others', and against the limit."""

from __future__ import annotations

from typing import Any, Dict, NamedTuple, Optional

from bench.results import Row

OURS = "fastrnn"
FAMILY = "cuDNN"  # of which several take part in each row; a user has the best of them
PREFIXES = {"graph": "graph_", "calls": ""}  # of the keys of a replayed graph's and a call's times


class Ratio(NamedTuple):
    """How many times as long as fastrnn someone takes, and of what the times are."""

    value: float
    kind: str  # of PREFIXES


def ratio(row: Row, name: str) -> Optional[Ratio]:
    """Of someone's time to fastrnn's, if both have one of the same kind."""
    ours, theirs = row["peers"].get(OURS, {}), row["peers"].get(name, {})
    for kind, prefix in PREFIXES.items():
        key = f"{prefix}seconds"
        if key in ours and key in theirs:
            return Ratio(theirs[key] / ours[key], kind)
    return None


def own_kind(row: Row) -> str:
    """Of what fastrnn's time is where the limit is looked at: graph if any ratio is of graphs."""
    ratios = [ratio(row, name) for name in row["peers"] if name != OURS]
    return "graph" if any(r is not None and r.kind == "graph" for r in ratios) else "calls"


def seconds(row: Row, name: str) -> Optional[float]:
    """Someone's time that is compared in this row: of the kind that fastrnn's is, or else calls."""
    entry = row["peers"].get(name, {})
    return entry.get(f"{PREFIXES[own_kind(row)]}seconds", entry.get("seconds"))


def fraction(row: Row) -> Optional[float]:
    """Fastrnn's share of what the limit permits. Above 1, the limit was not one."""
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
    peers: Dict[str, Row] = {}
    for name, entry in row["peers"].items():
        if name not in family:
            peers[name] = entry
        elif FAMILY not in peers:
            peers[FAMILY] = {**row["peers"][best], "algorithm": best[len(FAMILY) + 1 :]}
    return {**row, "peers": peers}
