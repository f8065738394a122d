"""Weighted random, least in flight, shortest response, least loaded: shares by chance, and who is least busy."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict

import pytest

from rpcfw.balancer import LeastInFlight, LeastLoaded, ShortestResponse, WeightedRandom
from tests.balancer.nodes import PLAIN, Clock, FakeNode, fleet, tally


@pytest.mark.parametrize("seed", range(5))
def test_random_shares_are_those_of_the_weights_within_chance(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    balancer = WeightedRandom(rng=random.Random(seed))
    nodes = fleet(*rng.choices(range(300), k=6), 1)
    expected: defaultdict[FakeNode, float] = defaultdict(float)
    variance: defaultdict[FakeNode, float] = defaultdict(float)
    picked: Counter[FakeNode] = Counter()
    for number in range(10_000):
        if number % 500 == 499:
            nodes = [*nodes[1:], FakeNode(f"{number}", rng.randrange(1, 300))]
        total = sum(node.weight for node in nodes)
        for node in nodes:
            share = node.weight / total
            expected[node] += share
            variance[node] += share * (1 - share)
        chosen = balancer.pick(nodes, PLAIN)
        assert isinstance(chosen, FakeNode)
        picked[chosen] += 1
    for node in expected:
        assert abs(picked[node] - expected[node]) <= 4.5 * math.sqrt(variance[node]) + 1


class _Fixed(random.Random):
    """Always draws the same."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def random(self) -> float:
        return self.value


@pytest.mark.parametrize(
    ("drawn", "expected"), [(0.0, "b"), (0.24, "b"), (0.25, "d"), (math.nextafter(1.0, 0.0), "d")]
)
def test_the_ends_of_the_range_fall_to_nodes_with_a_weight(drawn: float, expected: str) -> None:
    balancer = WeightedRandom(rng=_Fixed(drawn))
    assert balancer.pick(fleet(0, 1, 0, 3, 0), PLAIN).endpoint.host == expected


@pytest.mark.parametrize("seed", range(3))
def test_least_in_flight_never_picks_a_busier_node(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    balancer = LeastInFlight(rng=random.Random(seed))
    nodes = fleet(*rng.choices(range(1, 10), k=6))
    for number in range(10_000):
        if number % 100 == 99:
            nodes = [*nodes[1:], FakeNode(f"{number}", rng.randrange(1, 10))]
        picked = balancer.pick(nodes, PLAIN)
        assert picked.in_flight / picked.weight == min(node.in_flight / node.weight for node in nodes)
        assert isinstance(picked, FakeNode)
        picked.in_flight += 1
        for node in nodes:
            if node.in_flight and rng.random() < 0.15:
                node.in_flight -= 1


def test_an_idle_fleet_is_used_as_its_weights_say() -> None:
    counts = tally(LeastInFlight(rng=random.Random(1)), fleet(300, 100, 100), 10_000)
    assert counts["a"] == pytest.approx(6_000, abs=250)
    assert counts["b"] == pytest.approx(2_000, abs=200)


def test_twice_the_weight_takes_twice_the_calls_in_progress() -> None:
    balancer, nodes = LeastInFlight(rng=random.Random(1)), fleet(200, 100, 100)
    for _ in range(400):
        picked = balancer.pick(nodes, PLAIN)
        assert isinstance(picked, FakeNode)
        picked.in_flight += 1
    assert [node.in_flight for node in nodes] == [200, 100, 100]


def with_latencies(clock: Clock, *latencies_s: float) -> list[FakeNode]:
    nodes = fleet(*[100] * len(latencies_s))
    for node, latency_s in zip(nodes, latencies_s, strict=True):
        node.statistics.succeeded(clock.now, latency_s)
    return nodes


def test_shortest_response_takes_latency_times_calls_in_progress() -> None:
    balancer, nodes = (
        ShortestResponse(rng=random.Random(1), clock=(clock := Clock())),
        with_latencies(clock, 0.01, 0.03),
    )
    assert tally(balancer, nodes, 100) == {"a": 100}
    nodes[0].in_flight = 3  # 4 x 10 ms are more than 30
    assert tally(balancer, nodes, 100) == {"b": 100}


def test_shortest_response_is_shared_by_weight_among_equals() -> None:
    clock = Clock()
    balancer, nodes = ShortestResponse(rng=random.Random(1), clock=clock), with_latencies(clock, 0.01, 0.01)
    nodes[0].weight = 300
    assert tally(balancer, nodes, 4_000)["a"] == pytest.approx(3_000, abs=150)


def test_shortest_response_tries_a_slow_node_again_once_its_slow_calls_left_the_window() -> None:
    clock = Clock()
    balancer, nodes = ShortestResponse(rng=random.Random(1), clock=clock), with_latencies(clock, 0.01, 5.0)
    for _ in range(25):
        clock.now += 1.0
        assert balancer.pick(nodes, PLAIN) is nodes[0]
        nodes[0].statistics.succeeded(clock.now, 0.01)
    clock.now += 10.0
    nodes[0].statistics.succeeded(clock.now, 0.01)
    assert balancer.pick(nodes, PLAIN) is nodes[1]
    nodes[1].in_flight = 1  # one call is enough to find out
    assert tally(balancer, nodes, 50) == {"a": 50}


def test_a_node_that_only_fails_does_not_have_the_shortest_response() -> None:
    clock = Clock()
    balancer, nodes = (
        ShortestResponse(rng=random.Random(1), clock=clock),
        with_latencies(clock, 0.5, 0.5, 0.5),
    )
    nodes[0].statistics.forget()
    nodes[0].statistics.failed(clock.now, 0.0001)
    for _ in range(3):
        nodes[1].statistics.failed(clock.now, 0.0001)
    assert tally(balancer, nodes, 100) == {"c": 100}


def test_least_loaded_heeds_what_servers_say_of_all_their_clients() -> None:
    balancer, nodes = LeastLoaded(rng=random.Random(1)), fleet(100, 100)
    nodes[0].reported = {"running": 40, "lag_s": 0.0}
    nodes[1].reported = {"running": 2, "lag_s": 0.0}
    assert tally(balancer, nodes, 100) == {"b": 100}
    nodes[1].in_flight = 50  # its own calls since the last heartbeat
    assert tally(balancer, nodes, 100) == {"a": 100}


def test_a_loop_that_runs_late_counts_as_load() -> None:
    balancer, nodes = LeastLoaded(rng=random.Random(1)), fleet(100, 100)
    nodes[0].reported = {"running": 5, "lag_s": 0.05}
    nodes[1].reported = {"running": 20, "lag_s": 0.0}
    assert tally(balancer, nodes, 100) == {"b": 100}


def test_a_server_that_has_not_reported_is_compared_by_own_calls() -> None:
    balancer, nodes = LeastLoaded(rng=random.Random(1)), fleet(100, 100)
    nodes[0].reported = {"running": 50, "lag_s": 0.0}
    nodes[1].in_flight = 1
    assert tally(balancer, nodes, 100) == {"a": 100}


def test_clients_that_read_the_same_heartbeat_do_not_all_go_to_one_server() -> None:
    nodes = fleet(*[100] * 10)
    for index, node in enumerate(nodes):
        node.reported = {"running": index, "lag_s": 0.0}
    counts: Counter[str] = Counter()
    for seed in range(100):
        counts += tally(LeastLoaded(rng=random.Random(seed)), nodes, 10)
    assert counts["a"] < 0.25 * counts.total()  # the best of all gets its two draws in ten, not everything


@pytest.mark.parametrize("told", [{"running": -50.0}, {"running": math.nan}, {"lag_s": -9.0, "running": 3.0}])
def test_nonsense_in_a_heartbeat_attracts_no_calls(told: dict[str, float]) -> None:
    balancer, nodes = LeastLoaded(rng=random.Random(1)), fleet(100, 100)
    nodes[0].reported, nodes[1].reported = told, {"running": 3.0, "lag_s": 0.0}
    assert tally(balancer, nodes, 100) == {"b": 100}


def test_an_impossible_lag_is_refused() -> None:
    with pytest.raises(ValueError, match="lag_s=0 must be more than 0"):
        LeastLoaded(lag_s=0)
