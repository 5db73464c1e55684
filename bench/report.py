"""Makes Markdown and plots of a file of results.

    python -m bench.report results.json [--out docs/benchmarks.md] [--plots FOLDER]

Markdown goes to the standard output, or between the marks of a file: ``<!-- cpu -->`` or
``<!-- cuda -->``, and ``<!-- end -->``. Like is compared with like: replayed graphs where both have
one, else calls (ratios.py).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from statistics import median
from typing import Any, Dict, List, Optional, Sequence

from bench.plots import draw_all
from bench.ratios import OURS, PREFIXES, fraction, merged, own_kind, ratio
from bench.results import Row, read, write_whole

FACTS = ("device", "driver", "CUDA toolkit", "cuBLAS", "commit", "date", "Python", "threads")
EXCEEDED = "limit exceeded: the model of the limit is wrong"


def names(rows: Sequence[Row]) -> List[str]:
    """Who has a time in some row, fastrnn first."""
    timed = [n for row in rows for n, entry in row["peers"].items() if "seconds" in entry]
    return sorted(set(timed), key=lambda name: (name != OURS, timed.index(name)))


def number(value: Optional[float], digits: int = 3) -> str:
    """Three digits that count, and no exponent."""
    if value is None:
        return ""
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e" in text else text


def _time(entry: Row, kind: str) -> str:
    middle, low, high = (entry[PREFIXES[kind] + key] for key in ("seconds", "low", "high"))
    return f"{number(middle * 1e3)} ±{(high - low) / middle / 2:.0%}"


def _cell(entry: Optional[Row]) -> str:
    if entry is None:
        return ""
    if "seconds" not in entry:
        return "none" if entry["status"] == "unsupported" else str(entry["status"])
    text = _time(entry, "calls")
    if "graph_seconds" in entry:
        text += f" ({_time(entry, 'graph')})"
    return f"{text} {entry['algorithm']}" if "algorithm" in entry else text


def _ratio_cell(row: Row, name: str) -> str:
    found = ratio(row, name)
    if found is None:
        return ""
    return number(found.value) + (" (graph)" if found.kind == "graph" else "")


def _reached(row: Row) -> str:
    found = fraction(row)
    if found is None:
        return ""
    text = f"{found:.0%}" + (" (graph)" if own_kind(row) == "graph" else "")
    return f"{text}, {EXCEEDED}" if found > 1 else text


def _any_limit(row: Row) -> str:
    found, bound = row.get("any_limit") or row["limit"], row.get("any_bound") or row["bound"]
    return f"{number(found * 1e3)} ({bound})"


def table(rows: Sequence[Row]) -> List[str]:
    """Lines of Markdown: a row of the grid in each, with the best of cuDNN's algorithms."""
    rows = [merged(row) for row in rows]
    everyone = names(rows)
    others = [name for name in everyone if name != OURS]
    head = ["case", *(f"{name}, ms" for name in everyone), *(f"{n} / {OURS}" for n in others)]
    # Where fastrnn's plans have a limit of their own, as on a GPU.
    two_limits = any("any_limit" in row for row in rows)
    head += ["limit, ms", "set by", "reached", *["any algorithm, ms"] * two_limits, "peak MiB"]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for row in rows:
        entries = row["peers"]
        cells = [row["case"], *(_cell(entries.get(name)) for name in everyone)]
        cells += [_ratio_cell(row, name) for name in others]
        peaks = [number(entries.get(n, {}).get("peak_mib"), 4) or "–" for n in everyone]
        cells += [number(row["limit"] * 1e3), row["bound"], _reached(row)]
        cells += [_any_limit(row)] * two_limits + [" / ".join(peaks)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def losses(rows: Sequence[Row]) -> List[str]:
    """Each row in which someone is faster than fastrnn."""
    lines = []
    for row in map(merged, rows):
        for name in names([row]):
            found = ratio(row, name)
            if name != OURS and found is not None and found.value < 1:
                what = " (graph)" if found.kind == "graph" else ""
                said = f"{name} takes {found.value:.0%} of {OURS}'s time{what}"
                lines.append(f"- {row['case']}: {said}")
    return lines


def untimed(rows: Sequence[Row]) -> List[str]:
    """Each result that differs from the reference and each failure, which have no time."""
    return [
        f"- {row['case']}: {name}: {entry['status']}: {entry['reason']}"
        for row in rows
        for name, entry in row["peers"].items()
        if entry["status"] in ("wrong", "failed")
    ]


def exceeded(rows: Sequence[Row]) -> List[str]:
    """Each row whose limit was no limit."""
    found = [(row, fraction(row)) for row in map(merged, rows)]
    return [
        f"- {row['case']}: {share:.0%} of what {row['bound']} permits"
        for row, share in found
        if share is not None and share > 1
    ]


def method(rows: Sequence[Row]) -> List[str]:
    """How calls on a GPU were timed; nothing of a CPU's, or of a file that does not say it."""
    said = []
    evicted = sorted({row["evicted"] for row in rows if "evicted" in row})
    if evicted:
        passes = " or ".join(number(size / 2**20, 4) for size in evicted)
        said.append(f"Before each timed call and replay, a pass read {passes} MiB of other memory.")
    empty = [e["graph_empty"] for row in rows for e in row["peers"].values() if "graph_empty" in e]
    if empty:
        taken = number(median(empty) * 1e6)
        said.append(
            f"Of each replay's time, {taken} µs (median) were subtracted as the events' own."
        )
    warm = [row["case"] for row in rows if row.get("warm")]
    if warm:
        said.append(f"Warm, behind a call of their own in place of a pass: {'; '.join(warm)}.")
    return ["", " ".join(said)] if said else []


def markdown(content: Dict[str, Any], plots: Sequence[str] = ()) -> str:
    """The report on a file of results."""
    about, rows = content["about"], content["rows"]
    facts = [f"{key} {_fact(about[key])}" for key in FACTS if about.get(key)]
    facts += [f"{name} {version}" for name, version in about["versions"].items()]
    facts += [f"{key} {value}" for key, value in about.get("notes", {}).items()]
    if "seconds" in about:
        facts.append(f"measured in {number(about['seconds'] / 60)} minutes")
    lines = ["; ".join(facts) + ".", "", *table(rows), *method(rows)]
    missing = [f"{name} ({reason})" for name, reason in about["missing"].items()]
    lines += ["", "Did not take part: " + ("; ".join(missing) or "none") + "."]
    slower = losses(rows)
    lines += ["", f"Where {OURS} is slower:" if slower else "No peer was faster in any row."]
    lines += [*([""] if slower else []), *slower]
    for heading, found in (
        ("Not timed:", untimed(rows)),
        (f"{EXCEEDED.capitalize()}:", exceeded(rows)),
    ):
        if found:
            lines += ["", heading, "", *found]
    for plot in plots:
        lines += ["", f"![{Path(plot).stem}]({plot})"]
    return "\n".join(lines) + "\n"


def _fact(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def insert(text: str, kind: str, report: str) -> str:
    """Put a report between its marks in a document.

    Raises
    ------
    ValueError
        If the marks are not there.
    """
    begin, end = f"<!-- {kind} -->\n", "<!-- end -->"
    if begin not in text or end not in text.split(begin, 1)[1]:
        raise ValueError(f"the document has no {begin.strip()} with {end} behind it")
    before, rest = text.split(begin, 1)
    return f"{before}{begin}\n{report}\n{end}{rest.split(end, 1)[1]}"


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, help="file that pytest bench/ --results wrote")
    parser.add_argument("--out", type=Path, metavar="FILE", help="document to put the report into")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="where plots go")
    given = parser.parse_args(arguments)
    try:
        content = read(given.results)
        plots: List[str] = []
        if given.plots:
            home = given.out.resolve().parent if given.out else Path.cwd()
            drawn = draw_all(content, given.plots)
            plots = [Path(os.path.relpath(path.resolve(), home)).as_posix() for path in drawn]
        report = markdown(content, plots)
        if given.out is None:
            print(report, end="")
        else:
            text = given.out.read_text(encoding="utf-8")
            write_whole(given.out, insert(text, content["about"]["kind"], report))
    except (OSError, ValueError) as error:
        print(f"bench.report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
