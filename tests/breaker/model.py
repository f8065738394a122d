"""A breaker beside a simple model of what it should do: the model keeps all that ever happened, and counts it anew."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable

from rpcfw.breaker import Breaker, Recovery, State

KEPT = 400
"""More than any window in the tests holds."""

Trip = Callable[[float, list[tuple[float, bool]]], bool]
"""Whether a closed breaker opens now, from the time and outcome of all calls since it was closed."""


@dataclasses.dataclass(eq=False)
class Outgoing:
    """A call under way."""

    ticket: int
    era: int
    probe: bool
    place_until: float = math.inf
    lost: bool = False


class Modelled:
    """Drives a breaker and checks it after every step.

    The one thing the model takes from the breaker is how long it is open, after checking that it may be so long.
    """

    def __init__(self, breaker: Breaker, recovery: Recovery, trips: Trip) -> None:
        self.now = 1000.0
        self.breaker = breaker
        self.recovery = recovery
        self.trips = trips
        self.state = State.CLOSED
        self.era = 0  # a closed or a half-open time
        self.outcomes: list[tuple[float, bool]] = []
        self.calls: list[Outgoing] = []
        self.retry_at = 0.0
        self.openings = 0
        self.successes = 0
        self.told: list[tuple[State, State, str]] = []
        self.expected: list[tuple[State, State]] = []
        self.changes: collections.Counter[tuple[State, State]] = collections.Counter()
        self.seen = {State.CLOSED: 0, State.OPEN: 0, State.HALF_OPEN: 0}
        self.longest_open_s = 0.0
        breaker.on_change(lambda before, after, why: self.told.append((before, after, why)))

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.check()

    def enter(self) -> bool:
        """Make a call."""
        permitted = self.breaker.permits(self.now)
        ticket = self.breaker.enter(self.now)
        assert bool(ticket) is permitted, "permits() and enter() disagree"
        if self.state is State.OPEN and self.now >= self.retry_at:
            self._go(State.HALF_OPEN)
        if self.state is State.CLOSED:
            assert ticket > 0
            self.calls.append(Outgoing(ticket, self.era, probe=False))
        elif self.state is State.OPEN:
            assert ticket == 0, "an open breaker let a call pass"
        else:
            places = self.places()
            assert (ticket > 0) is (len(places) < self.recovery.probes), f"{len(places)} probes under way"
            if ticket:
                self._give_away_a_place()
                until = self.now + self.recovery.probe_timeout_s
                self.calls.append(Outgoing(ticket, self.era, probe=True, place_until=until))
        self.check()
        return ticket > 0

    def places(self) -> list[Outgoing]:
        """The probes of this half-open time that hold a place."""
        return [
            call for call in self.calls if call.probe and call.era == self.era and call.place_until > self.now
        ]

    def leave(self, index: int, failed: bool | None) -> None:
        """A call ends."""
        under_way = self.under_way()
        call = under_way[index % len(under_way)]
        self.calls.remove(call)
        self.breaker.leave(self.now, call.ticket, failed)
        if failed is not None and call.era == self.era:
            if self.state is State.CLOSED:
                self.outcomes = [*self.outcomes[-KEPT:], (self.now, failed)]
                if self.trips(self.now, self.outcomes):
                    self._open()
            elif self.state is State.HALF_OPEN and failed:
                self._open()
            elif self.state is State.HALF_OPEN:
                self.successes += 1
                if self.successes >= self.recovery.successes_to_close:
                    self.openings = 0
                    self._go(State.CLOSED)
        self.check()

    def lose(self, index: int) -> None:
        """A call ends and nobody tells the breaker, which should not happen. Its place stays taken."""
        under_way = self.under_way()
        under_way[index % len(under_way)].lost = True
        self.check()

    def under_way(self) -> list[Outgoing]:
        """The calls that can still leave."""
        return [call for call in self.calls if not call.lost]

    def check(self) -> None:
        """All that must be true at any time."""
        breaker, now = self.breaker, self.now
        state = self.state
        if state is State.OPEN and now >= self.retry_at:
            state = State.HALF_OPEN
        assert breaker.state(now) is state
        assert (breaker.retry_at(now) > now) is (state is State.OPEN)
        if state is State.OPEN:
            assert breaker.retry_at(now) == self.retry_at
            assert not breaker.permits(now)
        if state is State.CLOSED:
            assert breaker.permits(now)
        assert [(before, after) for before, after, _ in self.told] == self.expected
        assert all(why for _, _, why in self.told)
        self.changes.update(self.expected)
        self.told.clear()
        self.expected.clear()
        assert len(self.places()) <= self.recovery.probes
        self.seen[state] += 1

    def _give_away_a_place(self) -> None:
        """Overdue probes keep their places until these are needed; the first to come is the first to go."""
        probes = [call for call in self.calls if call.probe and call.era == self.era]
        if len(probes) == self.recovery.probes:
            probes[0].era = -1

    def _open(self) -> None:
        recovery = self.recovery
        self._go(State.OPEN)
        self.openings += 1
        self.retry_at = self.breaker.retry_at(self.now)
        open_s = self.retry_at - self.now
        most_s = min(recovery.max_open_s, recovery.open_s * 2.0**self.openings)
        assert max(recovery.open_s, most_s / 2) - 1e-6 <= open_s <= most_s + 1e-6
        self.longest_open_s = max(self.longest_open_s, open_s)

    def _go(self, state: State) -> None:
        self.expected.append((self.state, state))
        self.state = state
        self.era += 1
        self.successes = 0
        self.outcomes = []
        self.calls = [call for call in self.calls if not call.lost]


def after_failures_in_a_row(failures: int) -> Trip:
    """When `ConsecutiveFailures` opens."""
    return lambda now, outcomes: (
        len(outcomes) >= failures and all(failed for _, failed in outcomes[-failures:])
    )


def over_ratio_in_seconds(ratio: float, window_s: float, min_calls: int) -> Trip:
    """When `FailureRatio` opens that looks at seconds."""

    def bucket(at: float) -> int:
        return int(at * (10 / window_s))

    def trips(now: float, outcomes: list[tuple[float, bool]]) -> bool:
        recent = [failed for at, failed in outcomes if bucket(at) > bucket(now) - 10]
        return len(recent) >= min_calls and sum(recent) > 0 and sum(recent) >= ratio * len(recent)

    return trips


def over_ratio_of_calls(ratio: float, last: int, min_calls: int) -> Trip:
    """When `FailureRatio` opens that looks at a number of calls."""

    def trips(now: float, outcomes: list[tuple[float, bool]]) -> bool:
        recent = [failed for _, failed in outcomes[-last:]]
        return len(recent) >= min_calls and sum(recent) > 0 and sum(recent) >= ratio * len(recent)

    return trips
