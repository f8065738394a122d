"""What every router does, whatever its rule."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable

import pytest

from rpcfw.balancer import by_argument
from rpcfw.router import ByTag, ByVersion, Canary, PreferZone, Router, Sticky, Subset
from tests.balancer.nodes import FakeNode, keyed

SEED = 7
ROUTERS: dict[str, Callable[[], Router]] = {
    "ByTag": ByTag,
    "ByTag-strict": lambda: ByTag(fallback=False),
    "ByVersion": lambda: ByVersion("1"),
    "ByVersion-asked": lambda: ByVersion(metadata="version"),
    "Canary": lambda: Canary({"2.0": 0.3}, rng=random.Random(SEED)),
    "Canary-by-key": lambda: Canary({"2.0": 0.3}, key=by_argument("user")),
    "PreferZone": lambda: PreferZone("a"),
    "Sticky": lambda: Sticky(by_argument("user"), rng=random.Random(SEED)),
    "Subset": lambda: Subset("me", 3),
}


@pytest.fixture(params=ROUTERS)
def router(request: pytest.FixtureRequest) -> Router:
    return ROUTERS[request.param]()


def some(count: int, rng: random.Random, prefix: str = "n") -> list[FakeNode]:
    return [
        FakeNode(
            f"{prefix}{number}",
            version=rng.choice(["1.0", "1.1", "2.0"]),
            labels={"zone": rng.choice("abc"), **rng.choice([{"tag": "blue"}, {}, {}])},
        )
        for number in range(count)
    ]


def test_it_gives_some_of_the_nodes_each_once_and_leaves_what_it_got_alone(router: Router) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    for number in range(1_000):
        nodes = some(rng.randrange(9), rng, f"{number}-")
        before = list(nodes)
        call = keyed(str(rng.randrange(50)), {"tag": "blue"} if rng.random() < 0.3 else {"version": "2"})
        routed = router.route(nodes, call)
        assert len(set(routed)) == len(routed)
        assert set(routed) <= set(nodes)
        assert nodes == before


def test_no_nodes_are_routed_to_none(router: Router) -> None:
    assert list(router.route([], keyed("ada"))) == []


def test_the_same_nodes_and_call_give_the_same_sequence_for_balancers_to_remember(router: Router) -> None:
    nodes = some(8, random.Random(SEED))
    call = keyed("ada", {"version": "1.1"})
    seen = {id(routed): routed for routed in (router.route(nodes, call) for _ in range(500))}
    assert len(seen) <= 2  # a canary has two


def test_nodes_that_are_gone_are_let_go(router: Router) -> None:
    nodes = some(8, rng := random.Random(SEED))
    gone = weakref.ref(nodes[0])
    for number in range(50):
        router.route(nodes, keyed(str(number)))
    nodes = nodes[1:]
    for number in range(5_000):
        router.route(nodes, keyed(str(number % 60)))
    gc.collect()
    assert gone() is None
    seen = weakref.WeakSet[FakeNode]()
    for number in range(300):
        nodes = some(3, rng, f"{number}-")
        seen.update(nodes)
        router.route(nodes, keyed(str(number)))
    gc.collect()
    assert len(seen) < 100
