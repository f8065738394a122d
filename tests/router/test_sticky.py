"""Sticky: a key stays at its node while that is there."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from rpcfw.balancer import by_argument, by_metadata
from rpcfw.call import Route
from rpcfw.router import Sticky
from tests.balancer.nodes import OTHER, PLAIN, FakeNode, keyed, many, plain


def new(max_keys: int = 10_000) -> Sticky:
    return Sticky(by_argument("user"), max_keys=max_keys, rng=random.Random(1))


def place(router: Sticky, nodes: list[FakeNode], key: str) -> FakeNode:
    (node,) = router.route(nodes, keyed(key))
    assert isinstance(node, FakeNode)
    return node


def test_a_key_stays_though_its_node_is_busy_and_others_join_and_go() -> None:
    print("seed 5")
    rng, router, nodes = random.Random(5), new(), many(6)
    home = place(router, nodes, "ada")
    home.in_flight = 1_000
    for number in range(200):
        nodes = [node for node in nodes if node is home or rng.random() < 0.8] + many(1, f"{number}-")
        rng.shuffle(nodes)
        assert place(router, nodes, "ada") is home


def test_a_key_whose_node_is_gone_moves_once_and_stays_there() -> None:
    router, nodes = new(), many(6)
    home = place(router, nodes, "ada")
    rest = [node for node in nodes if node is not home]
    other = place(router, rest, "ada")
    assert other is not home
    assert all(place(router, nodes, "ada") is other for _ in range(20))


def test_new_keys_are_spread_and_go_where_there_is_less_to_do() -> None:
    router, nodes = new(), many(5)
    nodes[0].in_flight = 50
    counts = Counter(place(router, nodes, f"{number}") for number in range(1_000))
    assert all(150 < counts[node] < 350 for node in nodes[1:])
    assert counts[nodes[0]] < 80  # only when it is drawn twice


def test_new_keys_do_not_go_to_a_node_of_weight_0() -> None:
    router, nodes = new(), many(3)
    nodes[0].reweigh(0)
    assert all(place(router, nodes, f"{number}") is not nodes[0] for number in range(100))


def test_a_call_without_a_key_may_go_anywhere() -> None:
    nodes = many(3)
    assert new().route(nodes, PLAIN) is nodes
    assert Sticky(by_metadata("session")).route(nodes, plain({"other": "x"})) is nodes


def test_the_next_attempt_of_a_failed_call_may_go_elsewhere_and_the_key_stays() -> None:
    router, nodes = new(), many(3)
    home, route = place(router, nodes, "ada"), Route()
    assert list(router.route(nodes, keyed("ada", route=route))) == [home]
    route.tried.append(home.endpoint.address)
    assert router.route(nodes, keyed("ada", route=route)) is nodes
    assert place(router, nodes, "ada") is home


def test_the_keys_used_last_are_remembered() -> None:
    router, nodes = new(max_keys=10), many(50)
    homes = {f"{number}": place(router, nodes, f"{number}") for number in range(10)}
    place(router, nodes, "0")  # so that it is not the oldest
    place(router, nodes, "new")
    assert len(router._places) == 10
    assert all(place(router, nodes, key) is home for key, home in homes.items() if key != "1")


def test_a_key_has_a_place_for_each_service() -> None:
    router = Sticky(lambda call: b"always", rng=random.Random(1))
    here, there = many(3), many(3, "other")
    home = router.route(here, keyed("x"))
    assert router.route(there, OTHER) != home
    assert router.route(here, keyed("x")) == home


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(TypeError, match="not a function of a call"):
        Sticky("session")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_keys=0 must be at least 1"):
        new(max_keys=0)
