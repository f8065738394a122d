"""The plots of docs/balancing.md, drawn from the committed results of `benchmarks.balancers`: plain SVG, no library.

Two drawings with a row for each policy. There is no background, and every colour reads on white as on black. To draw
them anew after a new run:

    python -m benchmarks.balancers --cost --json benchmarks/results/balancers.json
    python -m benchmarks.plots
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "balancers.json"
SHARES = ROOT / "docs" / "balancing-shares.svg"
LATENCIES = ROOT / "docs" / "balancing-latencies.svg"

GOOD, BAD, GREY = "#3f7fd0", "#d9730d", "#768390"
_FONT = "system-ui, -apple-system, Segoe UI, Helvetica, Arial, DejaVu Sans, sans-serif"
_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _BOTTOM = 760, 160, 160, 74, 30, 46


@dataclasses.dataclass(frozen=True, slots=True)
class Axis:
    """A linear scale from 0 to `end`, with a line at each of `ticks`."""

    end: float
    ticks: Sequence[float]
    unit: str

    def x(self, value: float) -> float:
        return _LEFT + value / self.end * (_WIDTH - _LEFT - _RIGHT)


@dataclasses.dataclass(frozen=True, slots=True)
class Legend:
    """What the two colours stand for, and what the numbers on the right are."""

    good: str
    bad: str
    numbers: str


Row = tuple[str, str, Callable[[Axis, float], list[str]]]
"""A policy's name, the numbers on its right, and what is drawn at a height between the two."""


def shares(document: Mapping[str, Any]) -> str:
    """Which share of the calls each server got."""
    results = ordered(document)
    setting = document["setting"]
    rows: list[Row] = []
    for result in results:
        *fast, slow = (share * 100 for share in result["shares"])
        rows.append(
            (
                result["policy"],
                f"{min(fast):.0f} to {max(fast):.0f} % · {slow:.1f} %",
                _range_and_dot(min(fast), max(fast), slow),
            )
        )
    title = f"Share of calls: {setting['servers']} servers, one {setting['slow']:g} times slower"
    legend = Legend("each of the fast servers", "the slow server", "fast · slow")
    return _drawing(title, legend, Axis(30, range(0, 31, 5), "%"), rows)


def latencies(document: Mapping[str, Any]) -> str:
    """How long calls took."""
    results = ordered(document)
    setting = document["setting"]
    rows: list[Row] = [
        (
            result["policy"],
            f"{result['p50_ms']:.1f} · {result['p99_ms']:.0f} ms",
            _two_dots(result["p50_ms"], result["p99_ms"]),
        )
        for result in results
    ]
    title = f"Latency: {setting['servers']} servers, one {setting['slow']:g} times slower"
    legend = Legend("p50: half take longer", "p99: one in a hundred takes longer", "p50 · p99")
    return _drawing(title, legend, Axis(300, range(0, 301, 50), "ms"), rows)


def ordered(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The results, the best p99 last; both plots and the table of the page have this order."""
    return sorted(document["results"], key=lambda result: -float(result["p99_ms"]))


def _range_and_dot(least: float, most: float, dot: float) -> Callable[[Axis, float], list[str]]:
    def draw(axis: Axis, y: float) -> list[str]:
        x, width = axis.x(least) - 5, axis.x(most) - axis.x(least) + 10
        return [
            f'<rect x="{x:.1f}" y="{y - 5:g}" width="{width:.1f}" height="10" rx="5" fill="{GOOD}"/>',
            f'<circle cx="{axis.x(dot):.1f}" cy="{y:g}" r="6" fill="{BAD}"/>',
        ]

    return draw


def _two_dots(first: float, second: float) -> Callable[[Axis, float], list[str]]:
    def draw(axis: Axis, y: float) -> list[str]:
        one, two = axis.x(first), axis.x(second)
        return [
            f'<path d="M{one:.1f} {y:g} H{two:.1f}" stroke="{BAD}" stroke-width="3" stroke-opacity="0.55"/>',
            f'<circle cx="{one:.1f}" cy="{y:g}" r="6" fill="{GOOD}"/>',
            f'<circle cx="{two:.1f}" cy="{y:g}" r="6" fill="{BAD}"/>',
        ]

    return draw


def _drawing(title: str, legend: Legend, axis: Axis, rows: Sequence[Row]) -> str:
    height = _TOP + _ROW * len(rows) + _BOTTOM
    foot = height - _BOTTOM + 4
    said = "; ".join(f"{name} {numbers}" for name, numbers, _ in rows)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-labelledby="title desc" font-family="{_FONT}">',
        f'  <title id="title">{title}</title>',
        f'  <desc id="desc">{legend.numbers}: {said}.</desc>',
        f"  <style>text {{ fill: {GREY}; font-size: 14px }} .title {{ font-size: 16px; font-weight: 600 }} "
        ".small { font-size: 12.5px } .end { text-anchor: end } .mid { text-anchor: middle }</style>",
        f'  <text class="title" x="20" y="26">{title}</text>',
        f'  <circle cx="27" cy="48" r="6" fill="{GOOD}"/>',
        f'  <text class="small" x="40" y="52">{legend.good}</text>',
        f'  <circle cx="247" cy="48" r="6" fill="{BAD}"/>',
        f'  <text class="small" x="260" y="52">{legend.bad}</text>',
        f'  <text class="small end" x="{_WIDTH - 12}" y="52">{legend.numbers}</text>',
    ]
    for tick in axis.ticks:
        x = axis.x(tick)
        lines.append(f'  <path d="M{x:.1f} {_TOP - 8} V{foot}" stroke="{GREY}" stroke-opacity="0.3"/>')
        lines.append(f'  <text class="small mid" x="{x:.1f}" y="{foot + 18}">{tick:g} {axis.unit}</text>')
    for number, (name, numbers, draw) in enumerate(rows):
        y = _TOP + _ROW * number + _ROW / 2 - 4
        lines.append(f'  <text class="end" x="{_LEFT - 16}" y="{y + 5:g}">{name}</text>')
        lines += [f"  {shape}" for shape in draw(axis, y)]
        lines.append(f'  <text class="small end" x="{_WIDTH - 12}" y="{y + 5:g}">{numbers}</text>')
    return "\n".join([*lines, "</svg>", ""])


def main() -> None:
    document = json.loads(RESULTS.read_text(encoding="utf-8"))
    for path, draw in ((SHARES, shares), (LATENCIES, latencies)):
        path.write_text(draw(document), encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
