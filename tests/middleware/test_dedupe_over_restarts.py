"""DedupeKeys, Retry and Dedupe together, over links that break and servers that restart: no call ever runs twice.

The network below keeps what the connections of rpcfw promise: an error of a lost connection names the memory that was
at the other end of it, and a call that is to go to another memory is refused, by the client's end or by the server's.
Messages may arrive long after their sender has given the link up, as they do when only one side has noticed.
"""

from __future__ import annotations

import asyncio
import functools
import math
import random
from typing import Any

import pytest

from rpcfw import Call, Code, Handler, Middleware, Origin, RpcError
from rpcfw.call import Route, chain, pack_metadata
from rpcfw.limiter.budget import RetryBudget
from rpcfw.middleware import Dedupe, DedupeKeys, DedupeMemory, Hedge, Retry, dedupe, dedupe_keys, retry
from tests.calls.virtual import virtual_time
from tests.middleware.fleet import call_of, outcome, told


class Exchange:
    """The server's side of a call."""

    def __init__(self) -> None:
        self.orphaned = False
        self.peer = "client"
        self.ended = False

    def set_reply_metadata(self, metadata: Any) -> None:
        """Not looked at."""


class World:
    """Servers by address, each of them restarted now and then, and how often each call has run."""

    def __init__(self, rng: random.Random, *, max_entries: int, client_checks: bool) -> None:
        self.rng = rng
        self.runs: dict[int, int] = {}
        self.results: dict[int, str] = {}
        self.client_checks = client_checks
        self.max_entries = max_entries
        self.breaks = 0.5
        self.late: set[asyncio.Task[Any]] = set()
        self.servers = {address: Boot(self) for address in "abc"}
        self.saved = 0

    def restart(self, address: str) -> None:
        self.servers[address].die()
        self.servers[address] = Boot(self)

    async def run(self, call: Call) -> str:
        number = call.arguments[0]
        self.runs[number] = self.runs.get(number, 0) + 1
        await asyncio.sleep(self.rng.choice([0.0, 0.01, 0.3]))
        self.results[number] = f"{number} by run {self.runs[number]}"
        return self.results[number]

    async def client(self, call: Call) -> str:
        """What a cluster and its connections make of a call."""
        route, rng = call.route, self.rng
        fresh = [known for known in self.servers if route is None or known not in route.tried]
        address = rng.choice(fresh or list(self.servers))
        if route is not None:
            address = route.pinned or address
        try:
            return await self.servers[address].take(call)
        except RpcError as error:
            error.endpoint = address
            raise


class Boot:
    """One run of a server, and the connection to it."""

    def __init__(self, world: World) -> None:
        self.world = world
        memory = DedupeMemory(max_entries=world.max_entries, rng=world.rng)
        self.memory = memory.memory
        self.handler = Dedupe(store=memory)(world.run)
        self.tasks: set[asyncio.Task[Any]] = set()
        self.dead = asyncio.get_running_loop().create_future()

    def die(self) -> None:
        """The process is killed: what runs is gone, and so is its memory."""
        self.dead.set_result(None)
        for task in self.tasks:
            task.cancel()

    def ended(self, serving: asyncio.Task[Any]) -> None:
        """What comes of it may interest nobody any more."""
        self.tasks.discard(serving)
        if not serving.cancelled():
            serving.exception()

    async def take(self, call: Call) -> str:
        rng, marked = self.world.rng, call.metadata.get(dedupe.MEMORY)
        if self.world.client_checks and marked not in (None, self.memory):
            raise RpcError(Code.ABORTED, "another memory", {"outcome": "unknown"}, origin=Origin.CONNECTION)
        if rng.random() < 0.1:
            raise RpcError(Code.UNAVAILABLE, "not connected", origin=Origin.CONNECTION, executed=False)
        loop, exchange = asyncio.get_running_loop(), Exchange()
        left_s = call.remaining_s(loop)
        breaks = rng.random() < self.world.breaks
        late_s = rng.choice([0.0, 0.0, 0.005, 2.0]) if breaks else 0.001
        serving = loop.create_task(self.serve(call, left_s, late_s, exchange))
        self.tasks.add(serving)
        serving.add_done_callback(self.ended)
        timeout_s = rng.choice([0.0, 0.002, 0.005, 0.1]) if breaks else left_s
        await asyncio.wait((serving, self.dead), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if not self.dead.done() and serving.done() and not breaks:
            return str(serving.result())
        if breaks and rng.random() < 0.5:  # the server notices as well, if it has the call already
            exchange.orphaned = True
            if not late_s:
                serving.cancel()
        raise RpcError(
            Code.UNAVAILABLE, "lost", {"memory": self.memory}, origin=Origin.CONNECTION, executed=None
        )

    async def serve(self, call: Call, left_s: float, late_s: float, exchange: Exchange) -> Any:
        await asyncio.sleep(late_s)
        if self.dead.done():
            return None
        deadline = asyncio.get_running_loop().time() + left_s
        try:
            return await self.handler(
                Call(call.method, call.arguments, deadline, call.metadata_bytes, exchange=exchange)
            )
        except RpcError as error:
            error.executed, error.origin = True, Origin.REMOTE  # as all that a handler raises
            if not self.dead.done() and not exchange.orphaned:
                raise
            return None


async def play(seed: int, *, max_entries: int, client_checks: bool, calls: int = 150) -> tuple[World, int]:
    """Make calls at random while servers restart at random; the world, and how many calls succeeded."""
    print(f"seed={seed}")
    rng = random.Random(seed)
    world = World(rng, max_entries=max_entries, client_checks=client_checks)
    unlimited = RetryBudget(reserve=float("inf"))
    handler = chain([DedupeKeys(rng=rng), Retry(5, rng=rng, budget=unlimited)], world.client)
    succeeded = 0

    async def one(number: int) -> None:
        nonlocal succeeded
        await asyncio.sleep(rng.uniform(0, 30))
        try:
            result = await handler(call_of("place", number, timeout_s=rng.choice([0.5, 5.0, 20.0])))
        except RpcError as error:
            if error.executed is False:
                assert number not in world.runs, f"call {number} is said never to have run"
        else:
            succeeded += 1
            assert result == world.results[number]

    async def restarts() -> None:
        while True:
            await asyncio.sleep(rng.uniform(0, 3))
            world.restart(rng.choice("abc"))

    restarting = asyncio.ensure_future(restarts())
    await asyncio.gather(*(one(number) for number in range(calls)))
    await asyncio.sleep(60)
    restarting.cancel()
    for boot in world.servers.values():
        boot.die()
    await asyncio.wait([restarting])
    return world, succeeded


@pytest.mark.parametrize("client_checks", [True, False], ids=["both ends check", "the server checks"])
@pytest.mark.parametrize("max_entries", [2, 10_000])
@pytest.mark.parametrize("seed", range(8))
def test_no_call_runs_twice(seed: int, max_entries: int, client_checks: bool) -> None:
    @virtual_time
    async def scenario() -> None:
        world, succeeded = await play(seed, max_entries=max_entries, client_checks=client_checks)
        assert len(world.runs) > 100
        assert max(world.runs.values()) == 1
        assert succeeded > 60

    scenario()


@virtual_time
async def test_a_lost_reply_costs_nothing_where_the_server_remembers() -> None:
    """Where links break and servers stay, nearly every call succeeds in the end, and still none runs twice."""
    rng = random.Random(5)
    print("seed=5")
    world = World(rng, max_entries=10_000, client_checks=True)
    handler = chain([DedupeKeys(rng=rng), Retry(8, rng=rng)], world.client)
    results = await asyncio.gather(
        *(handler(call_of("place", number, timeout_s=60.0)) for number in range(40)), return_exceptions=True
    )
    assert sum(isinstance(result, str) for result in results) >= 38
    await asyncio.sleep(10)
    assert max(world.runs.values()) == 1
    for boot in world.servers.values():
        boot.die()


async def lose_then(
    after: Any,
    *,
    key: bool,
    timeout_s: float = 10.0,
    route: Route | None = None,
    retry_: Retry | None = None,
    **details: Any,
) -> tuple[Any, list[Call]]:
    """A call whose first attempt is lost at node `a`, and what becomes of it."""
    calls: list[Call] = []

    async def network(call: Call) -> Any:
        calls.append(call)
        if len(calls) == 1:
            error = RpcError(Code.UNAVAILABLE, "lost", details, origin=Origin.CONNECTION)
            error.endpoint = "a"
            raise error
        return await after(call)

    retries = retry_ or Retry()
    middleware: list[Middleware] = [DedupeKeys(), retries] if key else [retries]
    try:
        call = call_of("place", 1, timeout_s=timeout_s, route=route)
        return await chain(middleware, network)(call), calls
    except RpcError as error:
        return error, calls


async def answer(call: Call) -> str:
    return "A"


@virtual_time
async def test_the_repetition_has_the_same_key_names_the_memory_and_goes_to_the_same_node_only() -> None:
    result, (first, second) = await lose_then(answer, key=True, memory="m1")
    assert result == "A"
    assert second.metadata == {**first.metadata, dedupe.MEMORY: "m1", dedupe.SPAN: "10.000"}
    assert first.route is None
    assert second.route is not None
    assert (second.route.pinned, second.route.tried) == ("a", ["a"])


@pytest.mark.parametrize(
    ("key", "details"),
    [
        (False, {"memory": "m1"}),
        (True, {}),
        (True, {"instance": "i1"}),
        (True, {"memory": 7}),
        (True, {"memory": ""}),
    ],
)
def test_without_a_key_or_a_server_that_remembers_the_call_is_not_repeated(
    key: bool, details: dict[str, Any]
) -> None:
    @virtual_time
    async def scenario() -> None:
        result, calls = await lose_then(answer, key=key, **details)
        assert isinstance(result, RpcError)
        assert result.executed is None
        assert len(calls) == 1
        assert ("@rpcfw.idempotent" in result.message) is not key

    scenario()


@virtual_time
async def test_a_refusal_by_another_memory_says_that_nobody_knows() -> None:
    async def refuse(call: Call) -> Any:
        raise RpcError(Code.ABORTED, "restarted", {"outcome": "unknown"}, origin=Origin.REMOTE, executed=True)

    result, calls = await lose_then(refuse, key=True, memory="m1")
    assert (result.code, result.executed, len(calls)) == (Code.ABORTED, None, 2)


@virtual_time
async def test_once_it_may_have_run_a_call_stays_with_its_server_whatever_comes() -> None:
    result, calls = await lose_then(unreachable, key=True, memory="m1")
    assert [call.route and call.route.pinned for call in calls] == [None, *["a"] * (len(calls) - 1)]
    assert len(calls) > 3
    assert (result.code, result.executed) == (Code.UNAVAILABLE, None)


@virtual_time
async def test_the_error_of_a_lost_call_says_once_that_its_server_does_not_remember() -> None:
    hint = "its server does not remember calls: give the server middleware=[Dedupe()]"
    result, _ = await lose_then(answer, key=True)
    assert result.message.count(hint) == 1

    async def lost_again(call: Call) -> Any:
        raise result  # a Retry of each of two hops

    error = await outcome(
        Retry()(lost_again), call_of("place", 1, metadata_bytes=pack_metadata({":key": "k"}))
    )
    assert error.message.count(hint) == 1

    async def failed(call: Call) -> Any:
        raise RpcError(Code.UNAVAILABLE, "the database is away", origin=Origin.REMOTE, executed=True)

    error = await outcome(Retry()(failed), call_of("place", 1, metadata_bytes=pack_metadata({":key": "k"})))
    assert error.message == "the database is away"


async def unreachable(call: Call) -> Any:
    """The only server that may take it is away."""
    await asyncio.sleep(1.0)
    raise RpcError(Code.UNAVAILABLE, "not connected", origin=Origin.CONNECTION, executed=False)


@virtual_time
async def test_what_may_have_run_is_asked_for_until_the_deadline_however_many_attempts_that_takes() -> None:
    back_at = asyncio.get_running_loop().time() + 100.0

    async def away_for_long(call: Call) -> Any:
        if asyncio.get_running_loop().time() < back_at:
            await unreachable(call)
        return "A"

    result, calls = await lose_then(away_for_long, key=True, timeout_s=120.0, memory="m1")
    assert result == "A"
    assert 50 < len(calls) < 110
    result, calls = await lose_then(unreachable, key=True, timeout_s=20.0, memory="m1")
    assert (result.code, result.executed) == (Code.UNAVAILABLE, None)
    assert len(calls) > 10


@virtual_time
async def test_what_may_have_run_is_not_asked_for_without_a_pause() -> None:
    async def refuse(call: Call) -> Any:
        raise RpcError(Code.UNAVAILABLE, "not connected", origin=Origin.CONNECTION, executed=False)

    retry_ = Retry(2, max_wait_s=0.0)
    _, calls = await lose_then(refuse, key=True, retry_=retry_, memory="m1")
    assert 50 < len(calls) <= 102


@virtual_time
async def test_the_number_bounds_attempts_without_a_deadline_or_a_memory_and_where_there_is_only_one() -> (
    None
):
    for attempts, timeout_s, expected in ((4, math.inf, 4), (1, 10.0, 1)):
        _, calls = await lose_then(
            unreachable, key=True, timeout_s=timeout_s, retry_=Retry(attempts), memory="m1"
        )
        assert len(calls) == expected
    unsent = RpcError(Code.UNAVAILABLE, "not connected", origin=Origin.CONNECTION, executed=False)
    count = 0

    async def never(call: Call) -> Any:
        nonlocal count
        count += 1
        raise unsent

    await outcome(chain([DedupeKeys(), Retry(4)], never), call_of("place", 1))
    assert count == 4  # it surely never ran


@virtual_time
async def test_a_route_says_that_attempts_go_on_until_the_deadline() -> None:
    route = Route()
    await lose_then(unreachable, key=True, route=route, memory="m1")
    notes = told(route)
    assert notes[1].startswith("retry: attempt 3 of 3 in ")
    assert notes[2].startswith("retry: attempt 4, until the deadline, in ")
    assert notes[-1] == "retry: not repeated: the deadline leaves no time for it"


def wrapped(handler: Handler) -> Handler:
    """A middleware that says what it wraps."""

    @functools.wraps(handler)
    async def through(call: Call) -> Any:
        return await handler(call)

    return through


@pytest.mark.parametrize("between", [[], [Hedge()], [wrapped], [wrapped, Hedge()]])
def test_keys_behind_the_retries_are_refused_as_they_would_protect_nothing(between: list[Middleware]) -> None:
    with pytest.raises(
        ValueError, match=r"DedupeKeys must stand before Retry, middleware=\[DedupeKeys\(\), Retry"
    ):
        chain([Retry(), *between, DedupeKeys()], answer)
    chain([DedupeKeys(), *between, Retry()], answer)


def test_the_names_on_the_wire_are_the_same_in_all_three_middleware() -> None:
    parts: list[Any] = [dedupe, dedupe_keys, retry]
    assert parts[0].KEY == parts[1]._KEY == parts[2]._KEY
    assert hasattr(DedupeKeys()(answer), parts[2]._GIVES_KEYS)
    assert (parts[0].MEMORY, parts[0].SPAN) == (parts[2]._MEMORY, parts[2]._SPAN)
