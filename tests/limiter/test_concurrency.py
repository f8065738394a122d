"""Slots: never more than the limit, each class in its turn, and none lost."""

from __future__ import annotations

import random

import pytest

from rpcfw.limiter import Concurrency, Priority
from rpcfw.limiter.concurrency import Ticket

CRITICAL, NORMAL, SHEDDABLE = Priority


def waits(slots: Concurrency, priority: Priority = NORMAL) -> Ticket:
    assert not slots.enter(priority)
    ticket = slots.wait(priority, lambda: None)
    assert ticket is not None
    return ticket


def test_no_more_than_the_limit_enter() -> None:
    slots = Concurrency(3)
    assert [slots.enter() for _ in range(5)] == [True, True, True, False, False]
    slots.leave()
    assert [slots.enter() for _ in range(2)] == [True, False]


def test_sheddable_ones_get_four_fifths_and_the_last_tenth_is_for_critical_ones_once_there_are_any() -> None:
    slots = Concurrency(10)
    assert [slots.enter(SHEDDABLE) for _ in range(9)] == [True] * 8 + [False]
    assert [slots.enter(NORMAL) for _ in range(3)] == [True, True, False]
    assert not slots.enter(CRITICAL)
    slots.leave()
    assert not slots.enter(NORMAL)  # kept, since one has come
    assert slots.enter(CRITICAL)


def test_a_limit_of_one_is_for_everyone() -> None:
    slots = Concurrency(1)
    for priority in Priority:
        assert slots.enter(priority)
        slots.leave()


def test_those_that_wait_come_in_their_order_and_nobody_passes_them() -> None:
    slots = Concurrency(1, queue=3)
    assert slots.enter()
    tickets = [waits(slots) for _ in range(3)]
    assert slots.wait(NORMAL, lambda: None) is None
    for ticket in tickets:
        assert ticket.granted is None
        slots.leave(0.0)
        assert ticket.granted
        assert not slots.enter()
    assert (slots.running, slots.waiting) == (1, 0)


def test_the_highest_class_is_next() -> None:
    slots = Concurrency(1, queue=3)
    assert slots.enter()
    low, middle, high = waits(slots, SHEDDABLE), waits(slots, NORMAL), waits(slots, CRITICAL)
    got = []
    for _ in range(3):
        slots.leave(0.0)
        got.append([bool(ticket.granted) for ticket in (high, middle, low)])
    assert got == [[True, False, False], [True, True, False], [True, True, True]]


def test_a_full_queue_turns_out_the_last_of_the_lowest_class_for_a_higher_one() -> None:
    slots = Concurrency(1, queue=2)
    assert slots.enter()
    first, last = waits(slots, SHEDDABLE), waits(slots, SHEDDABLE)
    higher = slots.wait(NORMAL, lambda: None)
    assert (first.granted, last.granted) == (None, False)
    assert higher is not None
    assert slots.wait(SHEDDABLE, lambda: None) is None
    assert slots.waiting == 2


def test_one_that_gives_up_makes_room_and_a_slot_it_got_meanwhile_goes_on() -> None:
    slots = Concurrency(1, queue=2)
    assert slots.enter()
    first, second = waits(slots), waits(slots)
    slots.leave(0.0)
    assert first.granted
    slots.give_up(first, 0.0)
    assert second.granted
    slots.leave(0.0)
    assert (slots.running, slots.waiting) == (0, 0)


def test_the_expected_wait_is_that_of_the_pace_of_late_and_forgotten_with_the_queue() -> None:
    slots = Concurrency(1, queue=10)
    assert slots.enter()
    slots.leave(0.0)
    assert slots.enter()
    tickets = [waits(slots) for _ in range(5)]
    assert slots.expected_wait_s(NORMAL) == 0
    for at in (100.0, 100.5, 101.0):
        slots.leave(at)
    assert slots.waiting == 2
    assert slots.expected_wait_s(NORMAL) == pytest.approx(1.5)
    assert slots.expected_wait_s(CRITICAL) == pytest.approx(0.5)
    for at in (101.5, 102.0, 102.5):
        slots.leave(at)
    assert slots.expected_wait_s(NORMAL) == 0
    assert tickets[-1].granted


def test_a_limit_that_shrinks_lets_nobody_in_until_it_is_met() -> None:
    slots = Concurrency(4)
    for _ in range(4):
        assert slots.enter()
    slots.limit = 2
    for _ in range(2):
        slots.leave()
        assert not slots.enter()
    slots.leave()
    assert slots.enter()


def test_a_limit_that_grows_lets_in_who_waits_and_nobody_before_them() -> None:
    slots = Concurrency(1, queue=5)
    assert slots.enter()
    tickets = [waits(slots) for _ in range(3)]
    slots.limit = 3
    assert [ticket.granted for ticket in tickets] == [True, True, None]
    assert not slots.enter()


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_the_limit_holds_and_nobody_is_forgotten(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    slots = Concurrency(rng.randint(1, 6), queue=rng.randint(0, 5))
    inside, tickets, now = 0, list[Ticket](), 0.0
    for _ in range(3000):
        now += rng.random()
        act = rng.randrange(10)
        if rng.random() < 0.01:
            slots.limit = rng.randint(1, 6)
        if act < 5:
            priority = rng.choice(list(Priority))
            if slots.enter(priority):
                inside += 1
            elif slots.queue:
                ticket = slots.wait(priority, lambda: None)
                tickets += [ticket] if ticket is not None else []
        elif act < 8 and inside:
            inside -= 1
            slots.leave(now)
        elif tickets:
            slots.give_up(tickets.pop(rng.randrange(len(tickets))), now)
        inside += sum(bool(ticket.granted) for ticket in tickets)
        tickets = [ticket for ticket in tickets if ticket.granted is None]
        assert slots.running == inside <= 6
        assert not tickets or inside >= slots.ceiling(min(ticket.priority for ticket in tickets))
        assert slots.waiting == len(tickets) <= slots.queue
        if slots.running == 0:
            assert not tickets
    while inside:
        inside -= 1
        slots.leave(now)
        inside += sum(bool(ticket.granted) for ticket in tickets)
        tickets = [ticket for ticket in tickets if ticket.granted is None]
    assert not tickets


@pytest.mark.parametrize(("limit", "queue", "word"), [(0, 0, "limit"), (1, -1, "queue")])
def test_what_cannot_be_is_refused_by_name(limit: int, queue: int, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Concurrency(limit, queue)
