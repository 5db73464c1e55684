"""Makes Markdown and plots of a file of results.

    python -m bench.report results.json [--out docs/benchmarks.md] [--plots FOLDER]

Markdown goes to the standard output, or between the marks of a file: ``<!-- cpu -->`` or
``<!-- cuda -->``, and ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

sys.path.append(str(Path(__file__).resolve().parents[1]))
from bench.results import read

Row = Dict[str, Any]
KEYS = ("device", "driver", "commit", "date", "Python", "threads")


def number(value: Optional[float], digits: int = 3) -> str:
    """Three digits that count, and no exponent."""
    if value is None:
        return ""
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e" in text else text


def names(rows: Sequence[Row]) -> List[str]:
    """Who has a time in some row, fastrnn first."""
    timed = [n for row in rows for n, entry in row["peers"].items() if "seconds" in entry]
    return sorted(set(timed), key=lambda name: (name != "fastrnn", timed.index(name)))


def seconds(entry: Row) -> Optional[float]:
    """The shorter of a call's and of its replayed graph's time, if it has any."""
    found = [entry[key] for key in ("seconds", "graph_seconds") if key in entry]
    return min(found) if found else None


def ratio(row: Row, name: str) -> Optional[float]:
    """How many times as long as fastrnn someone takes."""
    ours = seconds(row["peers"].get("fastrnn", {}))
    theirs = seconds(row["peers"].get(name, {}))
    return None if ours is None or theirs is None else theirs / ours


def _cell(entry: Optional[Row]) -> str:
    if entry is None:
        return ""
    if "seconds" not in entry:
        return {"wrong": "wrong", "missing": "missing"}.get(entry["status"], "none")
    spread = (entry["high"] - entry["low"]) / entry["seconds"] / 2
    text = f"{number(entry['seconds'] * 1e3)} ±{spread:.0%}"
    if "graph_seconds" in entry:
        text += f" ({number(entry['graph_seconds'] * 1e3)})"
    return text


def table(rows: Sequence[Row]) -> List[str]:
    """Lines of Markdown: a row of the grid in each."""
    everyone = names(rows)
    others = [name for name in everyone if name != "fastrnn"]
    head = ["case", *(f"{name}, ms" for name in everyone), *(f"{n} / fastrnn" for n in others)]
    head += ["limit, ms", "set by", "reached", "peak MiB"]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for row in rows:
        entries = row["peers"]
        cells = [row["case"], *(_cell(entries.get(name)) for name in everyone)]
        cells += [number(ratio(row, name)) for name in others]
        ours = entries.get("fastrnn", {})
        reached = f"{ours['fraction']:.0%}" if "fraction" in ours else ""
        peaks = [number(entries.get(n, {}).get("peak_mib"), 4) or "–" for n in everyone]
        cells += [number(row["limit"] * 1e3), row["bound"], reached, " / ".join(peaks)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def losses(rows: Sequence[Row]) -> List[str]:
    """Each row in which someone is faster than fastrnn."""
    lines = []
    for row in rows:
        for name in names(rows):
            found = ratio(row, name)
            if name != "fastrnn" and found is not None and found < 1:
                lines.append(f"- {row['case']}: {name} takes {found:.0%} of fastrnn's time")
    return lines


def wrong(rows: Sequence[Row]) -> List[str]:
    """Each result that differs from the reference, which is why it has no time."""
    return [
        f"- {row['case']}: {name}: {entry['reason']}"
        for row in rows
        for name, entry in row["peers"].items()
        if entry["status"] == "wrong"
    ]


def markdown(content: Dict[str, Any], plots: Sequence[str] = ()) -> str:
    """The report on a file of results."""
    about, rows = content["about"], content["rows"]
    facts = [f"{key} {about[key]}" for key in KEYS if key in about]
    facts += [f"{name} {version}" for name, version in about["versions"].items()]
    lines = ["; ".join(facts) + ".", ""]
    if about.get("note"):
        lines += [about["note"], ""]
    lines += table(rows)
    missing = [f"{name} ({reason})" for name, reason in about["missing"].items()]
    lines += ["", "Did not take part: " + ("; ".join(missing) or "nobody") + "."]
    slower = losses(rows)
    lines += ["", "Where fastrnn is slower:" if slower else "Nobody was faster in any row."]
    lines += [*([""] if slower else []), *slower]
    differing = wrong(rows)
    if differing:
        lines += ["", "Not timed, as the result was wrong:", "", *differing]
    for plot in plots:
        lines += ["", f"![{Path(plot).stem}]({plot})"]
    return "\n".join(lines) + "\n"


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
            from bench.plots import draw_all

            drawn = draw_all(content, given.plots)
            home = (given.out or Path()).resolve().parent if given.out else Path.cwd()
            plots = [Path(os.path.relpath(path.resolve(), home)).as_posix() for path in drawn]
        report = markdown(content, plots)
        if given.out is None:
            print(report, end="")
            return 0
        text = insert(given.out.read_text(encoding="utf-8"), content["about"]["kind"], report)
    except (OSError, ValueError) as error:
        print(f"bench.report: {error}", file=sys.stderr)
        return 2
    unfinished = given.out.with_name(given.out.name + ".part")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
