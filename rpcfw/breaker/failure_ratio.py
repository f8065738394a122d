"""The breaker that opens when too large a share of the latest calls has failed, as Hystrix, Kitex and TarsGo do.

For nodes that fail now and then, which no count of failures in a row would find.
"""

from __future__ import annotations

import random

from rpcfw.breaker.circuit import DEFAULT_RECOVERY, Circuit, Recovery
from rpcfw.breaker.policy import Listener, State
from rpcfw.breaker.window import CallsWindow, SecondsWindow


class FailureRatio:
    """Opens when of the latest calls the share `ratio`, or more, has failed.

    Args:
        ratio: more than 0, at most 1.
        window_s: the latest calls are those of so many seconds; this goes unless `last` is given.
        last: the latest calls are so many, however long ago they were; Kitex takes 200.
        min_calls: with fewer calls in the window it does not judge; at least 1, and no more than `last`.
        recovery: how it closes again.
        rng: source of the jitter of the time it stays open.
    """

    __slots__ = ("_circuit", "_min_calls", "_ratio", "_window", "_within")

    def __init__(
        self,
        ratio: float = 0.5,
        *,
        window_s: float = 10.0,
        last: int | None = None,
        min_calls: int = 20,
        recovery: Recovery = DEFAULT_RECOVERY,
        rng: random.Random | None = None,
    ) -> None:
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio={ratio!r} must be more than 0 and at most 1")
        if min_calls < 1 or (last is not None and not 1 <= min_calls <= last):
            raise ValueError(f"min_calls={min_calls!r} must be at least 1 and no more than last={last!r}")
        self._ratio = ratio
        self._min_calls = min_calls
        self._window = CallsWindow(last) if last is not None else SecondsWindow(window_s)
        self._within = "" if last is not None else f" in {window_s:g} s"
        self._circuit = Circuit(recovery, rng)

    def state(self, now: float) -> State:
        """Where it stands now."""
        return self._circuit.state(now)

    def permits(self, now: float) -> bool:
        """Whether `enter` would let a call pass now."""
        return self._circuit.permits(now)

    def enter(self, now: float) -> int:
        """The ticket of a call, or 0 when it is refused."""
        circuit = self._circuit
        return circuit.ticket if circuit.closed else circuit.enter(now)

    def leave(self, now: float, ticket: int, failed: bool | None) -> None:
        """A call with that ticket has ended."""
        circuit = self._circuit
        if ticket != circuit.ticket or not circuit.closed:
            circuit.leave(now, ticket, failed)
        elif failed is not None:
            self._window.add(now, failed)
            calls, bad = self._window.count(now)
            # at a success too: it may be the one that makes them enough to judge
            if bad and calls >= self._min_calls and bad >= self._ratio * calls:
                self._window.clear()
                circuit.open(now, f"of the last {calls} calls{self._within} {bad} failed")

    def retry_at(self, now: float) -> float:
        """When calls will pass again."""
        return self._circuit.retry_at(now)

    def on_change(self, listener: Listener | None) -> None:
        """Tell this listener of changes."""
        self._circuit.listener = listener
