"""Least in flight: the node with the fewest calls in progress for its weight. Known as least connections."""

from __future__ import annotations

import random
from collections.abc import Sequence

from rpcfw.balancer.policy import Node
from rpcfw.call import Call
from rpcfw.chance import new_rng


class LeastInFlight:
    """The node with the fewest calls in progress from this client, divided by its weight.

    Among equals by chance, in proportion to their weights, so that an idle fleet too is used as its weights say.
    Looks at every node; for fleets of hundreds `PowerOfTwo` costs less. Remembers nothing.

    Args:
        rng: the source of chance.
    """

    def __init__(self, *, rng: random.Random | None = None) -> None:
        self._random = (rng or new_rng()).random

    def pick(self, nodes: Sequence[Node], call: Call) -> Node:
        """The least busy node."""
        least = float("inf")
        equals: list[Node] = []
        weights: list[float] = []
        for node in nodes:
            weight = node.weight
            if weight <= 0:
                continue
            load = node.in_flight / weight
            if load < least:
                least, equals, weights = load, [node], [weight]
            elif load == least:
                equals.append(node)
                weights.append(weight)
        if len(equals) == 1:
            return equals[0]
        if not equals:  # all weights are 0: they say nothing
            fewest = min(node.in_flight for node in nodes)
            equals = [node for node in nodes if node.in_flight == fewest]
            return equals[int(self._random() * len(equals))]
        rest = self._random() * sum(weights)
        for node, weight in zip(equals, weights, strict=True):
            rest -= weight
            if rest < 0:
                return node
        return equals[-1]
