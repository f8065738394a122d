"""What a process does for its registrations in a store, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Collection

import pytest

from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, RpcError
from rpcfw.registry import Registration
from rpcfw.registry.remote import Away, Pauses
from rpcfw.registry.upkeep import LEAVING_S, Upkeep
from rpcfw.testing.virtual_clock import VirtualClock

LEASE_S, TIMEOUT_S = 9.0, 5.0


class Script:
    """A store that keeps what it is told, and does what a test wants."""

    def __init__(self) -> None:
        self.kept: dict[str, Registration] = {}
        self.renewed_at: list[float] = []
        self.puts = 0
        self.failure: Exception | None = None
        self.hangs = False
        self.ended = 0

    async def _work(self) -> None:
        await asyncio.sleep(0.01)
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        if self.failure is not None:
            raise type(self.failure)(*self.failure.args)

    async def put(self, registration: Registration) -> None:
        self.puts += 1
        await self._work()
        self.kept[registration.key] = registration

    async def remove(self, registration: Registration) -> None:
        await self._work()
        self.kept.pop(registration.key, None)

    async def renew(self, registrations: Collection[Registration]) -> list[str]:
        await self._work()
        self.renewed_at.append(asyncio.get_running_loop().time())
        return [entry.key for entry in registrations if entry.key not in self.kept]

    async def end(self) -> None:
        self.ended += 1


@pytest.fixture
def store() -> Script:
    return Script()


@pytest.fixture
def problems() -> list[str]:
    return [""]


@pytest.fixture
def upkeep(store: Script, problems: list[str]) -> Upkeep:
    def report(problem: str) -> None:
        if problem != problems[-1]:
            problems.append(problem)

    return Upkeep(store, lease_s=LEASE_S, timeout_s=TIMEOUT_S, report=report, rng=random.Random(1))


def entry(port: int = 7001, weight: int = 100) -> Registration:
    return Registration("shop.Orders", Endpoint.parse(f"tcp://127.0.0.1:{port}?weight={weight}"))


async def test_a_lease_is_renewed_three_times_in_its_time(
    upkeep: Upkeep, store: Script, virtual_clock: VirtualClock
) -> None:
    async with upkeep.register(entry()):
        await asyncio.sleep(90.0)
        gaps = [later - sooner for sooner, later in zip(store.renewed_at, store.renewed_at[1:], strict=False)]
        assert len(gaps) >= 28
        assert all(LEASE_S / 3 * 0.8 <= gap <= LEASE_S / 3 + 0.1 for gap in gaps)
        assert len({round(gap, 3) for gap in gaps}) > 10  # with jitter: not all servers at the same moment
    assert store.ended == 1
    await upkeep.close()


async def test_what_the_store_has_forgotten_is_put_again(
    upkeep: Upkeep, store: Script, virtual_clock: VirtualClock
) -> None:
    async with upkeep.register(entry(7001)), upkeep.register(entry(7002)):
        del store.kept[entry(7002).key]
        await asyncio.sleep(LEASE_S / 3 + 0.1)
        assert set(store.kept) == {entry(7001).key, entry(7002).key}
        assert store.puts == 3


@pytest.mark.parametrize("failure", [Away("gone fishing"), RuntimeError("a bug")], ids=["away", "fault"])
async def test_a_store_that_fails_is_tried_again_until_it_works(
    upkeep: Upkeep,
    store: Script,
    problems: list[str],
    failure: Exception,
    virtual_clock: VirtualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with upkeep.register(entry()):
        store.failure, store.kept = failure, {}
        await asyncio.sleep(3600.0)
        assert str(failure) in problems[-1]
        assert len(caplog.records) == isinstance(failure, RuntimeError)  # told once, not for an hour
        store.failure = None
        await asyncio.sleep(2.1)
        assert store.kept == {entry().key: entry()}
        assert problems[-1] == ""


async def test_who_registers_waits_for_a_store_that_comes_back(
    upkeep: Upkeep, store: Script, virtual_clock: VirtualClock
) -> None:
    store.failure = Away("gone fishing")
    asyncio.get_running_loop().call_later(2.0, setattr, store, "failure", None)
    async with upkeep.register(entry()):
        assert store.kept


@pytest.mark.parametrize("hangs", [False, True])
async def test_who_registers_waits_no_longer_than_the_timeout(
    upkeep: Upkeep, store: Script, hangs: bool, virtual_clock: VirtualClock
) -> None:
    store.failure, store.hangs = Away("gone fishing"), hangs
    began_at = asyncio.get_running_loop().time()
    with pytest.raises(RpcError, match="does not answer" if hangs else "gone fishing") as caught:
        async with upkeep.register(entry()):
            pass
    assert caught.value.code is Code.UNAVAILABLE
    assert caught.value.executed is False
    assert asyncio.get_running_loop().time() - began_at == pytest.approx(TIMEOUT_S)
    await upkeep.close()


async def test_what_was_given_up_is_taken_back_although_it_was_done_after_all(
    upkeep: Upkeep, store: Script, virtual_clock: VirtualClock
) -> None:
    task = asyncio.create_task(upkeep.register(entry()).__aenter__())
    await asyncio.sleep(0.005)  # the store is about to do it
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await asyncio.sleep(0.006)
    assert store.kept
    await asyncio.sleep(1.0)
    assert not store.kept


async def test_leaving_waits_for_the_store_but_not_for_long(
    upkeep: Upkeep, store: Script, virtual_clock: VirtualClock
) -> None:
    loop = asyncio.get_running_loop()
    async with upkeep.register(entry()):
        store.failure = Away("gone fishing")
        began_at = loop.time()
    assert loop.time() - began_at == pytest.approx(LEAVING_S)
    assert store.kept
    store.failure = None
    await asyncio.sleep(2.1)
    assert not store.kept  # it was meant


async def test_the_last_registration_of_a_key_counts_and_the_one_before_comes_back(
    upkeep: Upkeep, store: Script, virtual_clock: VirtualClock
) -> None:
    async with upkeep.register(entry(weight=1)):
        async with upkeep.register(entry(weight=2)):
            assert store.kept == {entry().key: entry(weight=2)}
        assert store.kept == {entry().key: entry(weight=1)}
    assert not store.kept


async def test_leaving_one_that_was_replaced_says_nothing(
    upkeep: Upkeep, store: Script, virtual_clock: VirtualClock
) -> None:
    before = contextlib.AsyncExitStack()
    await before.enter_async_context(upkeep.register(entry(weight=1)))
    async with upkeep.register(entry(weight=2)):
        await before.aclose()
        assert store.puts == 2
        assert store.kept == {entry().key: entry(weight=2)}
    assert not store.kept


async def test_closing_takes_everything_back_and_a_later_registration_is_refused(
    upkeep: Upkeep, store: Script, virtual_clock: VirtualClock
) -> None:
    async with upkeep.register(entry(7001)), upkeep.register(entry(7002)):
        await upkeep.close()
        assert not store.kept
        with pytest.raises(RpcError, match="the registry is closed") as caught:
            async with upkeep.register(entry(7003)):
                pass
        assert caught.value.code is Code.FAILED_PRECONDITION


async def test_closing_does_not_wait_for_a_store_that_hangs(
    upkeep: Upkeep, store: Script, virtual_clock: VirtualClock
) -> None:
    loop = asyncio.get_running_loop()
    async with upkeep.register(entry()):
        store.hangs = True
        began_at = loop.time()
        await upkeep.close()
    assert loop.time() - began_at == pytest.approx(LEAVING_S)


def test_pauses_double_to_two_seconds_with_jitter() -> None:
    pauses = Pauses(random.Random(1))
    for most in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0):
        assert most / 2 <= pauses.next_s() <= most
    pauses.reset()
    assert pauses.next_s() <= 0.05
