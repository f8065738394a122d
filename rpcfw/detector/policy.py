"""What a failure detector is: from the times of heartbeats it says how likely it is that a node is gone."""

from __future__ import annotations

from typing import Protocol


class FailureDetector(Protocol):
    """Watches the heartbeats of one node. No clock: the time is passed in, in seconds, and never goes back.

    Before the first heartbeat nothing is known: `suspicion` is 0, and `deadline` is `math.inf`.
    """

    def heartbeat(self, now: float) -> None:
        """A sign of life came at that time. May be told again; one that is no later than the last is no news."""
        ...

    def suspicion(self, now: float) -> float:
        """0 right after a heartbeat, never less later; 1 or more from `deadline` on: the node is taken for gone."""
        ...

    def deadline(self) -> float:
        """When `suspicion` will reach 1 if no heartbeat comes until then; `math.inf` for not at all."""
        ...
