"""Round robin and smooth weighted round robin: who is next, and shares that are exact."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rpcfw.balancer import RoundRobin, SmoothWeighted
from tests.balancer.nodes import OTHER, PLAIN, FakeNode, fleet, many, names, tally


def published(weights: list[int], count: int) -> list[int]:
    """The algorithm as its authors wrote it down: add all, take the most (the first of equals), subtract the sum."""
    current = [0] * len(weights)
    order = []
    for _ in range(count):
        current = [now + weight for now, weight in zip(current, weights, strict=True)]
        best = current.index(max(current))
        current[best] -= sum(weights)
        order.append(best)
    return order


def test_round_robin_takes_each_in_turn() -> None:
    balancer, nodes = RoundRobin(), fleet(100, 100, 100)
    assert names(balancer.pick(nodes, PLAIN) for _ in range(7)) == "a b c a b c a"


def test_round_robin_passes_over_those_out_of_reach() -> None:
    balancer, nodes = RoundRobin(), fleet(100, 100, 100)
    nodes[1].available = False
    assert names(balancer.pick(nodes, PLAIN) for _ in range(4)) == "a c a c"


def test_round_robin_goes_on_in_turn_when_all_are_out_of_reach() -> None:
    balancer, nodes = RoundRobin(), fleet(100, 100)
    for node in nodes:
        node.available = False
    assert names(balancer.pick(nodes, PLAIN) for _ in range(4)) == "a b a b"


def test_two_services_called_in_alternation_each_use_every_node() -> None:
    balancer, nodes = RoundRobin(), fleet(100, 100)
    picked = [(balancer.pick(nodes, PLAIN), balancer.pick(nodes, OTHER)) for _ in range(4)]
    assert names(one for one, _ in picked) == "a b a b"
    assert names(other for _, other in picked) == "a b a b"


def test_the_published_sequence_of_weights_5_1_1() -> None:
    balancer, nodes = SmoothWeighted(), fleet(5, 1, 1)
    assert names(balancer.pick(nodes, PLAIN) for _ in range(14)) == "a a b a c a a a a b a c a a"


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=12), st.integers(1, 200))
@example([5, 1, 1], 7)
def test_any_weights_give_the_published_sequence(weights: list[int], count: int) -> None:
    balancer, nodes = SmoothWeighted(), fleet(*weights)
    assert [balancer.pick(nodes, PLAIN) for _ in range(count)] == [
        nodes[index] for index in published(weights, count)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_ten_thousand_picks_follow_the_published_sequence(seed: int) -> None:
    print(f"seed {seed}")
    weights = random.Random(seed).choices(range(1, 300), k=7)
    balancer, nodes = SmoothWeighted(), fleet(*weights)
    expected = names(nodes[index] for index in published(weights, 10_000))
    assert names(balancer.pick(nodes, PLAIN) for _ in range(10_000)) == expected


@pytest.mark.parametrize("seed", range(8))
def test_shares_are_within_one_percent_of_the_weights_while_nodes_come_go_and_warm_up(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    balancer, nodes = SmoothWeighted(), fleet(*rng.choices(range(1, 300), k=5))
    expected: defaultdict[FakeNode, float] = defaultdict(float)
    picked: Counter[FakeNode] = Counter()
    for number in range(10_000):
        if number % 250 == 249:
            nodes = [node for node in nodes if rng.random() < 0.85]
            nodes += [
                FakeNode(f"{number}-{index}", rng.randrange(1, 300)) for index in range(rng.randrange(3))
            ]
            nodes = nodes or [FakeNode(f"{number}", 10)]
        warming = rng.choice(nodes)
        warming.weight = min(300.0, warming.weight * 1.01)
        total = sum(node.weight for node in nodes)
        for node in nodes:
            expected[node] += node.weight / total
        chosen = balancer.pick(nodes, PLAIN)
        assert isinstance(chosen, FakeNode)
        picked[chosen] += 1
    worst = max(abs(picked[node] - expected[node]) / 10_000 for node in expected)
    print(f"{len(expected)} nodes, worst share is off by {worst:.3%}")
    assert worst < 0.01


def test_a_node_that_joins_after_long_churn_gets_its_share_at_once() -> None:
    rng = random.Random(3)
    balancer, nodes = SmoothWeighted(), many(5)
    for number in range(20_000):  # whoever has just been picked leaves: the rest's credit grows and grows
        picked = balancer.pick(nodes, PLAIN)
        if number % 3 == 0:
            nodes = [node for node in nodes if node is not picked] + many(1, f"{number}-")
    nodes = [*nodes, FakeNode("joined")]
    rng.shuffle(nodes)
    assert 90 <= tally(balancer, nodes, 600)["joined"] <= 110


def test_a_node_left_out_for_a_call_keeps_its_turn() -> None:
    balancer, nodes = SmoothWeighted(), fleet(100, 100, 100)
    before = names(balancer.pick(nodes, PLAIN) for _ in range(4))
    retried = balancer.pick(nodes[::2], PLAIN).endpoint.host  # b was tried already
    after = names(balancer.pick(nodes, PLAIN) for _ in range(4))
    assert (before, retried, after) == ("a b c a", "c", "b c a b")


def test_each_service_has_smooth_turns_of_its_own() -> None:
    balancer, nodes = SmoothWeighted(), fleet(1, 1)
    picked = [(balancer.pick(nodes, PLAIN), balancer.pick(nodes, OTHER)) for _ in range(4)]
    assert names(one for one, _ in picked) == names(other for _, other in picked) == "a b a b"
