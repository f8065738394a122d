"""The search for an order of operations on one object that every result and the clients' clocks agree with.

Wing and Gong's algorithm ("Testing and verifying concurrent objects", 1993) with Lowe's memoisation ("Testing for
linearizability", 2017). It knows an object only as a `Model`; histories, keys and verdicts are `linearizability.py`'s.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator
from typing import NamedTuple, Protocol

from rpcfw.testing.history import Operation, freeze

MAX_CONFIGURATIONS = 1_000_000
"""Configurations remembered for one key before it is given up as undecided: some 300 MB."""


class Model(Protocol):
    """What the operations do when they happen one after another. Deterministic; it keeps nothing between calls."""

    def initial(self) -> Hashable:
        """The state before any operation."""
        ...

    def step(self, state: Hashable, operation: Operation) -> Hashable | None:
        """The state after the operation, or None where its result cannot be; a state itself is never None.

        The result counts only when the status is ok: of an unknown operation nobody saw it.
        """
        ...

    def only_reads(self, operation: Operation) -> bool:
        """Whether, with this result, it leaves every state as it is; False is always safe, True is faster.

        Asked once of every operation before any `step`, so that it is the place to refuse what is none of the model's.
        """
        ...


class _Configuration(NamedTuple):
    """What is ordered so far: all known operations below `base`, those of `window` above it, the unknown `taken`.

    When the last of them is an unknown one, `last` is true and `before` the state it found.
    """

    base: int
    window: int
    taken: int
    state: Hashable
    last: bool
    before: Hashable


class Search:
    """One depth-first search for an order, with its own stack, over configurations that are values.

    Three things hold Lowe's set of configurations down. What led nowhere leads nowhere with more of the unknown ones
    used up. An operation that only reads is ordered as soon as it can be. An unknown operation is not ordered where
    the next one leaves no trace of it, for the same order without it will do.
    """

    def __init__(
        self,
        operations: Iterable[Operation],
        model: Model,
        max_configurations: int,
        max_steps: float = math.inf,
    ) -> None:
        ordered = sorted(operations, key=lambda operation: operation.called)
        self.model = model
        self.known = [operation for operation in ordered if operation.status == "ok"]
        self.unknown = [
            operation
            for operation in ordered
            if operation.status == "unknown" and not model.only_reads(operation)
        ]
        self.max_configurations = max_configurations
        self.steps_left = max_steps
        self.longest: list[Operation] = []
        """The most known operations that could be ordered, with the unknown ones among them; when asked for."""
        self.longest_state = model.initial()
        self._called = [operation.called for operation in self.known]
        self._returned = [return_time(operation) for operation in self.known]
        self._reads = [model.only_reads(operation) for operation in self.known]
        self._twin = _twins(self.unknown)

    def run(self, keep_longest: bool = False) -> bool | None:
        """Whether there is an order, None when it was not found out within the limits."""
        start = _Configuration(0, 0, 0, self.model.initial(), False, None)
        seen: dict[_Configuration, list[int]] = {}
        remembered = 0
        stack = [self._moves(start)]
        path: list[Operation] = []
        most = 0
        while stack:
            move = next(stack[-1], None)
            if move is None:
                stack.pop()
                if path:
                    path.pop()
                continue
            operation, configuration = move
            if configuration.base == len(self.known):
                return True
            taken = configuration.taken
            tried = seen.setdefault(configuration._replace(taken=0), [])
            if any(not fewer & ~taken for fewer in tried):
                continue
            if remembered >= self.max_configurations or self.steps_left <= 0:
                return None
            remembered += 1
            tried.append(taken)
            stack.append(self._moves(configuration))
            path.append(operation)
            if keep_longest and configuration.base + configuration.window.bit_count() > most:
                most = configuration.base + configuration.window.bit_count()
                self.longest, self.longest_state = path.copy(), configuration.state
        return not self.known

    def _candidates(self, base: int, window: int) -> tuple[list[int], float]:
        """The known operations that may come next, and the time before which an unknown one must be called to."""
        found: list[int] = []
        first_return = math.inf
        index = base
        while index < len(self.known) and self._called[index] <= first_return:
            if not window & 1:
                found.append(index)
                first_return = min(first_return, self._returned[index])
            window >>= 1
            index += 1
        return found, first_return

    def _moves(self, at: _Configuration) -> Iterator[tuple[Operation, _Configuration]]:
        found, first_return = self._candidates(at.base, at.window)
        legal: list[tuple[int, Hashable]] = []
        for index in found:
            operation = self.known[index]
            after = self._step(at.state, operation)
            if after is None or self._needless(at, operation, after):
                continue
            if self._reads[index]:
                legal = [(index, after)]
                break
            legal.append((index, after))
        legal.sort(key=lambda move: self._returned[move[0]])  # who returned first mostly came first
        for index, after in legal:
            base, window = _take(at.base, at.window, index)
            yield self.known[index], _Configuration(base, window, at.taken, after, False, None)
        if legal and self._reads[legal[0][0]]:
            return
        for index, operation in enumerate(self.unknown):
            if operation.called > first_return:
                break
            twin = self._twin[index]
            if at.taken >> index & 1 or (twin >= 0 and not at.taken >> twin & 1):
                continue
            after = self._step(at.state, operation)
            if after is None or after == at.state or self._needless(at, operation, after):
                continue
            yield operation, _Configuration(at.base, at.window, at.taken | 1 << index, after, True, at.state)

    def _step(self, state: Hashable, operation: Operation) -> Hashable | None:
        self.steps_left -= 1
        return self.model.step(state, operation)

    def _needless(self, at: _Configuration, operation: Operation, after: Hashable) -> bool:
        """Whether the unknown operation just ordered left no trace, with this one directly after it."""
        return at.last and self._step(at.before, operation) == after


def _take(base: int, window: int, index: int) -> tuple[int, int]:
    window |= 1 << (index - base)
    ordered = (~window & (window + 1)).bit_length() - 1  # the ones at its low end
    return base + ordered, window >> ordered


def return_time(operation: Operation) -> float:
    """When an ok operation returned."""
    if operation.returned is None:
        raise ValueError(f"{operation} is ok but has no time of return; an operation without one is unknown")
    return operation.returned


def _twins(operations: list[Operation]) -> list[int]:
    """For each operation the one before that does the same, or -1: of the same, the earliest can always stand in."""
    last: dict[Hashable, int] = {}
    twins: list[int] = []
    for index, operation in enumerate(operations):
        same = (operation.op, freeze(operation.args))
        twins.append(last.get(same, -1))
        last[same] = index
    return twins
