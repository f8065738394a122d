"""The small states beside the reader: credit, heartbeat, ping guard, handshake, deadlines, metadata, errors."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcfw.errors import Code, Origin, ProtocolError, RpcError
from rpcfw.wire.frames import (
    HEADER_BYTES,
    pack_error,
    seconds_of,
    split_metadata,
    ticks_of,
    unpack_error,
    with_metadata,
)
from rpcfw.wire.handshake import MIN_FRAME_BYTES, Hello, MethodEntry, Settings
from rpcfw.wire.liveness import Liveness, PingGuard, Verdict
from rpcfw.wire.window import ITEM_OVERHEAD, MAX_CREDIT, ReceiveWindow, SendWindow, cost_of

# credit


def test_an_item_costs_its_bytes_and_sixty_four() -> None:
    assert ITEM_OVERHEAD == 64
    assert cost_of(100, 3) == 292


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 64)), max_size=60), st.integers(1, 4000))
def test_sender_and_receiver_agree_on_the_credit_whatever_is_sent(
    batches: list[tuple[int, int]], size: int
) -> None:
    sender, receiver = SendWindow(size), ReceiveWindow(size)
    unread: list[int] = []
    for body_bytes, items in batches:
        while sender.credit <= 0:
            granted = receiver.consume(unread.pop(0))
            if granted:
                sender.grant(granted)
        cost = cost_of(body_bytes, items)
        sender.credit -= cost
        receiver.arrive(cost)
        unread.append(cost)
        assert sum(unread) <= size + max(cost_of(*batch) for batch in batches), "only one batch may overdraw"
        assert receiver.credit == sender.credit


def test_credit_may_be_overdrawn_once() -> None:
    window = ReceiveWindow(100)
    window.arrive(99)
    window.arrive(5000)
    with pytest.raises(ProtocolError, match="1 bytes of items arrived without credit; the window is 100"):
        window.arrive(1)


def test_credit_is_granted_when_half_the_window_was_consumed() -> None:
    window = ReceiveWindow(100)
    window.arrive(80)
    assert [window.consume(cost) for cost in (30, 19, 1, 30)] == [0, 0, 50, 0]
    assert window.credit == 70


@pytest.mark.parametrize("credit", [0, MAX_CREDIT])
def test_an_empty_or_absurd_grant_is_a_violation(credit: int) -> None:
    with pytest.raises(ProtocolError, match="a credit of"):
        SendWindow(1).grant(credit)
    SendWindow(0).grant(MAX_CREDIT)


# heartbeat


def test_a_silent_peer_is_pinged_and_then_lost() -> None:
    liveness = Liveness(10, 3, now=100)
    assert liveness.next_look() == 110
    assert liveness.look(109) is Verdict.QUIET
    assert liveness.look(110) is Verdict.PING
    assert liveness.next_look() == 113
    assert liveness.look(112) is Verdict.QUIET
    assert liveness.look(113) is Verdict.LOST


def test_any_byte_is_a_sign_of_life_and_measures_the_round_trip() -> None:
    liveness = Liveness(10, 3, now=100)
    assert math.isnan(liveness.round_trip_s)
    liveness.heard(105)
    assert liveness.look(110) is Verdict.QUIET
    assert liveness.look(115) is Verdict.PING
    liveness.heard(116.5)
    assert liveness.round_trip_s == 1.5
    assert liveness.look(118) is Verdict.QUIET
    assert liveness.next_look() == 126.5


def test_a_look_at_the_very_moment_that_was_asked_for_decides() -> None:
    for number in range(1_000):  # at some of these, (now + interval) - now is less than the interval
        liveness = Liveness(15, 5, now=1_000 + 0.0123 * number)
        assert liveness.look(liveness.next_look()) is Verdict.PING
        assert liveness.look(liveness.next_look()) is Verdict.LOST


def test_without_an_interval_nothing_is_ever_pinged() -> None:
    liveness = Liveness(math.inf, 3, now=0)
    assert liveness.look(1e9) is Verdict.QUIET
    assert liveness.next_look() == math.inf


def test_ten_early_pings_are_borne_and_the_eleventh_is_not() -> None:
    guard = PingGuard(1.0)
    assert all(guard.ping(now=5.0) for _ in range(11))
    assert not guard.ping(now=5.5)


def test_a_ping_in_time_forgives_the_early_ones() -> None:
    guard = PingGuard(1.0, strikes=1)
    assert [guard.ping(now) for now in (0, 0.5, 1.5, 2.0, 2.1)] == [True, True, True, True, False]


# handshake


def _hello(**changes: Any) -> bytes:
    fields = msgpack.unpackb(Hello(Settings()).pack()[HEADER_BYTES:])
    return bytes(msgpack.packb({**fields, **changes}))


def test_a_greeting_says_sizes_and_services_and_unknown_entries_are_passed_over() -> None:
    hello = Hello(Settings(max_streams=5), {"a.B": ("2.0", {"c": MethodEntry(65_535, "f" * 16)})})
    assert Hello.unpack(hello.pack()[HEADER_BYTES:]) == hello
    assert Hello.unpack(_hello(new=[1, {"x": 2}])) == Hello(Settings())


def test_a_greeting_without_services_is_as_good_as_one_with_none() -> None:
    fields = msgpack.unpackb(_hello())
    del fields["services"]
    assert Hello.unpack(msgpack.packb(fields)).services == {}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "cannot be read"),
        (b"\xc1", "cannot be read"),
        (b"\xc0", "cannot be read"),
        (b"\x90", "cannot be read"),
        (b"\x80", "KeyError 'version'"),
        (b"\x91" * 2000, "cannot be read"),
        (b"\xdf\xff\xff\xff\xff", "cannot be read"),
        (_hello(version=2), "the peer speaks version 2 of the protocol; this side speaks 1"),
        (_hello(version=[]), "version"),
        (_hello(max_streams=0), "max_streams=0 is not a size"),
        (_hello(max_streams=True), "max_streams=True is not a size"),
        (_hello(window_bytes=-1), "window_bytes=-1 is not a size"),
        (_hello(window_bytes=1 << 31), "window_bytes=2147483648 is not a size"),
        (_hello(max_frame_bytes=MIN_FRAME_BYTES - 1), "max_frame_bytes=16383 is not a size from 16,384"),
        (_hello(services=7), "cannot be read"),
        (_hello(services={"a": 1}), "cannot be read"),
        (_hello(services={"a": ["1", {"m": [1]}]}), "cannot be read"),
        (_hello(services={"a": ["1", {"m": [0, "f"]}]}), "0 is not the number of a method"),
        (_hello(services={"a": ["1", {"m": [65_536, "f"]}]}), "65536 is not the number of a method"),
        (_hello(services={"a": ["1", {"m": [math.inf, "f"]}]}), "inf is not the number of a method"),
        (_hello(services={"a": ["1", {"m": ["x", "f"]}]}), "'x' is not the number of a method"),
    ],
)
def test_a_greeting_that_cannot_be_read_is_refused_with_what_is_wrong(body: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError) as refusal:
        Hello.unpack(body)
    assert reason in str(refusal.value)


@given(st.binary(max_size=200))
def test_no_greeting_raises_anything_else(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        Hello.unpack(body)


# deadlines


@given(st.floats(0.0, 50_000.0))
def test_no_hop_adds_time(remaining_s: float) -> None:
    carried = seconds_of(ticks_of(remaining_s))
    assert carried <= max(remaining_s, 1e-5)
    assert carried > min(remaining_s, 42_949.0) - 2e-5


def test_ticks_are_ten_microseconds_rounded_down_and_none_is_zero() -> None:
    assert [ticks_of(s) for s in (1.0, 0.000_019, 0.0, 1e9, math.inf)] == [100_000, 1, 1, 0xFFFF_FFFF, 0]
    assert seconds_of(0) == math.inf


# metadata and errors


def test_metadata_stands_before_the_rest_of_the_body() -> None:
    assert split_metadata(with_metadata(b"meta", b"rest"), 4) == (b"meta", b"rest")
    assert split_metadata(memoryview(with_metadata(b"", b"")), 0) == (b"", b"")


@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        (b"\x01\0\0", Code.INVALID_ARGUMENT, "must begin with the four bytes of its length"),
        (
            with_metadata(b"abc", b"")[:-1],
            Code.INVALID_ARGUMENT,
            "metadata of 3 bytes does not fit into a body of 6",
        ),
        (
            b"\xff\xff\xff\xff",
            Code.RESOURCE_EXHAUSTED,
            "metadata of 4,294,967,295 bytes is over the limit of 100",
        ),
        (
            with_metadata(bytes(101), b""),
            Code.RESOURCE_EXHAUSTED,
            "metadata of 101 bytes is over the limit of 100",
        ),
    ],
)
def test_metadata_that_does_not_fit_refuses_its_call(body: bytes, code: Code, reason: str) -> None:
    with pytest.raises(RpcError) as refusal:
        split_metadata(body, 100)
    assert (refusal.value.code, refusal.value.executed) == (code, False)
    assert reason in refusal.value.message


def test_errors_travel_with_code_message_details_and_whether_they_ran() -> None:
    sent = RpcError(Code.ABORTED, "Größe", {"n": [1, None, {"x": 1.5}]}, executed=True)
    sent.remote_traceback = "trace"
    read = unpack_error(pack_error(sent))
    assert (read.code, read.message, read.details, read.executed) == (
        sent.code,
        sent.message,
        sent.details,
        True,
    )
    assert (read.origin, read.remote_traceback) == (Origin.REMOTE, "trace")


@pytest.mark.parametrize("details", [{"x": object()}, {"x": 1 << 70}, {"x": "\udc80"}, {"x": {1, 2}}])
def test_details_that_cannot_travel_are_left_out_and_the_rest_arrives(details: dict[str, Any]) -> None:
    read = unpack_error(pack_error(RpcError(Code.ABORTED, "\udc80 why", details)))
    assert read.code is Code.ABORTED
    assert "why (its details cannot travel" in read.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x80",
        b"\x90",
        b"\x07",
        b"\x91" * 5000,
        b"\xdd\xff\xff\xff\xff",
        msgpack.packb({"code": 99, "message": "x"}),
        msgpack.packb({"code": [], "message": "x"}),
        msgpack.packb({"code": 5, "message": 5}),
        msgpack.packb({"code": 5}),
        msgpack.packb({"code": 5, "message": "x", "details": [1]}),
    ],
)
def test_an_error_that_cannot_be_read_becomes_one_that_says_so(body: bytes) -> None:
    read = unpack_error(body)
    assert read.code is Code.INTERNAL
    assert read.message.startswith("the peer sent an error that cannot be read: ")


@given(st.binary(max_size=100))
def test_no_error_raises_when_it_is_read(body: bytes) -> None:
    assert isinstance(unpack_error(body), RpcError)
