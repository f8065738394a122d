"""Power of two choices: what slow, stalled, failing and new nodes get."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from benchmarks.balancers import POLICIES, Setting, simulate, table
from rpcfw.balancer import PowerOfTwo
from tests.balancer.nodes import OTHER, PLAIN, Clock, FakeNode, fleet, tally

SEED = 20261


def seen(clock: Clock, *latencies_s: float) -> list[FakeNode]:
    nodes = fleet(*[100] * len(latencies_s))
    for node, latency_s in zip(nodes, latencies_s, strict=True):
        node.statistics.succeeded(clock.now, latency_s)
    return nodes


def new(clock: Clock, **options: float) -> PowerOfTwo:
    return PowerOfTwo(rng=random.Random(1), clock=clock, **options)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_p99_beats_round_robin_with_one_slow_node_of_five(seed: int) -> None:
    setting = Setting(calls=6_000, seed=seed)
    turns, two = (simulate(name, POLICIES[name], setting) for name in ("round robin", "power of two"))
    print(f"seed {seed}\n{table([turns, two])}")
    assert two.p99_ms < turns.p99_ms / 3
    assert two.p50_ms <= turns.p50_ms
    assert two.shares[-1] < 0.05
    assert max(two.shares[:-1]) < 1.3 * min(two.shares[:-1])  # the fast ones are used alike


def test_the_faster_one_is_picked() -> None:
    nodes = seen(clock := Clock(), 0.01, 0.1)
    assert tally(new(clock), nodes, 100) == {"a": 100}


def test_calls_in_progress_outweigh_latency() -> None:
    nodes = seen(clock := Clock(), 0.01, 0.1)
    balancer = new(clock)
    nodes[0].in_flight = 20  # as when it stalls: nothing is answered, so its latency does not rise
    assert tally(balancer, nodes, 100) == {"b": 100}


def test_twice_the_weight_bears_twice_the_latency() -> None:
    nodes = seen(clock := Clock(), 0.015, 0.01)
    balancer = new(clock)
    nodes[0].weight = 200
    assert tally(balancer, nodes, 100) == {"a": 100}


def test_a_node_left_out_for_three_seconds_is_picked_once() -> None:
    nodes = seen(clock := Clock(), 0.01, 1.0)
    balancer = new(clock)
    picks = []  # by its latency alone it would be due after 4.6 s
    for _ in range(700):  # 7 s
        clock.now += 0.01
        picks.append(node := balancer.pick(nodes, PLAIN))
        node.statistics.succeeded(clock.now, 0.01 if node is nodes[0] else 1.0)
    times = [index for index, node in enumerate(picks) if node is nodes[1]]
    assert times == [pytest.approx(300, abs=1), pytest.approx(600, abs=2)]


def test_a_node_is_left_out_for_ever_when_so_asked() -> None:
    nodes = seen(clock := Clock(), 0.01, 0.1)
    balancer = PowerOfTwo(rng=random.Random(1), clock=clock, force_s=1e9)
    tally(balancer, nodes, 100)
    for _ in range(100):
        clock.now += 10.0
        nodes[0].statistics.succeeded(clock.now, 0.01)
        nodes[1].statistics.succeeded(clock.now, 0.1)
        assert balancer.pick(nodes, PLAIN) is nodes[0]


def test_a_node_that_recovered_gets_its_share_again() -> None:
    nodes = seen(clock := Clock(), 0.01, 1.0)
    balancer, rng = new(clock), random.Random(2)
    late = 0
    for number in range(8_000):  # 80 s
        clock.now += 0.01
        node = balancer.pick(nodes, PLAIN)
        node.statistics.succeeded(clock.now, rng.uniform(0.005, 0.015))
        late += node is nodes[1] and number >= 6_000
    assert 500 < late < 1_500


def test_a_new_node_gets_one_call_and_no_second_before_it_has_answered() -> None:
    nodes = [*seen(clock := Clock(), 0.01, 0.01, 0.01, 0.01), FakeNode("new")]
    balancer = PowerOfTwo(rng=random.Random(1), clock=clock)
    picks = []
    for _ in range(300):  # within one turn of the loop
        picks.append(node := balancer.pick(nodes, PLAIN))
        node.statistics.in_flight += 1
    assert picks.count(nodes[-1]) == 1
    nodes[-1].in_flight = 0
    nodes[-1].statistics.succeeded(clock.now, 0.01)
    assert nodes[-1] in [balancer.pick(nodes, PLAIN) for _ in range(20)]


def test_when_all_are_new_the_first_burst_is_spread() -> None:
    nodes, balancer = fleet(*[100] * 5), PowerOfTwo(rng=random.Random(1), clock=Clock())
    for _ in range(100):
        balancer.pick(nodes, PLAIN).statistics.in_flight += 1
    assert max(node.in_flight for node in nodes) - min(node.in_flight for node in nodes) <= 4


def test_failing_fast_attracts_no_calls() -> None:
    nodes = seen(clock := Clock(), 0.05, 0.05, 0.05)
    balancer = new(clock)
    nodes[0].statistics.forget()
    failed = 0
    for _ in range(2_000):  # 2 s
        clock.now += 0.001
        node = balancer.pick(nodes, PLAIN)
        if node is nodes[0]:
            failed += 1
            node.statistics.failed(clock.now, 0.0001)
        else:
            node.statistics.succeeded(clock.now, 0.05)
    assert 1 <= failed <= 15


def test_a_rare_failure_costs_a_node_little() -> None:
    nodes = seen(clock := Clock(), 0.05, 0.05, 0.05)
    balancer, rng = new(clock), random.Random(4)
    counts = dict.fromkeys(nodes, 0)
    for _ in range(10_000):
        clock.now += 0.002
        node = balancer.pick(nodes, PLAIN)
        assert isinstance(node, FakeNode)
        counts[node] += 1
        if rng.random() < 0.01:
            node.statistics.failed(clock.now, 0.001)
        else:
            node.statistics.succeeded(clock.now, rng.uniform(0.03, 0.05))
    assert min(counts.values()) > 0.25 * 10_000


@pytest.mark.parametrize("force_s", [0.0, -1.0, float("nan")])
def test_a_time_to_force_that_cannot_be_is_refused(force_s: float) -> None:
    with pytest.raises(ValueError, match=r"force_s=.* must be more than 0 seconds"):
        PowerOfTwo(force_s=force_s)


@pytest.mark.parametrize("count", [2, 3, 16, 17, 40])
def test_equals_are_picked_alike(count: int) -> None:
    nodes = seen(clock := Clock(), *[0.01] * count)
    picked = tally(new(clock), nodes, 2_000 * count)
    assert len(picked) == count
    assert all(1_800 < times < 2_200 for times in picked.values()), picked


def test_services_called_in_turn_and_changing_nodes_do_not_mix() -> None:
    clock, rng = Clock(), random.Random(SEED)
    print(f"seed {SEED}")
    balancer = new(clock)
    calls = [PLAIN, OTHER]
    fleets = [seen(clock, *[0.01] * 5), seen(clock, *[0.01] * 4)]
    for number in range(3_000):
        which = rng.randrange(2) if number % 100 < 50 else number // 50 % 2
        if number % 400 == 0:
            fleets[which] = [*fleets[which][1:], *seen(clock, 0.01)]
        nodes = fleets[which]
        assert balancer.pick(nodes, calls[which]) in nodes
        left = nodes[1:]  # as when a call is repeated elsewhere
        assert number % 7 or balancer.pick(left, calls[which]) in left


@pytest.mark.parametrize("rhythm", [5, 10, 52])
def test_calls_with_a_rhythm_meet_all_nodes_alike(rhythm: int) -> None:
    """Every so many calls a heavy one: an order of picks that came again would give it to the same nodes for ever."""
    clock = Clock()
    nodes = seen(clock, *[0.001] * 5)
    balancer, heavy = new(clock), Counter[str]()
    for number in range(rhythm * 2_000):
        node = balancer.pick(nodes, PLAIN)
        took_s = 0.001
        if number % rhythm == 0:
            took_s = 0.05
            heavy[node.endpoint.host] += 1
        clock.now += took_s
        node.statistics.succeeded(clock.now, took_s)
    assert all(300 < times < 500 for times in heavy.values()), heavy


def test_what_is_left_for_one_call_takes_the_place_of_nothing() -> None:
    clock = Clock()
    balancer, nodes = new(clock), seen(clock, *[0.01] * 5)
    tally(balancer, nodes, 200)
    kept = balancer._pairs
    assert len(kept) == 20
    for _ in range(200):
        balancer.pick(nodes, PLAIN)
        balancer.pick(nodes[1:], PLAIN)
    assert balancer._pairs is kept
    tally(balancer, others := seen(clock, *[0.01] * 3), 200)
    assert {node for one, two, *_ in balancer._pairs for node in (one, two)} == set(others)
