"""The board from which registries show snapshots to their watchers."""

from __future__ import annotations

import asyncio
import random

import pytest

from rpcfw.registry import Registration
from rpcfw.registry.snapshots import Board
from rpcfw.testing.registry_contract import registration

ORDERS = "shop.Orders"
ONE, TWO = registration(7001), registration(7002)


async def test_a_watcher_waits_until_something_is_known_and_nothing_is_known_of_nobody() -> None:
    board = Board()
    watch = board.watch(ORDERS)
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert board.known(ORDERS) is None
    board.publish(ORDERS, [])
    assert await waiting == frozenset()
    assert board.known(ORDERS) == frozenset()
    assert board.services() == frozenset()
    await watch.aclose()


async def test_changes_that_nobody_took_come_as_one_and_a_change_taken_back_as_none() -> None:
    board = Board()
    board.publish(ORDERS, [ONE])
    watch = board.watch(ORDERS)
    assert await anext(watch) == {ONE}
    board.publish(ORDERS, [])
    board.publish(ORDERS, [TWO])
    assert await anext(watch) == {TWO}
    board.publish(ORDERS, [])
    board.publish(ORDERS, [TWO])
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    board.publish(ORDERS, [ONE])
    board.publish(ORDERS, [TWO])
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    board.publish(ORDERS, [ONE, TWO])
    assert await waiting == {ONE, TWO}
    await watch.aclose()


async def test_publishing_what_is_known_wakes_nobody() -> None:
    board = Board()
    board.publish(ORDERS, [ONE])
    watch = board.watch(ORDERS)
    await anext(watch)
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    (waiter,) = board._waiting[ORDERS]
    board.publish(ORDERS, [registration(7001)])
    assert not waiter.done()
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_the_registry_is_told_of_the_first_watcher_and_of_the_end_of_the_last() -> None:
    told: list[str] = []
    board = Board(
        first=lambda service: told.append(f"+{service}"), last=lambda service: told.append(f"-{service}")
    )
    one, two, other = board.watch(ORDERS), board.watch(ORDERS), board.watch("shop.Stock")
    assert told == []  # a watch that nobody reads costs nothing
    readers = [asyncio.ensure_future(anext(watch, None)) for watch in (one, two, other)]
    await asyncio.sleep(0)
    assert told == ["+shop.Orders", "+shop.Stock"]
    assert board.watched() == (ORDERS, "shop.Stock")
    readers[0].cancel()
    await asyncio.wait([readers[0]])
    assert told == ["+shop.Orders", "+shop.Stock"]
    readers[1].cancel()
    await asyncio.wait([readers[1]])
    assert told == ["+shop.Orders", "+shop.Stock", "-shop.Orders"]
    board.close()
    assert await readers[2] is None
    assert told[-1] == "-shop.Stock"
    assert board.watched() == ()


async def test_a_cancelled_watcher_leaves_no_waiter_behind() -> None:
    board = Board()
    reader = asyncio.ensure_future(anext(board.watch(ORDERS)))
    await asyncio.sleep(0)
    assert board._waiting
    reader.cancel()
    await asyncio.wait([reader])
    assert not board._waiting
    assert not board._watchers


async def test_a_watcher_cancelled_in_the_turn_it_is_woken_in_takes_nothing_from_others() -> None:
    board = Board()
    readers = [asyncio.ensure_future(anext(board.watch(ORDERS))) for _ in range(3)]
    await asyncio.sleep(0)
    board.publish(ORDERS, [ONE])
    readers[1].cancel()
    await asyncio.wait(readers)
    assert readers[0].result() == readers[2].result() == {ONE}
    assert readers[1].cancelled()


async def test_of_too_many_registrations_all_clients_keep_the_same(caplog: pytest.LogCaptureFixture) -> None:
    entries = [registration(7000 + number) for number in range(6)]
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    seen: set[frozenset[Registration]] = set()
    board = Board(limit=4)
    for _ in range(5):
        rng.shuffle(entries)
        board.publish(ORDERS, entries)
        known = board.known(ORDERS)
        assert known is not None
        seen.add(known)
    assert seen == {frozenset(registration(7000 + number) for number in range(4))}
    assert [record.message for record in caplog.records] == [
        "shop.Orders has 6 registrations, more than 4: the others are left out"
    ]
    with pytest.raises(ValueError, match="limit=0"):
        Board(limit=0)


async def test_a_closed_board_keeps_nothing() -> None:
    board = Board()
    board.publish(ORDERS, [ONE])
    board.close()
    board.close()
    board.publish(ORDERS, [TWO])
    assert board.known(ORDERS) is None
    assert [snapshot async for snapshot in board.watch(ORDERS)] == []


async def test_what_is_forgotten_is_not_shown_to_the_next_watcher() -> None:
    board = Board()
    board.publish(ORDERS, [ONE])
    board.forget(ORDERS)
    reader = asyncio.ensure_future(anext(board.watch(ORDERS)))
    await asyncio.sleep(0)
    board.publish(ORDERS, [TWO])
    assert await reader == {TWO}
