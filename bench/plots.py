"""Plots of a file of results: ratios by H and N, times of a step by N, T and limit.

A plot is of one cell and kind of arithmetic, training or inference, so that each has few lines.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from bench.ratios import FAMILY, OURS, merged, ratio, seconds
from bench.results import Row

Lines = Dict[str, List[Tuple[float, float]]]
Value = Callable[[Row, str], Optional[float]]
LEAST_POINTS = 3  # of a line
RIVALS = {"cpu": ("MXNet", "PyTorch"), "cuda": (FAMILY, "PyTorch")}
LIMIT = "limit"
LETTERS = {"layers": "L", "inputs": "I", "hidden": "H", "batch": "N", "steps": "T"}


def along(rows: Sequence[Row], size: str, value: Value, who: Sequence[str]) -> Dict[str, Lines]:
    """Lines of `value` by one size: for each cell and arithmetic, and there for each peer and rest.

    The names of plots, then the labels of lines, then points in order.
    """
    plots: Dict[str, Lines] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        sizes = row["sizes"]
        if sizes["task"] != "layer" or sizes.get("neighbour"):
            continue
        rest = {letter: sizes[key] for key, letter in LETTERS.items() if key != size}
        if size == "hidden" and sizes["inputs"] == sizes["hidden"]:
            rest["I"] = "H"
        words = [f"{letter}={value}" for letter, value in rest.items()]
        words += [key for key in ("bidirectional", "ragged", "hybridize") if sizes[key]]
        for name in who:
            found = value(row, name)
            if found is not None:
                label = f"{name}: {' '.join(words)}"
                plots[_kind(sizes)][label].append((sizes[size], found))
    long_enough = {
        plot: {label: sorted(p) for label, p in lines.items() if len(p) >= LEAST_POINTS}
        for plot, lines in plots.items()
    }
    return {plot: lines for plot, lines in long_enough.items() if lines}


def _kind(sizes: Row) -> str:
    arithmetic = "tf32" if sizes["tf32"] else sizes["dtype"]
    return f"{sizes['cell']}_{arithmetic}_{'train' if sizes['train'] else 'infer'}"


def _ratio(row: Row, name: str) -> Optional[float]:
    found = ratio(row, name)
    return None if found is None else found.value


def _per_step(row: Row, time: float) -> float:
    """Microseconds of one of a layer's steps."""
    return 1e6 * time / row["sizes"]["steps"] / row["sizes"]["layers"]


def _step(row: Row, name: str) -> Optional[float]:
    found = row["limit"] if name == LIMIT else seconds(row, name)
    return None if found is None else _per_step(row, found)


def draw_all(content: Dict[str, Any], folder: Path) -> List[Path]:
    """Write the plots for which there are rows, and return their paths."""
    import matplotlib

    matplotlib.use("Agg")
    rows, kind = [merged(row) for row in content["rows"]], content["about"]["kind"]
    rivals = RIVALS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    step = "microseconds a step and layer"
    wanted: List[Tuple[str, str, Value, Sequence[str], str]] = [
        ("ratio", "hidden", _ratio, rivals, f"time / {OURS}'s"),
        ("ratio", "batch", _ratio, rivals, f"time / {OURS}'s"),
        ("step", "batch", _step, (OURS, *rivals, LIMIT), step),
        ("step", "steps", _step, (OURS, *rivals, LIMIT), step),
    ]
    drawn = []
    for what, size, value, who, axis in wanted:
        for plot, lines in along(rows, size, value, who).items():
            path = folder / f"{kind}_{what}_by_{size}_{plot}.svg"
            drawn.append(_lines(path, lines, LETTERS[size], axis))
    layers = [row for row in rows if row["sizes"]["task"] == "layer"]
    if layers:
        path = folder / f"{kind}_step_against_limit.svg"
        drawn.append(_against_limit(path, layers, (OURS, *rivals)))
    return drawn


def _new(x: str, y: str) -> Tuple[Any, Any]:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    axes.set(xlabel=x, ylabel=y, xscale="log", yscale="log")
    axes.grid(True, which="both", alpha=0.3)
    for axis in (axes.xaxis, axes.yaxis):  # no powers of ten
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("{x:g}")
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
        color = "black" if label.startswith(f"{LIMIT}:") else None
        axes.plot(*zip(*points), marker="o", label=label, color=color)
    if y.startswith("time /"):
        axes.axhline(1.0, color="black", linewidth=1)
    ticks = sorted({point for points in lines.values() for point, _ in points})
    axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
    axes.set_xticks([], minor=True)
    axes.tick_params(axis="x", labelrotation=45)  # 1000 and 1024 are neighbours
    axes.set_title(path.stem.replace("_", " "))
    axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    return _save(figure, path)


def _against_limit(path: Path, rows: Sequence[Row], who: Sequence[str]) -> Path:
    figure, axes = _new("limit, microseconds a step and layer", "time, microseconds")
    limits = [_per_step(row, row["limit"]) for row in rows]
    for name in who:
        points = [(limit, _step(row, name)) for limit, row in zip(limits, rows)]
        points = [point for point in points if point[1] is not None]
        if points:
            axes.scatter(*zip(*points), label=name, s=16)
    ends = [min(limits), max(limits)]
    axes.plot(ends, ends, color="black", linewidth=1, label=f"{OURS}'s limit")
    axes.legend()
    return _save(figure, path)
