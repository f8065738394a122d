"""What is true of every breaker."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcfw.breaker import Adaptive, Breaker, ConsecutiveFailures, FailureRatio, Recovery, State

Make = Callable[[], Breaker]

RECOVERY = Recovery(open_s=2.0, max_open_s=2.0, probes=2, successes_to_close=2, probe_timeout_s=10.0)


def _in_a_row() -> Breaker:
    return ConsecutiveFailures(3, recovery=RECOVERY, rng=random.Random(1))


def _in_seconds() -> Breaker:
    return FailureRatio(0.5, window_s=10.0, min_calls=4, recovery=RECOVERY, rng=random.Random(1))


def _of_calls() -> Breaker:
    return FailureRatio(0.5, last=8, min_calls=4, recovery=RECOVERY, rng=random.Random(1))


def _adaptive() -> Breaker:
    return Adaptive(2.0, rng=random.Random(1))


OPENING = [_in_a_row, _in_seconds, _of_calls]
ALL = [*OPENING, _adaptive]


def break_it(breaker: Breaker, now: float) -> None:
    """Fail calls until it refuses one."""
    for _ in range(1000):
        ticket = breaker.enter(now)
        if not ticket:
            return
        breaker.leave(now, ticket, True)
    raise AssertionError("it never refused a call")


def closed_again(breaker: Breaker, now: float) -> None:
    """Let probes succeed."""
    for _ in range(RECOVERY.successes_to_close):
        breaker.leave(now, breaker.enter(now), False)
    assert breaker.state(now) is State.CLOSED


@pytest.mark.parametrize("make", ALL)
def test_a_new_breaker_is_closed_and_lets_calls_pass(make: Make) -> None:
    breaker = make()
    assert breaker.state(7.0) is State.CLOSED
    assert breaker.permits(7.0)
    assert breaker.retry_at(7.0) == 7.0
    assert breaker.enter(7.0) >= 1


@pytest.mark.parametrize("make", ALL)
def test_successes_alone_never_open_it(make: Make) -> None:
    breaker = make()
    for step in range(500):
        ticket = breaker.enter(step * 0.01)
        assert ticket
        breaker.leave(step * 0.01, ticket, False)
    assert breaker.state(5.0) is State.CLOSED


@pytest.mark.parametrize("make", ALL)
def test_calls_whose_end_says_nothing_never_open_it(make: Make) -> None:
    breaker = make()
    for step in range(500):
        ticket = breaker.enter(step * 0.01)
        assert ticket
        breaker.leave(step * 0.01, ticket, None)
    assert breaker.state(5.0) is State.CLOSED


@pytest.mark.parametrize("make", ALL)
def test_failures_alone_make_it_refuse_calls_and_it_recovers(make: Make) -> None:
    breaker = make()
    break_it(breaker, 7.0)
    assert breaker.state(7.0) is not State.CLOSED
    now = 7.0
    for _ in range(2000):
        now += 0.05
        ticket = breaker.enter(now)
        if ticket:
            breaker.leave(now, ticket, False)
    assert breaker.state(now) is State.CLOSED


@pytest.mark.parametrize("make", ALL)
def test_a_change_is_told_with_a_reason(make: Make) -> None:
    breaker, told = make(), []
    breaker.on_change(lambda before, after, why: told.append((before, after, why)))
    break_it(breaker, 7.0)
    print(told)
    before, after, why = told[0]
    assert before is State.CLOSED
    assert after is breaker.state(7.0)
    assert why
    breaker.on_change(None)
    closed = len(told)
    for step in range(200):
        ticket = breaker.enter(20.0 + step * 0.1)
        if ticket:
            breaker.leave(20.0 + step * 0.1, ticket, False)
    assert breaker.state(40.0) is State.CLOSED
    assert len(told) == closed, "nobody listens any more"


@pytest.mark.parametrize("make", ALL)
def test_a_listener_sees_the_new_state_and_may_use_the_breaker(make: Make) -> None:
    breaker, seen = make(), []

    def listen(before: State, after: State, why: str) -> None:
        breaker.permits(7.0)
        seen.append((after, breaker.state(7.0)))

    breaker.on_change(listen)
    break_it(breaker, 7.0)
    assert seen
    assert all(after is state for after, state in seen)


@pytest.mark.parametrize("make", ALL)
@given(data=st.data())
def test_asking_changes_nothing(make: Make, data: st.DataObject) -> None:
    asked, unasked = make(), make()
    now, tickets = 1.0, [0]
    for _ in range(data.draw(st.integers(1, 40))):
        now += data.draw(st.sampled_from([0.0, 0.1, 1.0, 3.0]))
        for ask in (asked.permits, asked.state, asked.retry_at):
            ask(now)
        ticket = unasked.enter(now)
        assert asked.enter(now) == ticket
        if ticket:
            tickets.append(ticket)
        failed = data.draw(st.sampled_from([True, False, None]))
        for breaker in (asked, unasked):
            breaker.leave(now, tickets[-1], failed)
        assert asked.state(now) is unasked.state(now)


@pytest.mark.parametrize("make", OPENING)
def test_an_open_breaker_refuses_all_calls_until_its_time(make: Make) -> None:
    breaker = make()
    break_it(breaker, 7.0)
    assert breaker.retry_at(7.0) == 9.0
    for now in (7.0, 8.0, 8.999):
        assert breaker.state(now) is State.OPEN
        assert not breaker.permits(now)
        assert breaker.enter(now) == 0
    assert breaker.state(9.0) is State.HALF_OPEN
    assert breaker.permits(9.0)
    assert breaker.retry_at(9.0) == 9.0
    assert breaker.enter(9.0)


@pytest.mark.parametrize("make", OPENING)
def test_only_so_many_probes_pass_at_a_time(make: Make) -> None:
    breaker = make()
    break_it(breaker, 7.0)
    first, second, third = (breaker.enter(9.0) for _ in range(3))
    assert first
    assert second
    assert third == 0
    assert not breaker.permits(9.0)
    breaker.leave(9.5, first, False)
    assert breaker.permits(9.5)
    assert breaker.enter(9.5)


@pytest.mark.parametrize("make", OPENING)
def test_it_closes_after_enough_probes_have_succeeded(make: Make) -> None:
    breaker = make()
    break_it(breaker, 7.0)
    breaker.leave(9.0, breaker.enter(9.0), False)
    assert breaker.state(9.0) is State.HALF_OPEN
    breaker.leave(9.0, breaker.enter(9.0), False)
    assert breaker.state(9.0) is State.CLOSED


@pytest.mark.parametrize("make", OPENING)
def test_one_failed_probe_opens_it_again_whatever_succeeded_before(make: Make) -> None:
    breaker = make()
    break_it(breaker, 7.0)
    first, second = breaker.enter(9.0), breaker.enter(9.0)
    breaker.leave(9.5, first, False)
    breaker.leave(9.5, second, True)
    assert breaker.state(9.5) is State.OPEN
    assert breaker.retry_at(9.5) == 11.5
    breaker.leave(11.5, breaker.enter(11.5), False)
    assert breaker.state(11.5) is State.HALF_OPEN, "the success of the time before counts no more"


@pytest.mark.parametrize("make", OPENING)
def test_a_cancelled_probe_gives_its_place_back_and_says_nothing(make: Make) -> None:
    breaker = make()
    break_it(breaker, 7.0)
    for _ in range(20):
        tickets = [breaker.enter(9.0), breaker.enter(9.0)]
        assert all(tickets)
        assert not breaker.permits(9.0)
        for ticket in tickets:
            breaker.leave(9.0, ticket, None)
        assert breaker.state(9.0) is State.HALF_OPEN


@pytest.mark.parametrize("make", OPENING)
def test_a_probe_that_is_never_left_loses_its_place(make: Make) -> None:
    breaker = make()
    break_it(breaker, 7.0)
    lost, slow = breaker.enter(9.0), breaker.enter(10.0)
    assert breaker.enter(18.9) == 0
    assert not breaker.permits(18.9)
    assert breaker.permits(19.0)
    heir = breaker.enter(19.0)
    assert heir
    assert breaker.enter(19.0) == 0, "one place was given away, not two"
    breaker.leave(19.0, lost, True)
    assert breaker.state(19.0) is State.HALF_OPEN, "it had no place any more"
    breaker.leave(20.5, slow, False)
    assert breaker.state(20.5) is State.HALF_OPEN
    breaker.leave(20.5, heir, False)
    assert breaker.state(20.5) is State.CLOSED, "a late probe whose place nobody needed counts"


@pytest.mark.parametrize("make", OPENING)
@pytest.mark.parametrize("failed", [True, False, None])
def test_calls_from_before_it_opened_change_nothing_when_they_end(make: Make, failed: bool | None) -> None:
    breaker = make()
    old = [breaker.enter(7.0) for _ in range(30)]
    break_it(breaker, 7.0)
    opened_until = breaker.retry_at(7.0)
    for ticket in old[:10]:
        breaker.leave(7.5, ticket, failed)
    assert breaker.state(7.5) is State.OPEN
    assert breaker.retry_at(7.5) == opened_until
    probe = breaker.enter(9.0)
    for ticket in old[10:20]:
        breaker.leave(9.0, ticket, failed)
    assert breaker.state(9.0) is State.HALF_OPEN
    assert breaker.enter(9.0)
    assert breaker.enter(9.0) == 0, "an old call gives no place back"
    breaker.leave(9.0, probe, False)
    breaker.leave(9.0, breaker.enter(9.0), False)
    assert breaker.state(9.0) is State.CLOSED
    for ticket in old[20:]:
        breaker.leave(9.5, ticket, failed)
    assert breaker.state(9.5) is State.CLOSED


@pytest.mark.parametrize("make", OPENING)
def test_a_probe_that_ends_after_its_time_changes_nothing(make: Make) -> None:
    breaker = make()
    break_it(breaker, 7.0)
    first, second = breaker.enter(9.0), breaker.enter(9.0)
    breaker.leave(9.0, first, True)
    assert breaker.state(9.0) is State.OPEN
    breaker.leave(10.0, second, True)
    assert breaker.retry_at(10.0) == 11.0, "not opened a second time"
    closed_again(breaker, 11.0)
    for _ in range(30):
        breaker.leave(11.0, second, True)
    assert breaker.state(11.0) is State.CLOSED


@pytest.mark.parametrize("make", OPENING)
def test_it_begins_with_a_clean_record_when_it_closes(make: Make) -> None:
    breaker = make()
    break_it(breaker, 7.0)
    closed_again(breaker, 9.0)
    breaker.leave(9.0, breaker.enter(9.0), True)
    assert breaker.state(9.0) is State.CLOSED


@pytest.mark.parametrize("make", OPENING)
def test_all_states_are_told_in_order(make: Make) -> None:
    breaker, told = make(), []
    breaker.on_change(lambda before, after, why: told.append(f"{before.value} -> {after.value}: {why}"))
    break_it(breaker, 7.0)
    breaker.leave(9.0, breaker.enter(9.0), True)
    closed_again(breaker, 11.0)
    assert told[1:] == [
        "open -> half-open: its time is over: calls pass as probes",
        "half-open -> open: a probe failed; calls are refused for 2.0 s",
        "open -> half-open: its time is over: calls pass as probes",
        "half-open -> closed: probes succeeded: 2",
    ]
    assert told[0].startswith("closed -> open: ")
    assert told[0].endswith("; calls are refused for 2.0 s")
