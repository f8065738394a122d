"""Power of two choices: of two nodes drawn by chance the one that is likely to answer sooner.

Two choices are nearly as good as looking at all, without the herds that follow the single best (Mitzenmacher, "The
Power of Two Choices in Randomized Load Balancing", 2001). The load is Finagle's peak EWMA latency times calls in
progress; picking a node again that was left out for 3 s is from go-kratos' selector/p2c.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence

from rpcfw.balancer.policy import Node
from rpcfw.call import Call
from rpcfw.chance import new_rng
from rpcfw.mistakes import check_number

FORCE_S = 3.0
_UNKNOWN_S = 1e6
"""Stands for the latency of a node that has calls in progress and has never answered: worse than any other."""
_MAX_DOUBLINGS = 10
_LOW = (1 << 15) - 1
"""Half of the 30 bits that are drawn for both choices: cheaper than two floats, and as good up to 1,000 nodes."""
_SAME_S = 0.005
"""Latencies seen so close to each other are compared as they are: they have faded by less than a hundredth."""
_INFINITE = math.inf
_exp = math.exp


class PowerOfTwo:
    """Of two nodes by chance, the one with the lower latency x (calls in progress + 1) / weight.

    The latency rises at once and falls slowly, so a node that stalls loses its calls within one answer. Each failure
    since its last success doubles a node's load, up to 1,024 times: failing fast does not attract calls. A node that
    has never answered is given one call at once, and no second one while others answer. A node that was not picked for
    `force_s` seconds is picked the next time it is drawn, so that it can show that it has recovered.

    Args:
        rng: the source of chance.
        force_s: how long a node is left out at most, as long as it is drawn; more than 0, `math.inf` for ever.
        clock: seconds, never going back; the running loop's unless given.
    """

    def __init__(
        self,
        *,
        rng: random.Random | None = None,
        force_s: float = FORCE_S,
        clock: Callable[[], float] | None = None,
    ) -> None:
        check_number(force_s, "force_s")
        if not force_s > 0:
            raise ValueError(f"force_s={force_s!r} must be more than 0 seconds")
        self._bits = (rng or new_rng()).getrandbits
        self._force_s = force_s
        self._own_clock = clock is not None
        self._clock = clock or _loop_time

    def use_clock(self, clock: Callable[[], float]) -> None:
        """Read the time here from now on, unless a clock was given; see `Timed`."""
        if not self._own_clock:
            self._clock = clock

    def pick(self, nodes: Sequence[Node], call: Call) -> Node:
        """The better one of two."""
        count, bits = len(nodes), self._bits
        if count == 1:
            return nodes[0]
        drawn = bits(30)
        first = (drawn >> 15) * count >> 15
        # one of the others, counted on from there; below the first index from the end, as Python counts
        second = first - 1 - ((drawn & _LOW) * (count - 1) >> 15)
        better, worse = nodes[first], nodes[second]
        one, two, weight, now = better.statistics, worse.statistics, better.weight, self._clock()
        load, other = one.peak_s, two.peak_s
        if (
            load
            and other
            and weight == worse.weight
            and weight > 0
            and not one.consecutive_failures
            and not two.consecutive_failures
        ):  # so it mostly is; what both have alike makes no difference
            load *= one.in_flight + 1
            other *= two.in_flight + 1
            later_s = two.seen_at - one.seen_at
            if later_s > _SAME_S:
                load *= _exp(-later_s / one.decay_s)
            elif later_s < -_SAME_S:
                other *= _exp(later_s / two.decay_s)
        else:
            load, other = _load(better, now), _load(worse, now)
        if other < load:
            better, worse, one, two, load, other = worse, better, two, one, other, load
        if other == _INFINITE:  # of weight 0: never forced
            if load == _INFINITE:
                return self._pick_weighted(nodes, call, better)
        elif two.picked_at + self._force_s <= now:
            better, one = worse, two
        one.picked_at = now
        return better

    def _pick_weighted(self, nodes: Sequence[Node], call: Call, drawn: Node) -> Node:
        weighted = [node for node in nodes if node.weight > 0]
        return self.pick(weighted, call) if weighted else drawn


def _load(node: Node, now: float) -> float:
    weight = node.weight
    if weight <= 0:
        return math.inf
    statistics = node.statistics
    load = (node.in_flight + 1) << min(statistics.consecutive_failures, _MAX_DOUBLINGS)
    latency_s = statistics.latency_s(now)
    if latency_s:
        return latency_s * load / weight
    return 0.0 if load == 1 else _UNKNOWN_S * load / weight


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
