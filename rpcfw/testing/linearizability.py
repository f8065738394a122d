"""Linearizability: could the operations of a history each have happened at one moment between call and return?

Histories are divided by key, for linearizability is local (Herlihy and Wing, 1990), and what is wrong is cut down to
what a person can follow. The search itself is `ordering.py`'s, the model of a key-value store `register.py`'s.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace

from rpcfw.testing.history import Operation, freeze, shorten
from rpcfw.testing.ordering import MAX_CONFIGURATIONS, Model, Search, return_time
from rpcfw.testing.register import Register

__all__ = ["MAX_CONFIGURATIONS", "Counterexample", "Model", "Verdict", "check_kv", "check_linearizable"]


@dataclass(frozen=True)
class Counterexample:
    """Operations of one key that no order explains, whatever the key's other operations may have done.

    Attributes:
        operations: in order of their calls. Taking any one out, or letting it have happened at any later time or
            never, leaves an order (unless `minimal` is False: then finding out took too long).
        others: how many further operations of the key were free to happen at any time after their call, or never.
        text: the same for a person: the operations, and where the longest order of them ends.
    """

    key: Hashable
    operations: tuple[Operation, ...]
    others: int
    minimal: bool
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Verdict:
    """What became of a history's keys; true when every one is linearizable.

    Attributes:
        checked: how many operations were looked at.
        counterexamples: one for each key that is not linearizable.
        undecided: keys whose search was given up, see `MAX_CONFIGURATIONS`.
    """

    checked: int
    counterexamples: tuple[Counterexample, ...]
    undecided: tuple[Hashable, ...]

    def __bool__(self) -> bool:
        return not self.counterexamples and not self.undecided

    def __str__(self) -> str:
        if self:
            return f"linearizable: {self.checked} operations"
        parts = [str(counterexample) for counterexample in self.counterexamples]
        parts += [f"key {shorten(key)}: undecided, too many orders to try" for key in self.undecided]
        return "\n".join(parts)


def check_kv(history: Iterable[Operation], max_configurations: int = MAX_CONFIGURATIONS) -> Verdict:
    """Check a key-value history: read, write, cas and delete on independent keys, as `Register` has them."""
    return check_linearizable(history, Register(), max_configurations)


def check_linearizable(
    history: Iterable[Operation], model: Model, max_configurations: int = MAX_CONFIGURATIONS
) -> Verdict:
    """Check a history against a model, each key by itself.

    Operations that ended at the very instant another was called count as concurrent with it. Failed operations are
    passed over; unknown ones may have happened at any time after their call, or never.

    Args:
        max_configurations: bounds the memory: a key that needs more is reported as undecided.

    Raises:
        ValueError: an operation is none of the model's.
    """
    parts: dict[Hashable, list[Operation]] = {}
    checked = 0
    for operation in history:
        checked += 1
        if operation.status != "fail":
            parts.setdefault(freeze(operation.key), []).append(operation)
    counterexamples: list[Counterexample] = []
    undecided: list[Hashable] = []
    for key, part in parts.items():
        linearizable = Search(part, model, max_configurations).run()
        if linearizable is None:
            undecided.append(key)
        elif not linearizable:
            minimise = len(counterexamples) < _MAX_MINIMISED
            counterexamples.append(_explain(key, part, model, _EXPLAIN_STEPS if minimise else 0))
    return Verdict(checked, tuple(counterexamples), tuple(undecided))


_MAX_MINIMISED = 5
_EXPLAIN_STEPS = 1_000_000
_MAX_SHOWN = 30


def _explain(key: Hashable, part: list[Operation], model: Model, max_steps: int) -> Counterexample:
    """Cut the history after the first return that has no order, then free each operation that is not needed."""
    budget = [max_steps]

    def wrong(known: list[Operation], free: list[Operation]) -> bool:
        weak = [replace(operation, status="unknown", result=None) for operation in free]
        search = Search([*known, *weak], model, MAX_CONFIGURATIONS, budget[0])
        linearizable = search.run()
        budget[0] = int(search.steps_left)
        return linearizable is False

    by_return = sorted((operation for operation in part if operation.status == "ok"), key=return_time)
    low, high = 1, len(by_return)  # the prefix of `high` returns is wrong, that of `low - 1` not known to be
    while low < high and budget[0] > 0:
        middle = (low + high) // 2
        if wrong(*_prefix(part, by_return, middle)):
            high = middle
        else:
            low = middle + 1
    needed, free = _prefix(part, by_return, high)
    culprit = needed.pop()
    needed.sort(key=model.only_reads, reverse=True)  # what was written tells more than who else has read it
    chunk = max(1, len(needed) // 2)
    while needed and budget[0] > 0:
        start = 0
        while start < len(needed) and budget[0] > 0:
            trial = needed[:start] + needed[start + chunk :]
            if wrong([*trial, culprit], free + needed[start : start + chunk]):
                needed, free = trial, free + needed[start : start + chunk]
            else:
                start += chunk
        if chunk == 1:
            break
        chunk //= 2
    needed = sorted([*needed, culprit], key=lambda operation: operation.called)
    return Counterexample(key, tuple(needed), len(free), budget[0] > 0, _tell(key, needed, free, model))


def _prefix(
    part: list[Operation], by_return: list[Operation], count: int
) -> tuple[list[Operation], list[Operation]]:
    """The history as it stood at the `count`-th return: what was known then, in order of return, and what was not."""
    end = return_time(by_return[count - 1])
    known = by_return[:count]
    returned = set(map(id, known))
    return known, [
        operation for operation in part if operation.called <= end and id(operation) not in returned
    ]


def _tell(key: Hashable, needed: list[Operation], free: list[Operation], model: Model) -> str:
    lines = [f"key {shorten(key)}: no order explains these {len(needed)} operations:"]
    if free:
        lines[0] = lines[0][:-1] + f", whenever the other {len(free)} took effect, if at all:"
    if len(needed) > _MAX_SHOWN:
        lines.append(f"  .. {len(needed) - _MAX_SHOWN} earlier ones")
    lines += [f"  {operation}" for operation in needed[-_MAX_SHOWN:]]
    weak = [replace(operation, status="unknown", result=None) for operation in free]
    search = Search([*needed, *weak], model, MAX_CONFIGURATIONS, _EXPLAIN_STEPS)
    search.run(keep_longest=True)
    ordered = set(map(id, search.longest))
    left = [operation for operation in needed if id(operation) not in ordered]
    if search.longest:
        lines.append("the longest order that can be:")
        lines += [f"  {operation}" for operation in search.longest[-_MAX_SHOWN:]]
        lines.append(f"leaves the state {search.longest_state}, in which there is no place for:")
    else:
        lines.append(f"in the first state, {search.longest_state}, there is no place for:")
    lines += [f"  {operation}" for operation in left[:_MAX_SHOWN]]
    return "\n".join(lines)
