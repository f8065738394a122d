"""Round robin: the nodes in turn, those out of reach passed over."""

from __future__ import annotations

from collections.abc import Sequence

from rpcfw.balancer.policy import Node
from rpcfw.call import Call


class RoundRobin:
    """Each node in turn. With no node available, still the next one, so that a call can find it recovered."""

    def __init__(self) -> None:
        self._next = 0

    def pick(self, nodes: Sequence[Node], call: Call) -> Node:
        """The next node in turn that is available."""
        count, start = len(nodes), self._next
        for step in range(count):
            index = (start + step) % count
            if nodes[index].available:
                self._next = index + 1
                return nodes[index]
        self._next = start + 1
        return nodes[start % count]
