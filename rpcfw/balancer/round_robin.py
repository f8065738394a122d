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
        self._next: dict[str, int] = {}

    def pick(self, nodes: Sequence[Node], call: Call) -> Node:
        """The next node in turn that is available."""
        service = call.method.service
        start = self._next.get(service, 0)
        if not start and len(self._next) >= _MAX_SERVICES:
            self._next.clear()
        count = len(nodes)
        idle = -1
        for index in range(start, start + count):
            node = nodes[index % count]
            if node.available:
                if node.endpoint.weight > 0:
                    self._next[service] = index % count + 1
                    return node
                if idle < 0:
                    idle = index
        index = (start if idle < 0 else idle) % count
        self._next[service] = index + 1
        return nodes[index]
