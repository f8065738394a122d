"""A server as queueing theory has it, behind a limit: workers, a queue, arrivals that do not wait for replies.

Time is a number here; nothing runs.
"""

from __future__ import annotations

import dataclasses
import heapq
import random
from collections import deque
from collections.abc import Callable

from rpcfw.limiter import Gradient


@dataclasses.dataclass
class Workload:
    """What is offered to whom.

    Attributes:
        workers: calls served at a time.
        service_s: how long one takes, on the average.
        load: offered calls as a multiple of what the workers can do, at a time.
        spread: whether service times are exponential (M/M/c), or all the same (M/D/c).
        slower: how many times longer a call takes, at a time.
    """

    workers: int
    service_s: float
    load: Callable[[float], float]
    spread: bool = True
    slower: Callable[[float], float] = lambda now: 1.0

    @property
    def capacity_per_s(self) -> float:
        """Calls a second that can be done."""
        return self.workers / self.service_s


@dataclasses.dataclass
class Outcome:
    """What came of it: the end and the latency of each call, and the limit at each end."""

    ends: list[tuple[float, float, int]]
    refused: int = 0

    def per_s(self, since: float, until: float) -> float:
        """Calls that ended per second."""
        return sum(since <= at < until for at, _, _ in self.ends) / (until - since)

    def latency_s(self, quantile: float, since: float, until: float) -> float:
        """The quantile of the latency of the calls that were let in."""
        latencies = sorted(rtt for at, rtt, _ in self.ends if since <= at < until)
        return latencies[int(len(latencies) * quantile)]

    def limits(self, since: float, until: float) -> list[int]:
        """The limits of that time."""
        return [limit for at, _, limit in self.ends if since <= at < until]


def play(workload: Workload, gradient: Gradient, *, until: float, seed: int) -> Outcome:
    """Offer the load from second 0 on; calls over the limit are refused."""
    rng = random.Random(seed)
    events: list[tuple[float, int, float]] = []
    queue: deque[float] = deque()
    outcome = Outcome([])
    busy = in_flight = number = 0

    def at(time: float, arrived: float) -> None:
        nonlocal number
        number += 1
        heapq.heappush(events, (time, number, arrived))

    def arrive(now: float) -> None:
        rate = workload.load(now) * workload.capacity_per_s
        at(now + rng.expovariate(rate), -1.0)

    def serve(now: float, arrived: float) -> None:
        mean_s = workload.service_s * workload.slower(now)
        at(now + (rng.expovariate(1 / mean_s) if workload.spread else mean_s), arrived)

    arrive(0.0)
    while events[0][0] < until:
        now, _, arrived = heapq.heappop(events)
        if arrived < 0:
            arrive(now)
            if in_flight >= gradient.limit:
                outcome.refused += 1
                continue
            in_flight += 1
            if busy < workload.workers:
                busy += 1
                serve(now, now)
            else:
                queue.append(now)
        else:
            gradient.sample(now, now - arrived, in_flight)
            in_flight -= 1
            outcome.ends.append((now, now - arrived, gradient.limit))
            if queue:
                serve(now, queue.popleft())
            else:
                busy -= 1
    return outcome
