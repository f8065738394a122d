"""What a router works out about a sequence of nodes, kept while that sequence is in use.

Balancers keep things by the identity of a sequence, so a router has to give them the same object for the same nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from rpcfw.balancer.policy import Node

T = TypeVar("T")

MAX_SEQUENCES = 16
GENERATION = 4096


def weighted(nodes: Sequence[Node]) -> Sequence[Node]:
    """The nodes with a registered weight, as those of weight 0 are to get no calls; all when none has one."""
    found = [node for node in nodes if node.endpoint.weight > 0]
    return nodes if len(found) in (0, len(nodes)) else found


class Derived(Generic[T]):
    """Remembers the result of `make` for each of the last `MAX_SEQUENCES` sequences, by identity.

    After `GENERATION` uses those that were not just in use are dropped, so that nodes that are gone are let go.
    """

    __slots__ = ("_known", "_left", "_make")

    def __init__(self, make: Callable[[Sequence[Node]], T]) -> None:
        self._make = make
        self._known: dict[
            int, tuple[Sequence[Node], T]
        ] = {}  # holds the sequence, or its id could come again
        self._left = GENERATION

    def of(self, nodes: Sequence[Node]) -> T:
        """What `make` gives for these nodes."""
        known = self._known.get(id(nodes))
        if known is None:
            if len(self._known) >= MAX_SEQUENCES:
                del self._known[next(iter(self._known))]
            known = self._known[id(nodes)] = (nodes, self._make(nodes))
        self._left -= 1
        if self._left <= 0:
            self._left = GENERATION
            self._known = {id(nodes): known}
        return known[1]
