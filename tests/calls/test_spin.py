"""Spinning before sleeping: when it begins, how long it goes on, and that it ends where it does not pay."""

from __future__ import annotations

import asyncio
from typing import Protocol

import pytest

import rpcfw
import rpcfw.connection.spin as spinning
from rpcfw.connection.spin import Spin
from rpcfw.transport import default_transports

TURNS = 10
FIRST_PAUSE = 64
LARGE_WRITES = 8


@rpcfw.service("test.Numbers")
class Numbers(Protocol):
    """Something to call."""

    async def next(self, number: int) -> int:
        """The next number."""
        ...

    async def size(self, body: bytes) -> int:
        """How many bytes."""
        ...


class Counting(Numbers):
    """Counts."""

    async def next(self, number: int) -> int:
        return number + 1

    async def size(self, body: bytes) -> int:
        return len(body)


class Core:
    """A core whose clock stands, and that takes note of every turn that yields it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.yields = 0
        self.lengths: list[float] = []
        patch.setattr(spinning, "perf_counter", lambda: self.now)
        patch.setattr(spinning, "_yield_core", self._yield)

    def _yield(self) -> None:
        self.yields += 1
        if self.lengths:
            self.now += self.lengths.pop(0)

    async def turns_until_rest(self) -> int:
        """How many turns are spun until it stops by itself."""
        before, quiet = self.yields, 0
        while quiet < 3:  # a turn in which something was written or heard yields nothing
            seen = self.yields
            await asyncio.sleep(0)
            quiet = quiet + 1 if self.yields == seen else 0
        return self.yields - before


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    return Core(monkeypatch)


def write(spin: Spin, times: int = 1) -> None:
    for _ in range(times):
        spin.expect()


async def test_after_something_large_it_goes_on_longer_and_yields_each_turn(core: Core) -> None:
    spin = Spin(TURNS)
    spin.large()
    write(spin, LARGE_WRITES + FIRST_PAUSE)
    assert await core.turns_until_rest() == TURNS, "so many writes later it is forgotten"
    for _ in range(FIRST_PAUSE):
        spin.large()
        write(spin)
    assert await core.turns_until_rest() == 4 * TURNS


async def test_a_large_message_that_comes_makes_it_go_on_longer(core: Core) -> None:
    spin = Spin(TURNS)
    write(spin, FIRST_PAUSE + 1)
    spin.large()
    spin.heard()
    assert await core.turns_until_rest() == 4 * TURNS


async def test_what_a_spin_was_worth_counts_for_the_kind_that_it_began_with(core: Core) -> None:
    spin = Spin(TURNS)
    for attempt in range(3):  # that begin after large messages, end after small ones, and do not pay
        for _ in range((FIRST_PAUSE << attempt) + 1):
            spin.large()
            write(spin)
        write(spin, LARGE_WRITES)
        assert await core.turns_until_rest() == TURNS
    for _ in range(8 * FIRST_PAUSE):
        spin.large()
        write(spin)
    assert await core.turns_until_rest() == 0, "large ones wait longer and longer"
    write(spin, LARGE_WRITES)
    assert await core.turns_until_rest() == TURNS, "and are due then"
    write(spin, FIRST_PAUSE)
    assert await core.turns_until_rest() == 0
    write(spin)
    assert await core.turns_until_rest() == TURNS, "small ones have not been tried before"


async def test_whether_it_pays_after_large_messages_is_learnt_apart(core: Core) -> None:
    spin = Spin(TURNS)
    for pause in (FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE):
        write(spin, pause + 1)
        assert await core.turns_until_rest() == TURNS
    for pause in (FIRST_PAUSE, 2 * FIRST_PAUSE):
        for _ in range(pause):
            spin.large()
            write(spin)
        assert await core.turns_until_rest() == 0
        write(spin)
        assert await core.turns_until_rest() == 4 * TURNS
    write(spin, LARGE_WRITES - 3)
    write(spin, 8 * FIRST_PAUSE)
    assert await core.turns_until_rest() == 0, "after small ones it goes on where it was"
    write(spin)
    assert await core.turns_until_rest() == TURNS


async def test_the_first_attempt_comes_after_some_writes_and_ends_when_nothing_is_heard(core: Core) -> None:
    spin = Spin(TURNS)
    write(spin, FIRST_PAUSE)
    assert await core.turns_until_rest() == 0
    write(spin)
    assert await core.turns_until_rest() == TURNS


async def test_each_attempt_that_did_not_pay_makes_the_next_pause_twice_as_long(core: Core) -> None:
    spin = Spin(TURNS)
    pause = FIRST_PAUSE
    for _ in range(4):
        write(spin, pause)
        assert await core.turns_until_rest() == 0
        write(spin)
        assert await core.turns_until_rest() == TURNS
        pause *= 2


async def test_pauses_end_at_their_longest(core: Core) -> None:
    spin = Spin(TURNS)
    for _ in range(20):
        write(spin, 65_536 + 1)
        assert await core.turns_until_rest() == TURNS


async def test_it_goes_on_as_long_as_frames_come_and_begins_at_once_when_that_paid(core: Core) -> None:
    spin = Spin(TURNS)
    write(spin, FIRST_PAUSE + 1)
    assert await core.turns_until_rest() == TURNS
    write(spin, 2 * FIRST_PAUSE + 1)
    for _ in range(8):
        before = core.yields
        while core.yields - before < TURNS - 1:
            await asyncio.sleep(0)
        spin.heard()
    assert await core.turns_until_rest() == TURNS
    write(spin)
    assert await core.turns_until_rest() == TURNS
    write(spin, 2 * FIRST_PAUSE)
    assert await core.turns_until_rest() == 0
    write(spin)
    assert await core.turns_until_rest() == TURNS, "what did not pay before it did is forgotten"


async def test_it_ends_when_others_want_the_core(core: Core) -> None:
    spin = Spin(TURNS)
    write(spin, FIRST_PAUSE + 1)
    for _ in range(8):
        spin.heard()
    core.lengths = [1e-6, 1e-3, 1e-3, 1e-3]
    assert await core.turns_until_rest() == 4
    write(spin, 2 * FIRST_PAUSE)
    assert await core.turns_until_rest() == 0, "the next attempt comes later, though frames were heard"


async def test_an_interrupt_now_and_then_does_not_end_it(core: Core) -> None:
    spin = Spin(TURNS)
    write(spin, FIRST_PAUSE + 1)
    for _ in range(5):
        core.lengths = [1e-3]
        before = core.yields
        while core.yields == before:
            await asyncio.sleep(0)
        for _ in range(32):
            spin.heard()
    assert await core.turns_until_rest() == TURNS


async def test_zero_turns_never_spin_and_fewer_are_refused(core: Core) -> None:
    spin = Spin(0)
    write(spin, 1000)
    assert await core.turns_until_rest() == 0
    with pytest.raises(ValueError, match=r"spin_turns=-1 must be 0, for never, or more"):
        Spin(-1)


def test_a_write_while_no_loop_runs_is_no_reason_to_spin() -> None:
    write(Spin(TURNS), FIRST_PAUSE + 1)


async def _calls(endpoint: str, *, turns: int) -> None:
    limits, options = rpcfw.Limits(spin_turns=turns), rpcfw.ConnectionOptions(spin_turns=turns)
    transports = default_transports()
    async with (
        rpcfw.serve(Counting(), listen=endpoint, limits=limits, transports=transports) as server,
        rpcfw.connect(server.endpoint, options=options, transports=transports) as client,
    ):
        numbers = client.stub(Numbers)
        for number in range(2 * FIRST_PAUSE):
            assert await numbers.next(number) == number + 1


async def test_calls_over_a_socket_spin(core: Core) -> None:
    await _calls("tcp://127.0.0.1:0", turns=TURNS)
    assert core.yields > 0


async def test_calls_over_a_socket_do_not_spin_when_told_not_to(core: Core) -> None:
    await _calls("tcp://127.0.0.1:0", turns=0)
    assert core.yields == 0


async def test_calls_within_the_process_do_not_spin_as_the_other_side_needs_this_loop(core: Core) -> None:
    await _calls("mem://spin", turns=TURNS)
    assert core.yields == 0


async def test_a_large_message_is_told_where_it_is_written_and_where_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[Spin] = []
    expecting: list[Spin] = []
    expect = Spin.expect

    def take_note(spin: Spin) -> None:
        told.append(spin)

    def take_note_and_expect(spin: Spin) -> None:
        expecting.append(spin)
        expect(spin)

    monkeypatch.setattr(Spin, "large", take_note)
    monkeypatch.setattr(Spin, "expect", take_note_and_expect)
    transports = default_transports()
    async with (
        rpcfw.serve(Counting(), listen="tcp://127.0.0.1:0", transports=transports) as server,
        rpcfw.connect(server.endpoint, transports=transports) as client,
    ):
        numbers = client.stub(Numbers)
        assert await numbers.next(1) == 2
        assert told == []
        expecting.clear()
        assert await numbers.size(bytes(1_000_000)) == 1_000_000
    assert len({id(spin) for spin in told}) == 2, "the client's, which wrote, and the server's, which read"
    assert told[0] in expecting, "who wrote something large expects an answer too"
