"""What every balancer does, whatever its policy."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable

import pytest

from rpcfw.balancer import (
    Balancer,
    ConsistentHash,
    IpHash,
    LeastInFlight,
    LeastLoaded,
    PowerOfTwo,
    RoundRobin,
    ShortestResponse,
    SmoothWeighted,
    WeightedRandom,
    by_argument,
)
from tests.balancer.nodes import PLAIN, Clock, FakeNode, fleet, keyed, many

Make = Callable[[random.Random, Clock], Balancer]
POLICIES: dict[str, Make] = {
    "RoundRobin": lambda rng, clock: RoundRobin(),
    "SmoothWeighted": lambda rng, clock: SmoothWeighted(),
    "WeightedRandom": lambda rng, clock: WeightedRandom(rng=rng),
    "LeastInFlight": lambda rng, clock: LeastInFlight(rng=rng),
    "IpHash": lambda rng, clock: IpHash(rng=rng),
    "ConsistentHash": lambda rng, clock: ConsistentHash(by_argument("user"), rng=rng),
    "ConsistentHash, floor=0": lambda rng, clock: ConsistentHash(by_argument("user"), floor=0, rng=rng),
    "ConsistentHash without keys": lambda rng, clock: ConsistentHash(lambda call: None, rng=rng),
    "PowerOfTwo": lambda rng, clock: PowerOfTwo(rng=rng, clock=clock),
    "ShortestResponse": lambda rng, clock: ShortestResponse(rng=rng, clock=clock),
    "LeastLoaded": lambda rng, clock: LeastLoaded(rng=rng),
}
SEED = 20260


@pytest.fixture(params=POLICIES, ids=lambda name: str(name).replace(" ", "-"))
def make(request: pytest.FixtureRequest) -> Make:
    return POLICIES[request.param]


def live(node: FakeNode, rng: random.Random, now: float) -> None:
    """Let something happen to a node, as calls do."""
    node.in_flight = rng.randrange(4)
    node.reported = {} if rng.random() < 0.2 else {"running": rng.randrange(9), "lag_s": rng.random() / 100}
    if rng.random() < 0.8:
        node.statistics.succeeded(now, rng.random())
    else:
        node.statistics.failed(now, rng.random())


def test_a_single_node_gets_all_calls(make: Make) -> None:
    balancer, (node,) = make(random.Random(SEED), Clock()), fleet(100)
    assert all(balancer.pick([node], keyed(str(number))) is node for number in range(20))


def test_one_of_the_nodes_is_picked_while_they_come_and_go(make: Make) -> None:
    print(f"seed {SEED}")
    rng, clock = random.Random(SEED), Clock()
    balancer, nodes, alike = make(random.Random(SEED), clock), many(4), 0
    for number in range(10_000):
        if number % 37 == 0:
            kept = [node for node in nodes if rng.random() < 0.8]
            nodes = kept + many(rng.randrange(4), f"new{number}-") or many(1, f"last{number}-")
        clock.now += rng.random() / 50
        picked = balancer.pick(nodes, keyed(str(rng.randrange(100))))
        assert isinstance(picked, FakeNode)
        assert picked in nodes
        alike += picked is nodes[0]
        live(picked, rng, clock.now)
    assert alike < 9_000  # not always the first


def test_another_sequence_for_a_moment_does_no_harm(make: Make) -> None:
    """As when a call is retried elsewhere, or a router splits the nodes."""
    clock = Clock()
    balancer, nodes = make(random.Random(SEED), clock), many(5)
    for number in range(500):
        clock.now += 0.01
        call = keyed(str(number))
        picked = balancer.pick(nodes, call)
        assert picked in nodes
        others = [node for node in nodes if node is not picked]
        assert balancer.pick(others, call) in others


def test_a_node_of_weight_0_gets_no_calls(make: Make) -> None:
    rng, clock = random.Random(SEED), Clock()
    balancer, nodes = make(random.Random(SEED), clock), fleet(0, 100, 0, 50, 0)
    for number in range(2_000):
        clock.now += 0.1
        picked = balancer.pick(nodes, keyed(str(number)))
        assert isinstance(picked, FakeNode)
        assert picked.weight > 0
        live(picked, rng, clock.now)


def test_a_weight_that_falls_to_0_is_heeded_though_the_sequence_stays(make: Make) -> None:
    rng, clock = random.Random(SEED), Clock()
    balancer, nodes = make(random.Random(SEED), clock), fleet(100, 100, 100)
    for number in range(1_000):
        clock.now += 0.1
        if number == 500:
            nodes[1].reweigh(0)
        picked = balancer.pick(nodes, keyed(str(number)))
        assert isinstance(picked, FakeNode)
        assert picked.weight > 0
        live(picked, rng, clock.now)


def test_when_all_weights_are_0_they_say_nothing(make: Make) -> None:
    balancer, nodes = make(random.Random(SEED), Clock()), fleet(0, 0, 0)
    picked = {balancer.pick(nodes, keyed(str(number))) for number in range(300)}
    assert picked <= set(nodes)
    if not isinstance(balancer, IpHash):  # one caller, one node
        assert len(picked) == 3


def test_nodes_that_are_gone_are_let_go(make: Make) -> None:
    clock = Clock()
    balancer, nodes = make(random.Random(SEED), clock), many(6)
    gone = weakref.ref(nodes[0])
    for number in range(100):
        balancer.pick(nodes, keyed(str(number)))
    nodes = nodes[1:]
    for number in range(10_000):
        clock.now += 0.01
        balancer.pick(nodes, keyed(str(number)))
    gc.collect()
    assert gone() is None


def test_what_is_remembered_is_bounded_while_nodes_change_at_each_call(make: Make) -> None:
    clock = Clock()
    balancer, seen = make(random.Random(SEED), clock), weakref.WeakSet[FakeNode]()
    for number in range(5_000):
        clock.now += 0.01
        nodes = many(3, f"{number}-")
        seen.update(nodes)
        balancer.pick(nodes, PLAIN)
    gc.collect()
    assert len(seen) < 2_500


def test_the_same_seed_gives_the_same_picks(make: Make) -> None:
    def run() -> list[str]:
        rng, clock, nodes = random.Random(1), Clock(), many(5)
        balancer, picks = make(random.Random(SEED), clock), []
        for number in range(300):
            clock.now += 0.05
            node = balancer.pick(nodes, keyed(str(number)))
            assert isinstance(node, FakeNode)
            live(node, rng, clock.now)
            picks.append(node.name)
        return picks

    assert run() == run()


@pytest.mark.parametrize("policy", ["PowerOfTwo", "ShortestResponse"])
async def test_the_clock_is_the_running_loops_unless_another_is_given(policy: str) -> None:
    balancer = PowerOfTwo() if policy == "PowerOfTwo" else ShortestResponse()
    nodes = fleet(1, 1)
    assert balancer.pick(nodes, PLAIN) in nodes
