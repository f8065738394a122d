"""Smooth weighted round robin: turns in proportion to weights, those of a heavy node spread out between the others'.

nginx's algorithm (ngx_http_upstream_round_robin.c, 2012): before each pick every node gains credit in the amount of its
weight; the one with the most credit is picked, and pays the sum of all weights.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rpcfw.balancer.policy import Node
from rpcfw.call import Call

GENERATION = 1024
"""After so many picks, the credit of nodes that were not seen in this and the previous generation is forgotten."""
_MAX_SERVICES = 1024


class SmoothWeighted:
    """Weighted turns without bursts: weights 5, 1, 1 give a a b a c a a.

    Each service has turns of its own. Weights are read at each pick, so a growing weight takes effect at once. A node
    that is left out for a while (it was tried already, a router left it out) keeps its credit. Looks at every node.
    """

    def __init__(self) -> None:
        self._services: dict[str, _Turns] = {}

    def pick(self, nodes: Sequence[Node], call: Call) -> Node:
        """The node whose turn it is."""
        turns = self._services.get(call.method.service)
        if turns is None:
            if len(self._services) >= _MAX_SERVICES:
                self._services.clear()
            turns = self._services[call.method.service] = _Turns()
        return turns.pick(nodes)


class _Credit:
    """What one node has gained and not yet paid."""

    __slots__ = ("amount",)

    def __init__(self) -> None:
        self.amount = 0.0


class _Turns:
    """The turns of one service. Nodes are forgotten by generations: what two of them have not seen is gone."""

    __slots__ = ("_credits", "_left", "_nodes", "_older", "_recent", "_rotation")

    def __init__(self) -> None:
        self._nodes: Sequence[Node] = ()
        self._credits: list[_Credit] = []  # those of `_nodes`, in their order
        self._recent: dict[Node, _Credit] = {}
        self._older: dict[Node, _Credit] = {}
        self._left = GENERATION
        self._rotation = 0

    def pick(self, nodes: Sequence[Node]) -> Node:
        self._left -= 1
        if nodes is not self._nodes or self._left <= 0:
            self._look_at(nodes)
        total = 0.0
        most = -sys.float_info.max
        chosen: Node | None = None
        payer: _Credit | None = None
        for node, credit in zip(nodes, self._credits, strict=True):
            weight = node.weight
            if weight > 0:
                total += weight
                credit.amount = amount = credit.amount + weight
                if amount > most:
                    most, chosen, payer = amount, node, credit
        if chosen is None or payer is None:  # all weights are 0: they say nothing
            self._rotation += 1
            return nodes[self._rotation % len(nodes)]
        payer.amount -= total
        return chosen

    def _look_at(self, nodes: Sequence[Node]) -> None:
        recent, older = self._recent, self._older
        if self._left <= 0 or len(recent) > 2 * len(nodes) + GENERATION:
            self._left = GENERATION
            self._older = older = recent
            self._recent = recent = {}
        self._nodes = nodes
        self._credits = [recent.get(node) or older.get(node) or _Credit() for node in nodes]
        recent.update(zip(nodes, self._credits, strict=True))
