"""Round robin: the nodes in turn, those out of reach passed over."""

from __future__ import annotations

from collections.abc import Sequence

from rpcfw.balancer.policy import Node
from rpcfw.call import Call

_MAX_SERVICES = 1024


class RoundRobin:
    """Each node in turn. With no node available, still the next one, so that a call can find it recovered.

    Each service has a turn of its own: otherwise two services that are always called one after the other would share
    out an even number of nodes between them. Of weights only 0 counts: such a node is passed over.
    """

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}

    def pick(self, nodes: Sequence[Node], call: Call) -> Node:
        """The next node in turn that is available."""
        service, turns, count = call.method.service, self._turns, len(nodes)
        turn = turns.get(service, 0)
        if turn >= count:
            turn = 0
        node = nodes[turn]
        if not node.available or node.weight <= 0:
            turn = _next(nodes, turn)
            node = nodes[turn]
        if not turn and len(turns) >= _MAX_SERVICES:
            turns.clear()
        turns[service] = turn + 1
        return node


def _next(nodes: Sequence[Node], start: int) -> int:
    """The number of the next node from there on that is available; else of one of weight 0, else of any."""
    count, idle = len(nodes), -1
    for number in range(start, start + count):
        node = nodes[number % count]
        if node.available:
            if node.weight > 0:
                return number % count
            if idle < 0:
                idle = number % count
    return start if idle < 0 else idle
