"""Weighted random: each node by chance, in proportion to its weight."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from rpcfw.balancer.policy import Node
from rpcfw.call import Call
from rpcfw.chance import new_rng


class WeightedRandom:
    """Each node by chance, in proportion to its weight; evenly when all weights are 0. Remembers nothing.

    Args:
        rng: the source of chance.
    """

    def __init__(self, *, rng: random.Random | None = None) -> None:
        self._random = (rng or new_rng()).random

    def pick(self, nodes: Sequence[Node], call: Call) -> Node:
        """One of the nodes by chance. Weights are read each time, for those of nodes that warm up grow."""
        bounds = list(accumulate([node.weight for node in nodes]))
        if bounds[-1] <= 0:
            return nodes[int(self._random() * len(nodes))]
        # below the total even after rounding, since chance is at most 1 - 2**-53
        return nodes[bisect_right(bounds, self._random() * bounds[-1])]
