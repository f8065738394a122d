"""Ejection against a simple model: a long random walk, and hypothesis looking for a short one that fails."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rpcfw.detector import Judgement, Outlier, OutlierRules

STEPS = 50_000


class Modelled:
    """Drives an outlier detector and checks it after every step.

    The model knows the rows of failures and who is out until when. Whom the comparisons of a sweep eject it takes from
    the detector; the tables in `test_outlier` check those.
    """

    def __init__(self, rules: OutlierRules) -> None:
        self.rules = rules
        self.outlier = Outlier(rules)
        self.now = 100.0
        self.rows: dict[str, int] = {}
        self.until: dict[str, float] = {}
        self.ejections = self.returns = 0
        self.most_out = 0.0

    def limit(self) -> int:
        total = len(self.rows)
        return 0 if total < 2 else max(1, min(total - 1, int(self.rules.max_ejected * total)))

    def out(self) -> set[str]:
        return {node_id for node_id, until in self.until.items() if until > self.now}

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.check()

    def add(self, node_id: str) -> None:
        self.outlier.add(node_id)
        self.rows.setdefault(node_id, 0)
        self.check()

    def forget(self, node_id: str) -> None:
        back = self.outlier.forget(node_id)
        self.rows.pop(node_id, None)
        self.until.pop(node_id, None)
        for judgement in back:
            assert not judgement.ejected
            assert self.until.pop(judgement.node_id) == judgement.until
            assert all(judgement.until <= until for until in self.until.values()), "the soonest first"
        self.check()

    def succeeded(self, node_id: str, latency_s: float) -> None:
        self.outlier.succeeded(node_id, self.now, latency_s)
        if node_id in self.rows and node_id not in self.out():
            self.rows[node_id] = 0
        self.check()

    def failed(self, node_id: str) -> None:
        judgement = self.outlier.failed(node_id, self.now)
        if node_id not in self.rows or node_id in self.out():
            assert judgement is None
            return
        self.rows[node_id] += 1
        consecutive = self.rules.consecutive
        due = consecutive is not None and self.rows[node_id] >= consecutive
        assert (judgement is not None) is (due and len(self.out()) < self.limit())
        if judgement is not None:
            self._eject(judgement)
        self.check()

    def sweep(self) -> None:
        over = {node_id for node_id, until in self.until.items() if until <= self.now}
        for judgement in self.outlier.sweep(self.now):
            if judgement.ejected:
                assert judgement.node_id not in self.out()
                self._eject(judgement)
            else:
                over.remove(judgement.node_id)
                assert self.until.pop(judgement.node_id) == judgement.until
                self.returns += 1
        assert not over, f"{over} should have been told of"
        assert self.outlier.next_look() > self.now
        self.check()

    def check(self) -> None:
        outlier, now, out = self.outlier, self.now, self.out()
        assert outlier.ejected(now) == out
        assert {node_id for node_id in self.rows if outlier.is_ejected(node_id, now)} == out
        assert len(out) <= self.limit()
        assert out <= set(self.rows)
        assert len(outlier._records) == len(self.rows)
        assert set(outlier.out) == set(self.until)
        if self.until:
            assert outlier.next_look() <= min(self.until.values())
        for record in outlier._records.values():
            assert min(record.good, record.bad, record.streak, record.times, record.total_s) >= 0
            assert record.times <= -(-self.rules.max_ejection_s // self.rules.ejection_s)
        if self.rows:
            self.most_out = max(self.most_out, len(out) / len(self.rows))

    def _eject(self, judgement: Judgement) -> None:
        rules = self.rules
        length_s = judgement.until - self.now
        assert rules.ejection_s - 1e-6 <= length_s <= rules.max_ejection_s + 1e-6
        self.until[judgement.node_id] = judgement.until
        self.rows[judgement.node_id] = 0
        self.ejections += 1


RULES = [
    OutlierRules(consecutive=3, ejection_s=5.0, max_ejection_s=17.0, interval_s=4.0, min_requests=10),
    OutlierRules(consecutive=2, max_ejected=0.2, slow_factor=3.0, min_hosts=3, min_requests=5),
    OutlierRules(consecutive=None, max_ejected=1.0, min_hosts=2, min_requests=3, success_rate_stdev=0.5),
]
NODES = [f"tcp://10.0.0.{number}:7000" for number in range(12)]


def test_a_long_walk_never_leaves_the_model() -> None:
    seed = 20_006
    print(f"seed {seed}")
    for rules in RULES:
        rng, modelled = random.Random(seed), Modelled(rules)
        health = dict.fromkeys(NODES, 0.0)
        for step in range(STEPS // 2):
            if step % 200 == 0:
                health = {node_id: rng.choice((0.0, 0.0, 0.05, 0.5, 1.0)) for node_id in NODES}
            node_id, dice = rng.choice(NODES), rng.random()
            if dice < 0.03:
                modelled.add(node_id)
            elif dice < 0.04:
                modelled.forget(node_id)
            elif dice < 0.1:
                modelled.advance(rng.choice((0.0, 0.1, 1.0, 10.0)))
                if modelled.outlier.next_look() <= modelled.now and rng.random() < 0.9:
                    modelled.sweep()
            elif rng.random() < health[node_id]:
                modelled.failed(node_id)
            else:
                modelled.succeeded(node_id, 0.2 if node_id == NODES[0] else 0.01)
        print(
            f"{modelled.ejections} ejections, {modelled.returns} returns, {modelled.most_out:.0%} out at most"
        )
        assert modelled.ejections > 50
        assert modelled.returns > 50


class Walk(RuleBasedStateMachine):
    """Any sequence of calls, arrivals, departures and waits."""

    @initialize(rules=st.sampled_from(RULES), count=st.integers(0, 8))
    def begin(self, rules: OutlierRules, count: int) -> None:
        self.modelled = Modelled(rules)
        for node_id in NODES[:count]:
            self.modelled.add(node_id)

    @rule(seconds=st.sampled_from([0.0, 0.5, 5.0, 30.0, 300.0]))
    def wait(self, seconds: float) -> None:
        self.modelled.advance(seconds)

    @rule(node_id=st.sampled_from(NODES[:8]))
    def add(self, node_id: str) -> None:
        self.modelled.add(node_id)

    @rule(node_id=st.sampled_from(NODES[:8]))
    def forget(self, node_id: str) -> None:
        self.modelled.forget(node_id)

    @rule(node_id=st.sampled_from(NODES[:8]), count=st.integers(1, 12))
    def fail(self, node_id: str, count: int) -> None:
        for _ in range(count):
            self.modelled.failed(node_id)

    @rule(node_id=st.sampled_from(NODES[:8]), latency_s=st.sampled_from([0.0, 0.01, 1.0]))
    def succeed(self, node_id: str, latency_s: float) -> None:
        for _ in range(10):
            self.modelled.succeeded(node_id, latency_s)

    @rule()
    def sweep(self) -> None:
        self.modelled.sweep()

    @invariant()
    def ejected_nodes_come_back_in_time(self) -> None:
        if hasattr(self, "modelled"):
            modelled = self.modelled
            longest = modelled.now + modelled.rules.max_ejection_s
            assert modelled.outlier.ejected(longest) == frozenset()


TestWalk: Any = Walk.TestCase
TestWalk.settings = settings(max_examples=150, stateful_step_count=40)
