"""Subset: each client uses a few nodes of a large fleet, all nodes are used alike, and little changes."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcfw.router import Subset, subset
from tests.balancer.nodes import PLAIN, many, names

FLEET = [f"tcp://10.0.{number // 250}.{number % 250}:7000" for number in range(200)]


@given(st.lists(st.text(max_size=8)), st.text(max_size=8), st.integers(1, 12))
def test_it_is_so_many_of_the_addresses_in_their_order(addresses: list[str], client: str, size: int) -> None:
    chosen = subset(addresses, client, size)
    assert len(chosen) == min(size, len(set(addresses)))
    assert chosen == [address for address in dict.fromkeys(addresses) if address in chosen]


def test_it_depends_on_the_set_of_addresses_and_the_client_alone() -> None:
    shuffled = random.Random(1).sample(FLEET, len(FLEET))
    assert set(subset(FLEET, "client 7", 20)) == set(subset(shuffled, "client 7", 20))
    assert subset(FLEET, "client 7", 20) != subset(FLEET, "client 8", 20)
    assert subset(FLEET, "golden", 3) == [
        "tcp://10.0.0.4:7000",
        "tcp://10.0.0.86:7000",
        "tcp://10.0.0.131:7000",
    ]  # in every process


def test_clients_are_spread_evenly_over_the_nodes() -> None:
    clients, size = 500, 20
    counts = Counter(
        address for client in range(clients) for address in subset(FLEET, f"client {client}", size)
    )
    mean = clients * size / len(FLEET)
    spread = math.sqrt(mean * (1 - size / len(FLEET)))
    print(f"clients per node: {mean:.0f} in the mean, {min(counts.values())} to {max(counts.values())}")
    assert len(counts) == len(FLEET)
    assert all(abs(count - mean) < 4.5 * spread for count in counts.values())
    assert max(counts.values()) < 1.6 * mean


def test_a_node_that_goes_is_replaced_by_one_and_only_where_it_was_used() -> None:
    gone = FLEET[17]
    rest = [address for address in FLEET if address != gone]
    changed = 0
    for client in range(200):
        before, after = (set(subset(addresses, f"client {client}", 20)) for addresses in (FLEET, rest))
        assert before - after == before & {gone}
        assert len(after) == 20
        changed += before != after
    assert changed == pytest.approx(20, abs=14)  # a tenth of them used it


def test_a_node_that_joins_pushes_out_at_most_one_other() -> None:
    changed = 0
    for client in range(200):
        before = set(subset(FLEET, f"client {client}", 20))
        after = set(subset([*FLEET, "tcp://10.9.9.9:7000"], f"client {client}", 20))
        assert after - before <= {"tcp://10.9.9.9:7000"}
        changed += before != after
    assert changed == pytest.approx(20, abs=14)


def test_the_router_gives_the_clients_subset_and_replaces_a_node_while_it_is_away() -> None:
    nodes, router = many(30), Subset("me", 5)
    chosen = router.route(nodes, PLAIN)
    assert [node.endpoint.address for node in chosen] == subset([n.endpoint.address for n in nodes], "me", 5)
    without = router.route([node for node in nodes if node is not chosen[0]], PLAIN)
    assert len(without) == 5
    assert set(chosen[1:]) < set(without)
    assert names(router.route(list(nodes), PLAIN)) == names(chosen)


def test_few_nodes_pass_as_they_are() -> None:
    nodes = many(5)
    assert Subset("me", 5).route(nodes, PLAIN) is nodes


def test_a_node_of_weight_0_takes_no_place() -> None:
    nodes = many(8)
    for node in nodes[:4]:
        node.reweigh(0)
    assert all(node.weight > 0 for client in range(50) for node in Subset(f"{client}", 3).route(nodes, PLAIN))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="size=0 must be at least 1"):
        subset(FLEET, "x", 0)
    with pytest.raises(ValueError, match="size=0 must be at least 1"):
        Subset("x", 0)
    with pytest.raises(ValueError, match="needs a client_id"):
        Subset("")
