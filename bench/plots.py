"""Plots of a file of results: ratios by H and N, times against their limits, and scaling."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

from bench.report import Row, names, ratio, seconds

Lines = Dict[str, List[Tuple[float, float]]]
LEAST_POINTS = 3  # of a line


def along(rows: Sequence[Row], size: str, value: Callable[[Row, str], Any]) -> Lines:
    """Lines of `value` by one size, for each peer and everything else that rows share."""
    lines: Lines = defaultdict(list)
    for row in rows:
        sizes = row["sizes"]
        if sizes["task"] != "layer":
            continue
        others = {**sizes, size: None}
        if size == "hidden" and sizes["inputs"] == sizes["hidden"]:
            others["inputs"] = "H"
        label = _label(others)
        for name in names(rows):
            found = value(row, name)
            if found is not None:
                lines[f"{name}: {label}"].append((sizes[size], found))
    return {label: sorted(points) for label, points in lines.items() if len(points) >= LEAST_POINTS}


def _label(sizes: Row) -> str:
    words = [sizes["cell"], f"{sizes['layers']} layers", "train" if sizes["train"] else "infer"]
    letters = {"inputs": "I", "hidden": "H", "batch": "N", "steps": "T"}
    words += [f"{letter}={sizes[key]}" for key, letter in letters.items() if sizes[key] is not None]
    words += [key for key in ("bidirectional", "ragged", "hybridize") if sizes[key]]
    words.append("tf32" if sizes["tf32"] else sizes["dtype"])
    return " ".join(words)


def _ratio(row: Row, name: str) -> Any:
    return None if name == "fastrnn" else ratio(row, name)


def _seconds(row: Row, name: str) -> Any:
    return seconds(row["peers"].get(name, {}))


def draw_all(content: Dict[str, Any], folder: Path) -> List[Path]:
    """Write the plots for which there are rows, and return their paths."""
    import matplotlib

    matplotlib.use("Agg")
    rows, kind = content["rows"], content["about"]["kind"]
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [
        ("ratio_by_hidden", along(rows, "hidden", _ratio), "H", "time / fastrnn's"),
        ("ratio_by_batch", along(rows, "batch", _ratio), "N", "time / fastrnn's"),
        ("time_by_batch", along(rows, "batch", _seconds), "N", "seconds"),
        ("time_by_steps", along(rows, "steps", _seconds), "T", "seconds"),
    ]
    drawn = [
        _lines(folder / f"{kind}_{name}.svg", lines, x, y) for name, lines, x, y in wanted if lines
    ]
    return [*drawn, _against_limit(folder / f"{kind}_time_against_limit.svg", rows)]


def _new(x: str, y: str) -> Tuple[Any, Any]:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    axes.set(xlabel=x, ylabel=y, xscale="log", yscale="log")
    axes.grid(True, which="both", alpha=0.3)
    return figure, axes


def _save(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot

    unfinished = path.with_name("unfinished_" + path.name)
    figure.savefig(unfinished, bbox_inches="tight", metadata={"Date": None})
    unfinished.replace(path)
    pyplot.close(figure)
    return path


def _lines(path: Path, lines: Lines, x: str, y: str) -> Path:
    figure, axes = _new(x, y)
    for label, points in lines.items():
        axes.plot(*zip(*points), marker="o", label=label)
    if y.startswith("time /"):
        axes.axhline(1.0, color="black", linewidth=1)
    axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    return _save(figure, path)


def _against_limit(path: Path, rows: Sequence[Row]) -> Path:
    figure, axes = _new("limit, seconds", "time, seconds")
    for name in names(rows):
        points = [(row["limit"], _seconds(row, name)) for row in rows]
        points = [(limit, found) for limit, found in points if found is not None]
        axes.scatter(*zip(*points), label=name, s=16)
    ends = [min(row["limit"] for row in rows), max(row["limit"] for row in rows)]
    axes.plot(ends, ends, color="black", linewidth=1, label="the limit")
    axes.legend()
    return _save(figure, path)
