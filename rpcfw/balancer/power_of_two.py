"""Power of two choices: of two nodes drawn by chance the one that is likely to answer sooner.

Two choices are nearly as good as looking at all, without the herds that follow the single best (Mitzenmacher, "The
Power of Two Choices in Randomized Load Balancing", 2001). The load is Finagle's peak EWMA latency times calls in
progress; picking a node again that was left out for 3 s is from go-kratos' selector/p2c.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import Callable, Sequence

from rpcfw.balancer.policy import Node
from rpcfw.balancer.statistics import Statistics
from rpcfw.call import Call
from rpcfw.chance import new_rng
from rpcfw.mistakes import check_number

FORCE_S = 3.0
_UNKNOWN_S = 1e6
"""Stands for the latency of a node that has calls in progress and has never answered: worse than any other."""
_MAX_DOUBLINGS = 10
_FEW = 16
"""Of up to so many nodes all pairs are kept at hand, which saves working two of them out for each call."""
_PATIENCE = 64
"""So many picks went by the pairs at hand before others take their place: to make them costs that many draws."""
_BITS = 15
_LOW = (1 << _BITS) - 1
"""Bits drawn for a choice: cheaper than a float, and as good up to 1,000 nodes or pairs."""
_SAME_S = 0.005
"""Latencies seen so close to each other are compared as they are: they have faded by less than a hundredth."""
_Pair = tuple[Node, Node, Statistics, Statistics]


class PowerOfTwo:
    """Of two nodes by chance, the one with the lower latency x (calls in progress + 1) / weight.

    The latency rises at once and falls slowly, so a node that stalls loses its calls within one answer. Each failure
    since its last success doubles a node's load, up to 1,024 times: failing fast does not attract calls. A node that
    has never answered is given one call at once, and no second one while others answer. A node of which nothing was
    heard for `force_s` seconds is picked the next time it is drawn, once in that time, so that it can show that it has
    recovered.

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
        self._nodes: Sequence[Node] = ()
        self._pairs: Sequence[_Pair] = ()  # of these
        self._other: Sequence[Node] = ()  # what was picked from last beside them
        self._misses = 0

    def use_clock(self, clock: Callable[[], float]) -> None:
        """Read the time here from now on, unless a clock was given; see `Timed`."""
        if not self._own_clock:
            self._clock = clock

    def pick(self, nodes: Sequence[Node], call: Call) -> Node:
        """The better one of two."""
        pairs = self._pairs if nodes is self._nodes else self._pairs_of(nodes)
        better, worse, one, two = (
            pairs[self._bits(_BITS) * len(pairs) >> _BITS] if pairs else self._draw(nodes)
        )
        load, other = one.peak_s, two.peak_s
        if (
            load
            and other
            and better.weight == worse.weight > 0
            and not one.consecutive_failures
            and not two.consecutive_failures
            and -_SAME_S < two.seen_at - one.seen_at < _SAME_S
        ):  # so it mostly is while there are many calls: what both have alike makes no difference, none was left out
            return worse if other * (two.in_flight + 1) < load * (one.in_flight + 1) else better
        return self._compare(nodes, call, better, worse)

    def _pairs_of(self, nodes: Sequence[Node]) -> Sequence[_Pair]:
        """All pairs of a few nodes, both ways round, once these come again and again; else none.

        What is left of the nodes for one call is a sequence of its own, and services may be called in turn.
        """
        self._misses += 1
        if nodes is not self._other:
            self._other = nodes
        elif self._misses >= _PATIENCE:
            self._nodes, self._pairs, self._other, self._misses = nodes, (), (), 0
            if 1 < len(nodes) <= _FEW:
                self._pairs = [
                    (one, two, one.statistics, two.statistics)
                    for one, two in itertools.permutations(nodes, 2)
                ]
            return self._pairs
        return ()

    def _draw(self, nodes: Sequence[Node]) -> _Pair:
        """Two of any number of nodes."""
        count, drawn = len(nodes), self._bits(2 * _BITS)
        first = (drawn >> _BITS) * count >> _BITS
        # one of the others, counted on from there; below the first index from the end, as Python counts
        second = first - 1 - ((drawn & _LOW) * (count - 1) >> _BITS)
        one, two = nodes[first], nodes[second]
        return one, two, one.statistics, two.statistics

    def _compare(self, nodes: Sequence[Node], call: Call, better: Node, worse: Node) -> Node:
        """The better one of these, or the worse one where it was left out for long."""
        now = self._clock()
        load, other = _load(better, now), _load(worse, now)
        if other < load:
            better, worse, load, other = worse, better, other, load
        one, two = better.statistics, worse.statistics
        if other == math.inf:  # of weight 0: never forced
            if load == math.inf:
                return self._pick_weighted(nodes, call, better)
        elif max(two.picked_at, two.seen_at) + self._force_s <= now:
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
