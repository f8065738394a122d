"""What got slower between two runs, by the ratio to the limit in each run's own rounds, never by absolute figures.

So the two runs may be of two machines, or of one that was busier the second time.
"""

from __future__ import annotations

import dataclasses
import statistics

from benchmarks.catalog import Kind
from benchmarks.plan import Stage
from benchmarks.results import Cell, Results, metric, spread
from benchmarks.tables import Table

_TOLERANCE = 0.05
"""Smaller changes are not named, however still the machine was."""
_UNKNOWN = 0.3
"""Nor smaller ones than this where a run has one round, which says nothing of how far rounds are apart."""


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """A cell of both runs.

    Attributes:
        subject, what: which.
        old, new: the ratios to the limit.
        better: by which part the new one is better; negative where it is worse.
        noise: by which part it may differ with nothing changed: the spreads of the rounds of both runs together.
    """

    subject: str
    what: str
    old: float
    new: float
    better: float
    noise: float

    @property
    def slower(self) -> bool:
        """By more than the noise."""
        return self.better < -self.noise

    @property
    def faster(self) -> bool:
        """By more than the noise."""
        return self.better > self.noise


def changes(old: Results, new: Results) -> list[Change]:
    """Of all that rpcfw did in both runs, the worst first."""
    found = []
    for cell in new.cells:
        before = old.cell(cell.workload, cell.depth, cell.subject)
        if before is None or new.subjects[cell.subject].kind is not Kind.OURS:
            continue
        change = _change(old, before, new, cell)
        if change is not None:
            found.append(change)
    return sorted(found, key=lambda change: change.better)


def _change(old: Results, before: Cell, new: Results, after: Cell) -> Change | None:
    was, now = _ratios(old, before), _ratios(new, after)
    if not was or not now:
        return None
    first, second = statistics.median(was), statistics.median(now)
    if not first or not second:
        return None
    better = (
        second / first - 1 if metric(after.workload, after.depth).higher_is_better else first / second - 1
    )
    noise = max(_TOLERANCE if min(len(was), len(now)) > 1 else _UNKNOWN, spread(was) + spread(now))
    return Change(after.subject, Stage(after.workload, after.depth, 0.0).title, first, second, better, noise)


def _ratios(results: Results, cell: Cell) -> list[float]:
    """To the limit; where a workload has none, its figure is a ratio itself."""
    reference = results.reference(cell)
    if reference is cell:
        return []
    if reference is not None:
        return results.ratios(cell, reference)
    judge = metric(cell.workload, cell.depth)
    if judge.unit != "of the peak":
        return []
    return [judge.value(found) for found in cell.rounds if found is not None]


def table(found: list[Change]) -> Table:
    """What changed by more than the noise, or that nothing did."""
    rows = [
        [
            f"{change.subject}: {change.what}",
            f"{change.old:.3g}x",
            f"{change.new:.3g}x",
            f"{change.better:+.0%}" if change.better < 10 else f"{change.better + 1:,.0f}-fold",
            f"{change.noise:.0%}",
            "SLOWER" if change.slower else "faster",
        ]
        for change in found
        if change.slower or change.faster
    ]
    slower = sum(change.slower for change in found)
    note = f"{len(found)} compared, {slower} slower by more than the rounds of both runs are apart."
    return Table(
        "compared with before",
        ["what", "old, of raw", "new, of raw", "better (+), worse (-)", "noise", ""],
        rows,
        note,
    )
