"""Least loaded: of two nodes drawn by chance the one whose server says that it has less to do.

The load is what the server's last heartbeat told: handlers running for all of its clients, and how late its event loop
runs, which no client can see from its own calls. Two choices instead of the single best, since heartbeats are seconds
old and every client reads the same (Mitzenmacher, "How Useful Is Old Information?", 2000).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from rpcfw.balancer.policy import Node
from rpcfw.call import Call
from rpcfw.chance import new_rng
from rpcfw.mistakes import check_number

LAG_S = 0.01


class LeastLoaded:
    """Of two nodes by chance, the one with the lower (running + own calls in progress + 1) x (1 + lag) / weight.

    While one of the two has not reported yet, only this client's own calls in progress are compared. A node of weight
    0 gets none. Remembers nothing.

    Args:
        rng: the source of chance.
        lag_s: an event loop that runs so late counts as one with twice as much to do, in seconds, more than 0.
    """

    def __init__(self, *, rng: random.Random | None = None, lag_s: float = LAG_S) -> None:
        check_number(lag_s, "lag_s")
        if not lag_s > 0:
            raise ValueError(f"lag_s={lag_s!r} must be more than 0 seconds")
        self._random = (rng or new_rng()).random
        self._lag_s = lag_s

    def pick(self, nodes: Sequence[Node], call: Call) -> Node:
        """The less loaded one of two."""
        count = len(nodes)
        if count == 1:
            return nodes[0]
        first = int(self._random() * count)
        second = int(self._random() * (count - 1))
        if second >= first:
            second += 1
        one, other = nodes[first], nodes[second]
        weight, other_weight = one.weight, other.weight
        if weight <= 0 or other_weight <= 0:
            if weight > 0:
                return one
            if other_weight > 0:
                return other
            weighted = [node for node in nodes if node.weight > 0]
            return self.pick(weighted, call) if weighted else one
        told, other_told = one.reported, other.reported
        load, other_load = (one.in_flight + 1) / weight, (other.in_flight + 1) / other_weight
        if told and other_told:
            load = self._load(told.get("running", 0.0), told.get("lag_s", 0.0), one.in_flight) / weight
            other_load = (
                self._load(other_told.get("running", 0.0), other_told.get("lag_s", 0.0), other.in_flight)
                / other_weight
            )
        return other if other_load < load else one

    def _load(self, running: float, lag_s: float, in_flight: int) -> float:
        load = (running + in_flight + 1) * (1.0 + lag_s / self._lag_s)
        return load if load >= 0 else math.inf  # what a peer says may be nonsense
