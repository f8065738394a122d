"""What happens to the nodes of a client, as values: for logs, metrics and live tables."""

from __future__ import annotations

import dataclasses
import enum
import logging
from collections.abc import Callable

logger = logging.getLogger("rpcfw.cluster")


class EventKind(enum.Enum):
    """What happened."""

    ADDED = "added"
    """The registry lists a node that was not known."""
    REMOVED = "removed"
    """A node is used no more: the registry lists it no longer, or lists it elsewhere."""
    UP = "up"
    """A node is connected and takes calls."""
    DOWN = "down"
    """A node was lost, cannot be reached, or missed its heartbeats."""
    DRAINING = "draining"
    """A server says that it is going; it gets no new calls."""
    RESTARTED = "restarted"
    """Another run of the server is at the endpoint; what was known of the last one is forgotten."""
    HEALTH = "health"
    """A server says which of its services do badly, or that all do well again."""
    EJECTED = "ejected"
    """A node's calls go so badly that it gets none for a while."""
    RETURNED = "returned"
    """An ejected node gets calls again."""
    BREAKER = "breaker"
    """A circuit breaker opened, half-opened or closed."""
    PANIC = "panic"
    """So many nodes are ejected that ejection is not believed, or no longer so."""
    REGISTRY = "registry"
    """The registry cannot be reached, or can again."""


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Attributes:
        at: seconds of the loop's clock.
        kind: what sort of thing.
        endpoint: the node's address; empty where no single node is meant.
        service: the service it is about; empty where it is about all of them.
        reason: why, in words.
    """

    at: float
    kind: EventKind
    endpoint: str
    service: str
    reason: str

    def __str__(self) -> str:
        about = " ".join(part for part in (self.service, self.endpoint) if part)
        return f"{about} {self.kind.value}: {self.reason}" if self.reason else f"{about} {self.kind.value}"


Listener = Callable[[Event], None]
"""Is told of each event, on the loop; must not block, and must not raise."""

_QUIET = (EventKind.ADDED, EventKind.UP, EventKind.RESTARTED, EventKind.RETURNED)


def log_event(event: Event) -> None:
    """The listener that there is unless another is given: a line in the log ``rpcfw.cluster``."""
    logger.log(logging.DEBUG if event.kind in _QUIET else logging.INFO, "%s", event)
