"""Which nodes do so much worse than the others that they had better get no calls for a while.

Source: gRPC's proposal A50 and Envoy's outlier detection, for the failures in a row, the success rates, the growing
times; Finagle's panic mode. It decides; whoever owns it keeps calls away from the nodes.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterator

_SLOW_CALLS = 20
"""A mean latency is judged from so many calls on: it is to differ by a factor, not by a little."""
_SLOW_HOSTS = 3
"""With fewer there is no majority to be slower than."""
_NONE: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True)
class OutlierRules:
    """When a node is ejected and for how long. Times in seconds.

    Attributes:
        consecutive: after so many failures in a row; None for never by that.
        interval_s: success rates and latencies are compared so often, each time over the calls since the last.
        ejection_s: how long a node stays out the first time; times 2, 3 and so on when it is ejected again soon. Each
            interval in which it answers takes one off.
        max_ejection_s: the longest that it stays out.
        max_ejected: the share of all nodes that may be out at a time, though always one of two or more, never the last.
            gRPC allows a tenth, for fleets of hundreds; of five servers two may break at once, and half of them out is
            still better than half of the calls failing.
        success_rate_stdev: a node whose success rate is below the average by more than so many standard deviations;
            None for never by that.
        success_rate_margin: and by at least so much, from 0 to 1. Without it, one failure in 200 calls would do where
            the others had none.
        min_hosts: success rates are compared among at least so many nodes
        min_requests: that had at least so many calls each.
        slow_factor: a node whose mean latency is more than so many times the median of all nodes'; None for never by
            that, which is the default. A balancer that looks at latency finds a slow node within a few calls, and gives
            it its share back by itself. Besides, a node may be slower for good reasons: another zone, heavier keys.
            Turn it on (5, say) for balancers that do not look, such as round robin.
        slow_least_s: and whose mean latency is at least this; among microseconds a factor means little.
        panic: when a smaller share of all nodes than this is left, better all of them are used: see `panicking`.
    """

    consecutive: int | None = 5
    interval_s: float = 10.0
    ejection_s: float = 30.0
    max_ejection_s: float = 300.0
    max_ejected: float = 0.5
    success_rate_stdev: float | None = 1.9
    success_rate_margin: float = 0.05
    min_hosts: int = 5
    min_requests: int = 100
    slow_factor: float | None = None
    slow_least_s: float = 0.01
    panic: float = 0.5

    def __post_init__(self) -> None:
        for name in ("consecutive", "min_hosts", "min_requests"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name}={number!r} must be at least 1")
        for name in ("max_ejected", "panic", "success_rate_margin"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)!r} is a share: from 0 to 1")
        if not 0 < self.interval_s < math.inf:
            raise ValueError(f"interval_s={self.interval_s!r} must be more than 0 seconds, and finite")
        if not self.slow_least_s >= 0:
            raise ValueError(f"slow_least_s={self.slow_least_s!r} must be 0 seconds or more")
        if not 0 < self.ejection_s <= self.max_ejection_s < math.inf:
            raise ValueError(
                f"ejection_s={self.ejection_s!r} must be more than 0, and max_ejection_s={self.max_ejection_s!r} "
                "no less than it, and finite"
            )
        if self.success_rate_stdev is not None and not self.success_rate_stdev > 0:
            raise ValueError(f"success_rate_stdev={self.success_rate_stdev!r} must be more than 0, or None")
        if self.slow_factor is not None and not self.slow_factor > 1:
            raise ValueError(f"slow_factor={self.slow_factor!r} must be more than 1, or None")


DEFAULT_RULES = OutlierRules()


@dataclasses.dataclass(frozen=True, slots=True)
class Judgement:
    """A node is ejected, or is back.

    Attributes:
        node_id: which one.
        ejected: it is out from now on; False: it is back.
        until: when it will be back; when it was, if it is.
        why: in words.
    """

    node_id: str
    ejected: bool
    until: float
    why: str


class Record:
    """What is known of a node: calls since the last comparison, failures in a row, and how often it was ejected.

    Of a node that is out no calls are counted, so it has too few of them to be compared.
    """

    __slots__ = ("bad", "good", "streak", "times", "total_s")

    def __init__(self) -> None:
        self.times = 0
        self.streak = 0
        self.clear()

    def clear(self) -> None:
        """Count from 0 again."""
        self.good = self.bad = 0
        self.total_s = 0.0


class Outlier:
    """Watches the calls of all nodes of one service, and says which of them to leave out. No clock.

    What is told of a node that was not added, or is out, counts nothing: calls that were under way when it was ejected
    end later. A node comes back with a clean record, and is judged anew.

    Attributes:
        out: the nodes that are out, and until when.
    """

    __slots__ = ("_next_sweep", "_records", "_rules", "out")

    def __init__(self, rules: OutlierRules = DEFAULT_RULES) -> None:
        self._rules = rules
        self._records: dict[str, Record] = {}
        self.out: dict[str, float] = {}
        self._next_sweep = 0.0

    def add(self, node_id: str) -> None:
        """Watch a node from now on, or go on watching it."""
        if node_id not in self._records:
            self._records[node_id] = Record()

    def forget(self, node_id: str) -> list[Judgement]:
        """The node is gone for good, or has begun anew.

        Gives those that come back, because too large a share of those left would be out now.
        """
        self._records.pop(node_id, None)
        self.out.pop(node_id, None)
        back = []
        while len(self.out) > self._most():
            soonest = min(self.out, key=self.out.__getitem__)
            why = f"of {len(self._records)} nodes that are left too many were out"
            back.append(Judgement(soonest, False, self.out.pop(soonest), why))
        return back

    def succeeded(self, node_id: str, now: float, latency_s: float, calls: int = 1) -> None:
        """A call ended well, or with an error that says nothing against the node; or so many did, in so long together.

        Those of many calls may be told together, before the next `failed` and before each `sweep`.
        """
        record = self._records.get(node_id)
        if record is None or (self.out and self.is_ejected(node_id, now)):
            return
        record.good += calls
        record.streak = 0
        record.total_s += latency_s

    def failed(self, node_id: str, now: float) -> Judgement | None:
        """A call ended in a way that speaks against the node; not None when that ejects it."""
        record = self._records.get(node_id)
        if record is None or (self.out and self.is_ejected(node_id, now)):
            return None
        record.bad += 1
        record.streak += 1
        consecutive = self._rules.consecutive
        if consecutive is None or record.streak < consecutive:
            return None
        return self._eject(node_id, now, f"calls that failed in a row: {record.streak}")

    def is_ejected(self, node_id: str, now: float) -> bool:
        """Whether the node is out now."""
        return now < self.out.get(node_id, now)

    def ejected(self, now: float) -> frozenset[str]:
        """The nodes that are out now."""
        if not self.out:
            return _NONE
        return frozenset(node_id for node_id, until in self.out.items() if now < until)

    def panicking(self, total: int, healthy: int) -> bool:
        """Whether so few of all nodes are left, not ejected and in reach, that those which are ejected must help.

        It is then likelier that the fault is elsewhere than that most nodes do badly; and if not, the few that are left
        would break under the load of all.
        """
        return healthy < total * self._rules.panic

    def sweep(self, now: float) -> list[Judgement]:
        """Bring back nodes whose time is over and, once in each interval, compare all others.

        Call it at `next_look`. A node that fails again so soon that no sweep was between is ejected twice in a row.
        """
        judgements = [
            Judgement(node_id, False, until, "its time is over")
            for node_id, until in self.out.items()
            if until <= now
        ]
        for judgement in judgements:
            del self.out[judgement.node_id]
        if now < self._next_sweep:
            return judgements
        self._next_sweep = now + self._rules.interval_s
        judgements += self._compare_success_rates(now)
        judgements += self._compare_latencies(now)
        for node_id, record in self._records.items():
            if record.times and record.good and node_id not in self.out:
                record.times -= 1
            record.clear()
        return judgements

    def next_look(self) -> float:
        """When to call `sweep` next."""
        return min(self._next_sweep, min(self.out.values(), default=math.inf))

    def _compare_success_rates(self, now: float) -> Iterator[Judgement]:
        rules = self._rules
        if rules.success_rate_stdev is None:
            return
        rates = sorted(
            (record.good / (record.good + record.bad), node_id)
            for node_id, record in self._records.items()
            if record.good + record.bad >= rules.min_requests
        )
        if len(rates) < rules.min_hosts:
            return
        average = statistics.fmean(rate for rate, _ in rates)
        deviation = statistics.pstdev(rate for rate, _ in rates)
        least = average - max(rules.success_rate_stdev * deviation, rules.success_rate_margin)
        for rate, node_id in rates:  # the worst first: the others may find no room
            if rate < least:
                why = f"{rate:.1%} of its calls succeeded, {average:.1%} on the average of {len(rates)} nodes"
                judgement = self._eject(node_id, now, why)
                if judgement is not None:
                    yield judgement

    def _compare_latencies(self, now: float) -> Iterator[Judgement]:
        rules = self._rules
        if rules.slow_factor is None:
            return
        means_s = sorted(
            (
                (record.total_s / record.good, node_id)
                for node_id, record in self._records.items()
                if record.good >= _SLOW_CALLS
            ),
            reverse=True,
        )
        if len(means_s) < _SLOW_HOSTS:
            return
        median_s = statistics.median(mean_s for mean_s, _ in means_s)
        for mean_s, node_id in means_s:
            if mean_s > rules.slow_factor * median_s and mean_s >= rules.slow_least_s:
                why = (
                    f"its calls took {mean_s * 1000:.1f} ms on the average, "
                    f"{median_s * 1000:.1f} ms on the median of {len(means_s)} nodes"
                )
                judgement = self._eject(node_id, now, why)
                if judgement is not None:
                    yield judgement

    def _eject(self, node_id: str, now: float, why: str) -> Judgement | None:
        """Eject a node if there is room."""
        if sum(now < until for until in self.out.values()) >= self._most():
            return None
        rules, record = self._rules, self._records[node_id]
        record.times = min(record.times + 1, math.ceil(rules.max_ejection_s / rules.ejection_s))
        record.streak = 0
        record.clear()
        until = now + min(rules.ejection_s * record.times, rules.max_ejection_s)
        self.out[node_id] = until
        return Judgement(node_id, True, until, f"{why}; it gets no calls for {until - now:.0f} s")

    def _most(self) -> int:
        """How many may be out."""
        total = len(self._records)
        return min(max(1, int(total * self._rules.max_ejected)), total - 1) if total else 0
