"""From a schedule of faults that makes a run fail to a short one with round numbers that still does.

Knows schedules and a question to ask about them, and runs nothing itself. Faults are dropped by delta debugging
(Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input, IEEE TSE 2002, algorithm ddmin).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator

from rpcfw.testing.schedule import Fault, Schedule, Targets

Faults = tuple[Fault, ...]

_DURATIONS_S = tuple(round(digit * 10.0**power, 3) for power in range(-3, 5) for digit in (1, 2, 5))
"""What durations are shortened to: round numbers from a millisecond to some hours."""
_DIGITS = (-1, 0, 1, 2)
"""Times are rounded to tens of seconds if that will do, then to seconds, tenths and hundredths."""


def shrink(schedule: Schedule, fails: Callable[[Schedule], bool], *, attempts: int = 200) -> Schedule:
    """Find a simpler schedule that still fails: fewer faults, of fewer hosts, then shorter, then at rounder times.

    Nothing is drawn: the same schedule and the same answers give the same result. No fault ends later than it did.

    Args:
        schedule: one that fails.
        fails: runs the system under a schedule and says whether the failure in question is there again. It is asked
            about each schedule once at most.
        attempts: how often it may be asked; the result is the best one so far.

    Raises:
        ValueError: the schedule that is to be shrunk does not fail itself, so that the failure does not depend on
            seed and schedule alone; or attempts is less than 1.
    """
    if attempts < 1:
        raise ValueError(
            f"attempts={attempts} leaves none to see whether the schedule fails: give at least 1"
        )
    question = _Question(fails, attempts)
    if not question.ask(schedule.faults):
        raise ValueError(f"this schedule does not fail, there is nothing to shrink:\n{schedule}")
    if question.ask(()):
        return Schedule()
    faults = _fewest(schedule.faults, question)
    for index in range(len(faults)):
        faults = _with_fewer_hosts(faults, index, question)
    longer: Faults = ()
    while faults != longer:  # a fault that need not last is often one that has to outlast another
        longer = faults
        for index in range(len(faults)):
            faults = _shorter(faults, index, question)
    faults = _rounder_together(faults, question)
    for index in range(len(faults)):
        faults = _rounder(faults, index, question)
    return Schedule(faults)


class _Question:
    """Whether faults fail, asked once for each schedule; the answer is no when there are no attempts left."""

    def __init__(self, fails: Callable[[Schedule], bool], attempts: int) -> None:
        self._fails = fails
        self._left = attempts
        self._answers: dict[Schedule, bool] = {}

    def ask(self, faults: Faults) -> bool:
        schedule = Schedule(faults)
        if schedule not in self._answers:
            if not self._left:
                return False
            self._left -= 1
            self._answers[schedule] = bool(self._fails(schedule))
        return self._answers[schedule]


def _fewest(faults: Faults, question: _Question) -> Faults:
    """Drop faults until each one that is left is needed, if the attempts suffice (ddmin)."""
    parts = 2
    while len(faults) > 1:
        bounds = [len(faults) * part // parts for part in range(parts + 1)]
        slices = [slice(*pair) for pair in itertools.pairwise(bounds)]
        alone = next((faults[part] for part in slices if question.ask(faults[part])), None)
        if alone is not None:
            faults, parts = alone, 2
            continue
        others = (faults[: part.start] + faults[part.stop :] for part in slices)
        without = next((rest for rest in others if question.ask(rest)), None)
        if without is not None:
            faults, parts = without, max(parts - 1, 2)
        elif parts < len(faults):
            parts = min(2 * parts, len(faults))
        else:
            break
    return faults


def _with_fewer_hosts(faults: Faults, index: int, question: _Question) -> Faults:
    """Leave out one host after the other."""
    for host in faults[index].hosts:
        for targets in _without(faults[index], host):
            simpler = _replaced(faults, index, dataclasses.replace(faults[index], targets=targets))
            if question.ask(simpler):
                faults = simpler
    return faults


def _without(fault: Fault, host: str) -> Iterator[Targets]:
    """The targets without a host, where any are left."""
    if fault.kind in ("partition", "one_way"):
        one, other = (tuple(name for name in group if name != host) for group in fault.groups)
        if one and other:
            yield one, other
    elif len(fault.hosts) > 1:
        yield tuple(name for name in fault.hosts if name != host)


def _shorter(faults: Faults, index: int, question: _Question) -> Faults:
    """Search for the shortest round duration that will do, taking it that what fails would fail for longer, too."""
    fault = faults[index]
    durations = [duration_s for duration_s in _DURATIONS_S if duration_s < fault.lasts_s]
    low, high = 0, len(durations)
    while low < high:
        middle = (low + high) // 2
        simpler = _replaced(faults, index, dataclasses.replace(fault, lasts_s=durations[middle]))
        if question.ask(simpler):
            faults, high = simpler, middle
        else:
            low = middle + 1
    return faults


def _rounder_together(faults: Faults, question: _Question) -> Faults:
    """Round when all faults begin; the fewer digits the better."""
    for digits in _DIGITS:
        simpler = tuple(dataclasses.replace(fault, at_s=_floor(fault.at_s, digits)) for fault in faults)
        if question.ask(simpler):
            return simpler
    return faults


def _rounder(faults: Faults, index: int, question: _Question) -> Faults:
    """Round when one fault begins, and how long it lasts."""
    for digits in _DIGITS:
        fault = dataclasses.replace(faults[index], at_s=_floor(faults[index].at_s, digits))
        if question.ask(_replaced(faults, index, fault)):
            faults = _replaced(faults, index, fault)
            break
    for digits in _DIGITS:
        lasts_s = _floor(faults[index].lasts_s, digits)
        if lasts_s > 0.0:
            simpler = _replaced(faults, index, dataclasses.replace(faults[index], lasts_s=lasts_s))
            if question.ask(simpler):
                return simpler
    return faults


def _replaced(faults: Faults, index: int, fault: Fault) -> Faults:
    return (*faults[:index], fault, *faults[index + 1 :])


def _floor(number: float, digits: int) -> float:
    """Round down, so that no fault comes to end later."""
    rounded = round(number, digits)
    return rounded if rounded <= number else round(rounded - 10.0**-digits, digits)
