"""The plots of docs/benchmarks.md, drawn from a results file: SVG, and PNG for where SVG is not shown.

There is no background, and every colour reads on white as on black.

    python -m benchmarks.figures FILE.json FOLDER
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.catalog import Kind
from benchmarks.plan import LOADS
from benchmarks.results import AWAITED, RPCFW, Cell, Results, Round, load, median_of, metric
from benchmarks.subject import Workload
from benchmarks.tables import times

OURS, PEERS, GREY = "#3f7fd0", "#d9730d", "#768390"
_COLOURS = {Kind.OURS: OURS, Kind.PEER: PEERS, Kind.LIMIT: GREY}
_STYLE = {
    "font.family": "sans-serif",
    "font.size": 10.5,
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.edgecolor": GREY,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "xtick.color": GREY,
    "ytick.color": GREY,
    "grid.color": GREY,
    "grid.alpha": 0.3,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "rpcfw",  # so that the same results give the same file
}
_VARIANT = 0.55
"""Opacity of rpcfw in other than its usual configuration."""
_WIDTH, _ROW, _EDGE = 8.0, 0.27, 0.95
"""Inches: of a figure, of a bar, of what is above and below the bars."""
_BEYOND = 2.0
"""A limit so many times as high as all that is not one is left to the table, or the bars would be too short to read."""


@dataclasses.dataclass(frozen=True, slots=True)
class Panel:
    """One set of bars: every subject at one workload."""

    workload: Workload
    depth: int
    title: str
    axis: str


THROUGHPUT = [Panel(Workload.GET_ORDER, 64, "Calls per second, 64 in flight", "of raw uvloop, awaited")]
LATENCY = [
    Panel(
        Workload.GET_ORDER, 1, "Median latency of a lone call (shorter is better)", "of raw uvloop, awaited"
    )
]
STREAMS = [
    Panel(Workload.SERVER_STREAM, 1, "Small items per second, from the server", "of raw uvloop, batched"),
    Panel(Workload.CLIENT_STREAM, 1, "Small items per second, from the client", "of raw uvloop, batched"),
    Panel(Workload.ORDER_STREAM, 1, "Orders per second, from the server", "of raw uvloop, batched"),
]
PAYLOADS = [
    Panel(Workload.DOWNLOAD, 1, "1 MiB downloads, one at a time", "of blocking sockets"),
    Panel(Workload.UPLOAD, 1, "1 MiB uploads, one at a time", "of blocking sockets"),
]


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw all that the results have figures for; returns the files."""
    pyplot = importlib.import_module("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    written: list[Path] = []
    folder.mkdir(parents=True, exist_ok=True)
    with pyplot.rc_context(_STYLE):
        drawings: dict[str, Callable[[], Any]] = {
            "throughput": lambda: _bars(pyplot, results, THROUGHPUT),
            "latency": lambda: _bars(pyplot, results, LATENCY),
            "streams": lambda: _bars(pyplot, results, STREAMS),
            "payloads": lambda: _bars(pyplot, results, PAYLOADS),
            "offered-load": lambda: _curve(pyplot, results),
        }
        for name, drawing in drawings.items():
            figure = drawing()
            if figure is None:
                continue
            for suffix in ("svg", "png"):
                path = folder / f"benchmark-{name}.{suffix}"
                title = f"rpcfw benchmark of {results.date}: {name.replace('-', ' ')}"
                metadata = (
                    {"Date": None, "Title": title} if suffix == "svg" else {"Software": None, "Title": title}
                )
                figure.savefig(path, transparent=True, dpi=160, metadata=metadata)
                written.append(path)
            pyplot.close(figure)
    return written


def shown(results: Results, panel: Panel) -> tuple[list[Cell], list[Cell]]:
    """The cells of a panel, the best first, and the limits that are beyond the picture."""
    judge = metric(panel.workload, panel.depth)
    cells = sorted(
        results.cells_of(panel.workload, panel.depth), key=judge.median, reverse=judge.higher_is_better
    )
    others = [judge.median(cell) for cell in cells if results.subjects[cell.subject].kind is not Kind.LIMIT]
    reference = next((found for cell in cells if (found := results.reference(cell)) is not None), None)
    if not judge.higher_is_better or not others:
        return cells, []
    beyond = [
        cell
        for cell in cells
        if results.subjects[cell.subject].kind is Kind.LIMIT
        and cell is not reference
        and judge.median(cell) > _BEYOND * max(others)
    ]
    return [cell for cell in cells if cell not in beyond], beyond


def _bars(pyplot: Any, results: Results, panels: Sequence[Panel]) -> Any:
    panels = [panel for panel in panels if results.cells_of(panel.workload, panel.depth)]
    if not panels:
        return None
    counts = [len(shown(results, panel)[0]) for panel in panels]
    heights = [_ROW * count + _EDGE for count in counts]
    figure, grid = pyplot.subplots(
        len(panels),
        1,
        figsize=(_WIDTH, sum(heights)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axes, panel in zip(grid[:, 0], panels, strict=True):
        _panel(axes, results, panel)
    kinds = {"rpcfw": OURS, "peers": PEERS, "limits, with no framework": GREY}
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colour) for colour in kinds.values()]
    figure.legend(handles, list(kinds), loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    return figure


def _panel(axes: Any, results: Results, panel: Panel) -> None:
    judge = metric(panel.workload, panel.depth)
    cells, beyond = shown(results, panel)
    ratios = [results.ratio(cell, results.reference(cell)) or 0.0 for cell in cells]
    colours = [_COLOURS[results.subjects[cell.subject].kind] for cell in cells]
    bars = axes.barh([cell.subject for cell in cells], ratios, height=0.62, color=colours)
    for bar, cell in zip(bars, cells, strict=True):
        if results.subjects[cell.subject].kind is Kind.OURS and cell.subject != RPCFW:
            bar.set_alpha(_VARIANT)
    labels = [
        f"{times(ratio)} · {judge.median(cell):,.0f} {judge.unit}"
        for cell, ratio in zip(cells, ratios, strict=True)
    ]
    axes.bar_label(bars, labels, padding=5, fontsize=9, color=GREY)
    axes.axvline(1.0, color=GREY, linewidth=1, linestyle="--")
    axes.invert_yaxis()
    axes.set_xlim(0, max([*ratios, 1.0]) * 1.28)
    axes.set_title(panel.title, loc="left")
    further = ", ".join(
        f"{cell.subject} {times(results.ratio(cell, results.reference(cell)))}" for cell in beyond
    )
    axes.set_xlabel(panel.axis + (f" (beyond the picture: {further})" if further else ""))
    axes.xaxis.set_major_formatter("{x:g}x")
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _curve(pyplot: Any, results: Results) -> Any:
    figure, axes = pyplot.subplots(figsize=(_WIDTH, 4.2), layout="constrained")
    lines: list[tuple[str, str, Callable[[Round], float | None], str, str]] = [
        (RPCFW, "p99.9", lambda found: found.p999, OURS, ":"),
        (RPCFW, "p99", lambda found: found.p99, OURS, "--"),
        (RPCFW, "p50", lambda found: found.p50, OURS, "-"),
        (AWAITED, "p99", lambda found: found.p99, PEERS, "--"),
        (AWAITED, "p50", lambda found: found.p50, PEERS, "-"),
    ]
    drawn = False
    for subject, name, pick, colour, style in lines:
        points = []
        for percent in LOADS:
            cell = results.cell(Workload.OFFERED_LOAD, percent, subject)
            value = None if cell is None else median_of(cell, pick)
            if value is not None:
                points.append((percent, value))
        if points:
            drawn = True
            percents, values = zip(*points, strict=True)
            axes.plot(
                percents, values, style, color=colour, marker="o", markersize=4, label=f"{subject}, {name}"
            )
    if not drawn:
        pyplot.close(figure)
        return None
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.set_title("Latency over offered load, from when each call was due", loc="left")
    axes.set_xlabel("offered load, % of what the subject does with 64 in flight")
    axes.set_ylabel("microseconds")
    axes.grid(which="both")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.figures", description="The plots of a results file."
    )
    parser.add_argument("file", type=Path, help="what `python -m benchmarks --json` wrote")
    parser.add_argument("folder", type=Path, help="where the plots go")
    arguments = parser.parse_args()
    for path in draw(load(arguments.file), arguments.folder):
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
