"""The breaker that opens after so many failures in a row, as Finagle's failure accrual and TarsGo do.

For nodes that die outright. One that fails now and then is the business of `FailureRatio`.
"""

from __future__ import annotations

import random

from rpcfw.breaker.circuit import DEFAULT_RECOVERY, Circuit, Recovery
from rpcfw.breaker.policy import Listener, State


class ConsecutiveFailures:
    """Opens when `failures` calls in a row have failed; a success in between begins the count anew.

    Args:
        failures: at least 1.
        recovery: how it closes again.
        rng: source of the jitter of the time it stays open.
    """

    __slots__ = ("_circuit", "_failures", "_streak")

    def __init__(
        self, failures: int = 5, *, recovery: Recovery = DEFAULT_RECOVERY, rng: random.Random | None = None
    ) -> None:
        if failures < 1:
            raise ValueError(f"failures={failures!r} must be at least 1")
        self._failures = failures
        self._streak = 0
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
        elif failed:
            self._streak += 1
            if self._streak >= self._failures:
                streak, self._streak = self._streak, 0
                circuit.open(now, f"calls that failed in a row: {streak}")
        elif failed is False:
            self._streak = 0

    def retry_at(self, now: float) -> float:
        """When calls will pass again."""
        return self._circuit.retry_at(now)

    def on_change(self, listener: Listener | None) -> None:
        """Tell this listener of changes."""
        self._circuit.listener = listener
