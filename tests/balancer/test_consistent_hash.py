"""Consistent hashing: what moves and what does not, bounded loads, and whose address IpHash takes."""

from __future__ import annotations

import math
import random
from collections import Counter
from hashlib import blake2b

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpcfw.balancer import ConsistentHash, IpHash, Node, by_argument
from tests.balancer.nodes import PLAIN, FakeNode, fleet, keyed, many, plain, while_serving

KEYS = [keyed(f"user-{number}") for number in range(10_000)]


def new(bound: float = 1.25, floor: int = 8) -> ConsistentHash:
    return ConsistentHash(by_argument("user"), bound=bound, floor=floor, rng=random.Random(1))


def places(nodes: list[FakeNode]) -> list[Node]:
    balancer = new()
    return [balancer.pick(nodes, call) for call in KEYS]


@pytest.mark.parametrize("count", [1, 2, 5, 20, 99])
def test_a_node_that_joins_takes_its_share_of_keys_and_no_other_moves(count: int) -> None:
    nodes = many(count)
    joined = FakeNode("joined")
    before, after = places(nodes), places([*nodes, joined])
    moved = [new for old, new in zip(before, after, strict=True) if old is not new]
    print(
        f"{count} nodes and one more: {len(moved)} of {len(KEYS)} keys move, {len(KEYS) / (count + 1):.0f} are due"
    )
    assert set(moved) == {joined}
    assert 0.5 / (count + 1) <= len(moved) / len(KEYS) <= 1.5 / (count + 1)


def test_a_node_that_goes_gives_up_its_keys_and_no_other_moves() -> None:
    nodes = many(10)
    before, after = places(nodes), places(nodes[:4] + nodes[5:])
    assert all(old is new for old, new in zip(before, after, strict=True) if old is not nodes[4])


def test_keys_are_spread_evenly() -> None:
    counts = Counter(places(many(20)))
    assert all(abs(count - 500) < 4.5 * math.sqrt(500) for count in counts.values())
    assert len(counts) == 20


def test_keys_are_spread_by_registered_weight() -> None:
    counts = Counter(places(nodes := fleet(50, 100, 100, 250)))
    for node, share in zip(nodes, (0.1, 0.2, 0.2, 0.5), strict=True):
        assert counts[node] / len(KEYS) == pytest.approx(share, abs=0.02)


def test_a_weight_that_grows_takes_keys_and_no_other_moves() -> None:
    nodes = fleet(100, 100, 100, 100)
    before = places(nodes)
    nodes[2].reweigh(200)
    after = places(list(nodes))
    moved = {new for old, new in zip(before, after, strict=True) if old is not new}
    assert moved == {nodes[2]}


def test_keys_do_not_move_while_a_node_warms_up() -> None:
    nodes = fleet(100, 100, 100)
    before = places(nodes)
    nodes[1].weight = 10.0
    assert places(nodes) == before


def test_the_order_of_the_nodes_does_not_matter() -> None:
    nodes = many(7)
    shuffled = random.Random(5).sample(nodes, 7)
    assert places(nodes) == places(shuffled)


def test_places_are_the_same_in_every_process() -> None:
    """Written down once: a change of these would move every key of every user."""
    nodes = many(10)
    assert " ".join(repr(node) for node in places(nodes)[:12]) == GOLDEN


GOLDEN = "n6 n1 n1 n2 n9 n7 n7 n9 n9 n0 n5 n3"


def reference(nodes: list[FakeNode], key: str) -> FakeNode:
    """Rendezvous hashing with SplitMix64's mixing, one node after the other."""

    def seed(data: bytes) -> int:
        return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")

    def score(node: FakeNode) -> float:
        z = seed(node.endpoint.address.encode()) ^ seed(key.encode())
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        z ^= z >> 31
        return -math.log((z + 0.5) / 2**64) / node.endpoint.weight

    return min(nodes, key=score)


@settings(max_examples=200)
@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=40), st.booleans(), st.lists(st.text(), max_size=20)
)
def test_all_lanes_at_once_give_what_one_after_the_other_does(
    weights: list[int], equal: bool, keys: list[str]
) -> None:
    nodes = [FakeNode(f"n{index}", 100 if equal else weight) for index, weight in enumerate(weights)]
    balancer = new()
    for key in keys:
        assert balancer.pick(nodes, keyed(key)) is reference(nodes, key)


@pytest.mark.parametrize("floor", [0, 8])
def test_no_node_is_loaded_beyond_its_bound_even_by_a_single_key(floor: int) -> None:
    nodes, balancer = many(10), new(floor=floor)
    for number in range(1, 2_000):
        picked = balancer.pick(nodes, keyed("hot"))
        assert isinstance(picked, FakeNode)
        picked.in_flight += 1
        assert picked.in_flight <= max(floor, math.ceil(1.25 * number / 10))


def test_the_bound_follows_present_weights() -> None:
    nodes, balancer = fleet(100, 100, 100, 100), new(floor=0)
    nodes[0].weight = 20.0  # warming up
    for number in range(1, 1_000):
        picked = balancer.pick(nodes, keyed(f"user-{number}"))
        assert isinstance(picked, FakeNode)
        picked.in_flight += 1
        assert picked.in_flight <= math.ceil(1.25 * number * picked.weight / 320)


def test_few_calls_in_progress_do_not_drive_a_key_away() -> None:
    nodes, balancer = many(10), new()
    home = balancer.pick(nodes, keyed("cold"))
    assert isinstance(home, FakeNode)
    home.in_flight = 7
    assert balancer.pick(nodes, keyed("cold")) is home
    home.in_flight = 8
    second = balancer.pick(nodes, keyed("cold"))
    assert second is new().pick([node for node in nodes if node is not home], keyed("cold"))
    assert all(balancer.pick(nodes, keyed("cold")) is second for _ in range(10))


def test_an_overloaded_node_costs_only_its_own_keys_their_place() -> None:
    nodes, balancer = many(10), new()
    before = [balancer.pick(nodes, call) for call in KEYS[:1000]]
    nodes[3].in_flight = 100
    after = [balancer.pick(nodes, call) for call in KEYS[:1000]]
    for old, new_ in zip(before, after, strict=True):
        assert (old is new_) == (old is not nodes[3])


def test_without_a_bound_a_key_never_leaves_its_node() -> None:
    nodes, balancer = many(10), new(bound=math.inf)
    home = balancer.pick(nodes, keyed("hot"))
    assert isinstance(home, FakeNode)
    home.in_flight = 10_000
    assert balancer.pick(nodes, keyed("hot")) is home


def test_a_call_without_a_key_goes_to_the_less_busy_of_two() -> None:
    nodes, balancer = many(4), new()
    for _ in range(400):
        picked = balancer.pick(nodes, PLAIN)
        assert isinstance(picked, FakeNode)
        picked.in_flight += 1
    assert all(80 <= node.in_flight <= 120 for node in nodes)


def test_a_bound_below_one_and_a_key_that_is_none_are_refused() -> None:
    with pytest.raises(ValueError, match=r"bound=0\.5 must be 1 or more"):
        ConsistentHash(by_argument("user"), bound=0.5)
    with pytest.raises(TypeError, match="not a function of a call"):
        ConsistentHash("user")  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------- IpHash


def test_calls_of_one_caller_go_to_one_node_and_callers_are_spread() -> None:
    nodes, balancer = many(5), IpHash(rng=random.Random(1))
    homes = set()
    for number in range(100):
        call = plain({"x-forwarded-for": f"10.0.0.{number}, 192.0.2.1"})
        home = balancer.pick(nodes, call)
        assert balancer.pick(nodes, call) is home
        assert balancer.pick(nodes, plain({"x-forwarded-for": f"10.0.0.{number}"})) is home
        homes.add(home)
    assert homes == set(nodes)


def test_the_caller_is_the_peer_of_the_call_being_served_without_its_port() -> None:
    nodes, balancer = many(50), IpHash(rng=random.Random(1))

    def pick(peer: str, metadata: dict[str, str] | None = None) -> Node:
        return while_serving(peer, metadata or {}, lambda: balancer.pick(nodes, PLAIN))

    home = pick("10.1.2.3:5000")
    assert pick("10.1.2.3:6000") is home
    assert pick("10.1.2.3:6000 (CN=ada)") is home
    assert pick("10.1.2.4:5000") is not home
    assert pick("10.9.9.9:1", {"x-forwarded-for": "10.1.2.3"}) is home
    assert pick("::1:5000") is pick("::1:6000")
    assert pick("a local peer") in nodes


def test_forwarded_addresses_are_not_believed_when_so_asked() -> None:
    nodes, balancer = many(50), IpHash(forwarded=None, own="me", rng=random.Random(1))
    home = balancer.pick(nodes, PLAIN)
    assert balancer.pick(nodes, plain({"x-forwarded-for": "10.0.0.1"})) is home


def test_where_nothing_is_served_the_caller_is_the_client_itself() -> None:
    nodes = many(50)
    homes = {IpHash(rng=random.Random(seed)).pick(nodes, PLAIN) for seed in range(40)}
    assert len(homes) > 15
    assert len({IpHash(own="10.0.0.7").pick(nodes, PLAIN) for _ in range(10)}) == 1
