"""Shortest response: the node whose answer is expected first, by its mean latency and the calls it has in progress.

Dubbo's ``shortestresponse``: the mean of successful calls in a sliding window (30 s) times calls in progress, and among
equals by weight.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence

from rpcfw.balancer.policy import Node
from rpcfw.call import Call
from rpcfw.chance import new_rng

REFRESH_S = 0.1
"""How long a mean is used before it is computed again."""
_UNKNOWN_S = 1e6
"""Stands for the mean of a node that has only failed: worse than any other."""


class ShortestResponse:
    """The node with the lowest mean latency x (calls in progress + 1), divided by the share of calls that succeed.

    A node without a call in the window is given one at once, and no second one while others answer; so one that was
    left out for being slow is tried again once its slow calls have left the window. Among equals by chance, in
    proportion to weights; one of weight 0 gets none. Looks at every node. A client with many peers does better with
    `PowerOfTwo`: all clients see the same node as the best.

    Args:
        rng: the source of chance.
        clock: seconds, never going back; the running loop's unless given.
    """

    def __init__(self, *, rng: random.Random | None = None, clock: Callable[[], float] | None = None) -> None:
        self._random = (rng or new_rng()).random
        self._clock = clock or _loop_time
        self._means: dict[Node, float] = {}
        self._refresh_at = -math.inf

    def pick(self, nodes: Sequence[Node], call: Call) -> Node:
        """The node that is expected to answer first."""
        if len(nodes) == 1:
            return nodes[0]
        now = self._clock()
        means = self._means
        if now >= self._refresh_at:
            means.clear()
            self._refresh_at = now + REFRESH_S
        shortest = math.inf
        equals: list[Node] = []
        for node in nodes:
            if node.weight <= 0:
                continue
            mean_s = means.get(node)
            if mean_s is None:
                mean_s = means[node] = _mean_s(node, now)
            in_flight = node.in_flight
            if mean_s or not in_flight:
                expected_s = mean_s * (in_flight + 1)
            else:
                expected_s = _UNKNOWN_S * (in_flight + 1)
            if expected_s < shortest:
                shortest, equals = expected_s, [node]
            elif expected_s == shortest:
                equals.append(node)
        if len(equals) == 1:
            return equals[0]
        return self._one_of(equals or nodes)

    def _one_of(self, nodes: Sequence[Node]) -> Node:
        rest = self._random() * sum(node.weight for node in nodes)
        for node in nodes:
            rest -= node.weight
            if rest < 0:
                return node
        return nodes[int(self._random() * len(nodes))]  # all weights are 0


def _mean_s(node: Node, now: float) -> float:
    """What a success takes on the average, the failures before it included; 0 when nothing is known."""
    successes, failures, mean_s = node.statistics.window(now)
    if successes:
        return mean_s * (successes + failures) / successes
    return _UNKNOWN_S if failures else 0.0


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
