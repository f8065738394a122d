"""What each side does when the other breaks a rule, and when it only seems to: whole connections over fake links."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest

import rpcfw
from rpcfw import Code, RpcError
from rpcfw.codec import plan_of_items
from rpcfw.connection.client import ClientConnection
from rpcfw.connection.resources import Resources
from rpcfw.connection.streams import ItemReceiver
from rpcfw.errors import Origin
from rpcfw.stub import make_stub
from rpcfw.wire.frames import (
    CHUNK,
    CREDIT,
    END,
    ERROR,
    GOAWAY,
    HELLO,
    ITEMS,
    MAGIC,
    METADATA,
    PING,
    PONG,
    REFUSED,
    REPLY,
    REQUEST,
    RESET,
    Frame,
    frame,
    pack_error,
    unpack_error,
    with_metadata,
)
from rpcfw.wire.handshake import Hello, Settings
from rpcfw.wire.reader import Budget
from tests.wire.ends import QUIET, serve
from tests.wire.links import FakeLink, parse, split, turn
from tests.wire.shop import Order, Orders

GREETING = Hello(Settings()).pack()
GET, PLACE, WATCH, TOTAL, SCAN, WAIT = 1, 2, 4, 5, 7, 8
ARGUMENTS = msgpack.packb({"order_id": 7})
SMALL = rpcfw.Limits(
    block_threshold_s=None,
    max_memory_bytes=1000,
    connection=Settings(window_bytes=200, max_metadata_bytes=50),
)


class Guest:
    """A client of a real server that says what it likes."""

    def __init__(self, limits: rpcfw.Limits = QUIET, *, greet: bool = True) -> None:
        self.server = serve(Orders(), limits=limits)
        self.link = FakeLink(self.server._accept()).open()
        if greet:
            self.say(GREETING)
            assert [kind for kind, *_ in self.heard()] == [HELLO]

    def say(self, *frames: bytes) -> None:
        self.link.deliver(b"".join(frames))

    def heard(self) -> list[Frame]:
        return [parse(data) for data in split(self.link.take())]

    async def answers(self) -> list[Frame]:
        await turn(8)
        return self.heard()

    async def leave(self) -> None:
        self.link.close()
        await turn(5)
        assert self.server.running == 0
        assert self.server.connections == 0
        assert self.server._resources.budget.used == 0


def request(method: int, stream: int, body: bytes = ARGUMENTS, flags: int = END, extra: int = 0) -> bytes:
    return frame(REQUEST, flags, method, stream, extra, body)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (GREETING, "a second HELLO came"),
        (frame(REPLY, END, 0, 1, 0), "a client may not send this frame"),
        (frame(11, 0, 0, 0, 0), "a frame of an unknown type came"),
        (frame(255, 0, 0, 0, 0), "a frame of an unknown type came"),
        (request(WAIT, 1, b"\x80") + request(WAIT, 1, b"\x80"), "stream 1 is in use"),
        (frame(CHUNK, 0, 0, 1, 1 << 31, b"x"), "over the limit of 16,777,216"),
        (
            request(TOTAL, 1, b"\x80", 0)
            + frame(ITEMS, 0, 0, 1, 2, b"\x91" + msgpack.packb({"id": 1, "item": "x"})),
            "a batch of 1 items says that it has 2",
        ),
        (frame(PING, 0, 0, 0, 1) * 12, "too many pings: at most one every 1 s is allowed"),
        (frame(PONG, 0, 0, 0, 1, b"\xc1"), "the load in a PONG cannot be read"),
    ],
)
async def test_a_client_that_breaks_a_rule_is_told_which_and_cut_off(said: bytes, reason: str) -> None:
    guest = Guest()
    guest.say(said)
    kind, _, _, _, code, body = (await guest.answers())[-1]
    assert (kind, Code(code)) == (GOAWAY, Code.INVALID_ARGUMENT)
    assert reason in bytes(body).decode()
    assert guest.link.is_closing()
    await guest.leave()


@pytest.mark.parametrize(
    "said", [request(GET, 1), frame(PING, 0, 0, 0, 1), b"GET / HTTP/1.1\r\n\r\n" + bytes(16)]
)
async def test_nothing_may_come_before_the_greeting(said: bytes) -> None:
    guest = Guest(greet=False)
    guest.say(said)
    ((kind, _, _, _, _, body),) = await guest.answers()
    assert kind == GOAWAY
    assert b"does not speak rpcfw" in bytes(body)
    await guest.leave()


async def test_a_greeting_that_cannot_be_read_is_told_why() -> None:
    guest = Guest(greet=False)
    guest.say(frame(HELLO, 0, 0, 0, MAGIC, msgpack.packb({"version": 9})))
    ((kind, *_, body),) = await guest.answers()
    assert (kind, bytes(body)) == (GOAWAY, b"the peer speaks version 9 of the protocol; this side speaks 1")
    await guest.leave()


@pytest.mark.parametrize(
    ("said", "code", "reason"),
    [
        (request(GET, 1, b"\xc1"), Code.INVALID_ARGUMENT, "the bytes are not a valid message"),
        (request(GET, 1, b"\x80"), Code.INVALID_ARGUMENT, "order_id"),
        (
            request(GET, 1, msgpack.packb({"order_id": None})),
            Code.INVALID_ARGUMENT,
            "order_id: expected `int`",
        ),
        (request(999, 1), Code.UNIMPLEMENTED, "there is no method"),
        (request(0, 1), Code.INVALID_ARGUMENT, "the metadata cannot be read"),
        (
            request(0, 1, with_metadata(b"\x81\xa7:method\xa1x", b""), END | METADATA),
            Code.UNIMPLEMENTED,
            "there is no method 'x' here",
        ),
        (request(GET, 1, b"\x01", END | METADATA), Code.INVALID_ARGUMENT, "the four bytes of its length"),
        (
            request(GET, 1, b"\x09\0\0\0", END | METADATA),
            Code.INVALID_ARGUMENT,
            "metadata of 9 bytes does not fit",
        ),
        (
            request(GET, 1, with_metadata(bytes(20_000), ARGUMENTS), END | METADATA),
            Code.RESOURCE_EXHAUSTED,
            "metadata of 20,000 bytes is over the limit of 16,384",
        ),
    ],
)
async def test_a_request_that_cannot_be_served_is_refused_alone(said: bytes, code: Code, reason: str) -> None:
    guest = Guest()
    guest.say(said, request(GET, 2))
    refusal, reply = await guest.answers()
    assert refusal[:4] == (REPLY, END | ERROR | REFUSED, 0, 1)
    error = unpack_error(refusal[5])
    assert error.code is code
    assert reason in error.message
    assert (reply[0], reply[3]) == (REPLY, 2)
    await guest.leave()


async def test_a_method_may_be_named_instead_of_numbered() -> None:
    guest = Guest()
    metadata = msgpack.packb({":method": "shop.Orders/get"})
    guest.say(request(0, 1, with_metadata(metadata, ARGUMENTS), END | METADATA))
    ((kind, flags, _, stream, _, _),) = await guest.answers()
    assert (kind, flags, stream) == (REPLY, END | METADATA, 1)
    await guest.leave()


@pytest.mark.parametrize("metadata", [b"", with_metadata(b"\x80", b"")])
async def test_a_large_message_that_finds_no_memory_is_refused_alone(metadata: bytes) -> None:
    guest = Guest(SMALL)
    body = metadata + msgpack.packb({"picture": bytes(2000)})
    flags = END | (METADATA if metadata else 0)
    guest.say(
        frame(CHUNK, 0, 0, 1, len(body), body[:500]), request(SCAN, 1, body[500:], flags), request(GET, 2)
    )
    answers = {stream: (flags, body) for _, flags, _, stream, _, body in await guest.answers()}
    assert answers[1][0] == END | ERROR | REFUSED
    assert "large messages hold 0 of the 1,000 bytes" in unpack_error(answers[1][1]).message
    assert not answers[2][0] & ERROR
    await guest.leave()


async def test_the_memory_of_a_large_request_is_given_back_when_it_does_not_fit() -> None:
    guest = Guest()
    guest.say(request(SCAN, 1, msgpack.packb({"picture": "x" * 100_000})))
    ((_, flags, _, _, _, body),) = await guest.answers()
    assert flags == END | ERROR | REFUSED
    assert "picture: expected `bytes`, got `str`" in unpack_error(body).message
    assert guest.server._resources.budget.used == 0
    await guest.leave()


async def test_a_deadline_cancels_the_handler_and_a_reset_silences_it() -> None:
    guest = Guest()
    guest.say(request(WAIT, 1, b"\x80", END, 1), request(WAIT, 2, b"\x80"))
    await turn(2)
    guest.say(frame(RESET, 0, 0, 2, int(Code.CANCELLED)))
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    loop.call_later(0.001, over.set_result, None)
    await over
    answers = [(stream, unpack_error(body).code) for _, _, _, stream, _, body in await guest.answers()]
    assert answers in (
        [],
        [(1, Code.DEADLINE_EXCEEDED)],
    )  # before its first step a handler has nobody to answer for it
    assert guest.server.running == 0
    await guest.leave()


async def test_frames_for_streams_that_are_not_there_are_passed_over() -> None:
    guest = Guest()
    guest.say(
        frame(ITEMS, 0, 0, 5, 1, b"\x91\x01"),
        frame(ITEMS, END, 0, 5, 0),
        frame(CREDIT, 0, 0, 5, 0),
        frame(RESET, 0, 0, 5, 77, b"\xff"),
        frame(PONG, 0, 0, 0, 5),
        frame(GOAWAY, 0, 0, 0, 5, b"\xff" * 2000),
        request(GET, 6),
    )
    assert [(kind, stream) for kind, _, _, stream, *_ in await guest.answers()] == [(REPLY, 6)]
    await guest.leave()


async def test_an_item_that_does_not_fit_fails_its_call_and_what_follows_it_is_dropped() -> None:
    guest = Guest()
    good = msgpack.packb([{"id": 1, "item": "x"}])
    guest.say(
        request(TOTAL, 1, b"\x80", 0),
        frame(ITEMS, 0, 0, 1, 1, good),
        frame(ITEMS, 0, 0, 1, 1, b"\x91\x05"),
        frame(ITEMS, 0, 0, 1, 1, good),
        frame(ITEMS, END, 0, 1, 0),
    )
    ((_, flags, _, _, _, body),) = await guest.answers()
    assert flags == END | ERROR
    error = unpack_error(body)
    assert error.code is Code.INVALID_ARGUMENT
    assert "an item does not fit: [0]: expected `object`, got `int`: 5" in error.message
    await guest.leave()


async def test_nothing_that_comes_after_the_end_of_a_stream_is_delivered() -> None:
    granted: list[int] = []
    receiver = ItemReceiver(plan_of_items(int), "a.B/c", 1000, Budget(1000), granted.append, lambda _: None)
    for item in (1, 2, 3):
        assert receiver.take(bytes((0x91, item)), 1, kept=True) is None
        if item == 2:
            receiver.end()
    assert await _all(receiver.items()) == [1, 2]
    assert granted == []


async def test_what_waits_behind_an_item_that_does_not_fit_is_let_go_and_no_more_of_it_taken() -> None:
    budget, told = Budget(1 << 20), list[RpcError | None]()
    receiver = ItemReceiver(plan_of_items(str), "a.B/c", 1 << 20, budget, lambda _: None, told.append)
    large: bytes = msgpack.packb(["x" * 100_000])
    assert receiver.take(b"\x91\x05", 1, kept=True) is None
    assert receiver.take(large, 1, kept=True) is None
    assert budget.used > 100_000
    with pytest.raises(RpcError, match="an item does not fit"):
        await _all(receiver.items())
    assert budget.used == 0
    assert receiver.take(large, 1, kept=True) is None
    assert budget.used == 0
    assert [error and error.code for error in told] == [Code.INVALID_ARGUMENT]


async def test_items_without_credit_end_the_connection() -> None:
    guest = Guest(SMALL)
    item = frame(ITEMS, 0, 0, 1, 1, msgpack.packb([{"id": 1, "item": "x" * 200}]))
    guest.say(request(TOTAL, 1, b"\x80", 0), item, item)
    (*_, body) = (await guest.answers())[-1]
    assert b"bytes of items arrived without credit; the window is 200" in bytes(body)
    await guest.leave()


@pytest.mark.parametrize("credit", [0, 0xFFFF_FFFF])
async def test_an_absurd_credit_ends_the_connection(credit: int) -> None:
    guest = Guest()
    guest.say(
        request(WATCH, 1, msgpack.packb({"first": 1, "count": 100_000})), frame(CREDIT, 0, 0, 1, credit)
    )
    (*_, body) = (await guest.answers())[-1]
    assert b"a credit of" in bytes(body)
    await guest.leave()


async def test_the_context_that_bytes_arrive_in_keeps_no_call() -> None:
    guest = Guest()
    guest.say(request(GET, 1), request(TOTAL, 2, b"\x80", 0))
    with pytest.raises(LookupError):  # else a connection would keep its last call, and all that it was sent
        rpcfw.current_call()
    assert [kind for kind, *_ in await guest.answers()] == [REPLY]
    await guest.leave()


# the client's side


class Host:
    """A server that says what it likes to a real client."""

    def __init__(self, hello: Hello | None = None, *, window_bytes: int = 200) -> None:
        self.budget = Budget(1 << 20)
        self.client = ClientConnection(
            "host", Resources(self.budget), Settings(window_bytes=window_bytes), lambda: None
        )
        self.link = FakeLink(self.client.session).open()
        self.say((hello or serve(Orders())._table.hello).pack())
        assert [kind for kind, *_ in self.heard()] == [HELLO]

    timeout_s = None

    @property
    def handler(self) -> Any:
        return self.client.call

    def attach(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def orders(self) -> Any:
        return make_stub(Orders, self)

    def say(self, *frames: bytes) -> None:
        self.link.deliver(b"".join(frames))

    def heard(self) -> list[Frame]:
        return [parse(data) for data in split(self.link.take())]

    async def asked(self, call: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(call)
        await turn(3)
        return task


async def outcome(task: asyncio.Task[Any]) -> RpcError:
    await turn(3)
    error = task.exception()
    assert isinstance(error, RpcError), error
    return error


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\x01", "must begin with the four bytes of its length"),
        (b"\xff\0\0\0", "metadata of 255 bytes does not fit"),
        (with_metadata(bytes(20_000), b""), "over the limit of 16,384"),
        (with_metadata(b"\x90", b"\x80"), "the metadata cannot be read"),
    ],
)
async def test_metadata_of_a_reply_that_cannot_be_read_fails_that_call_alone(
    body: bytes, reason: str
) -> None:
    host = Host()
    seen: dict[str, str | bytes] = {}
    call = await host.asked(host.orders().with_options(reply_metadata=seen).get(1))
    other = await host.asked(host.orders().get(2))
    host.say(frame(REPLY, END | METADATA, 0, 1, 0, body))
    error = await outcome(call)
    assert (error.code, error.origin, error.executed) == (Code.INTERNAL, Origin.CONNECTION, True)
    assert reason in error.message
    host.say(frame(REPLY, END, 0, 2, 0, msgpack.packb({"id": 2, "item": "x"})))
    assert await other == Order(2, "x")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (GREETING, "a second HELLO came"),
        (request(GET, 1), "a server may not send this frame"),
        (frame(77, 0, 0, 0, 0), "unknown type"),
    ],
)
async def test_a_server_that_breaks_a_rule_fails_every_call_with_it(said: bytes, reason: str) -> None:
    host = Host()
    calls = [await host.asked(host.orders().get(number)) for number in range(3)]
    host.say(said)
    for call in calls:
        error = await outcome(call)
        assert (error.code, error.origin, error.executed) == (Code.UNAVAILABLE, Origin.CONNECTION, None)
        assert reason in error.message
    assert host.heard()[-1][0] == GOAWAY


async def test_a_reply_that_does_not_fit_fails_its_call_with_path_and_value() -> None:
    host = Host()
    call = await host.asked(host.orders().get(1))
    host.say(frame(REPLY, END, 0, 1, 0, msgpack.packb({"id": "one", "item": "x"})))
    error = await outcome(call)
    assert (error.code, error.executed) == (Code.INTERNAL, True)
    assert "id: expected `int`, got `str`: 'one'" in error.message


async def test_a_batch_that_lies_about_its_items_ends_the_connection() -> None:
    host = Host()
    call = await host.asked(_all(host.orders().watch(1)))
    host.say(frame(ITEMS, 0, 0, 1, 0xFFFF_FFFF, msgpack.packb([{"id": 1, "item": "x"}])))
    assert "a batch of 1 items says that it has 4,294,967,295" in (await outcome(call)).message


def batch_of(*values: object) -> bytes:
    return frame(ITEMS, 0, 0, 1, len(values), msgpack.packb(values))


@pytest.mark.parametrize("ended", [False, True])
async def test_an_item_that_does_not_fit_comes_after_those_before_it_and_nothing_after_it(
    ended: bool,
) -> None:
    host = Host(window_bytes=2000)
    stream = host.orders().watch(1)
    first = await host.asked(anext(stream))
    good, bad = {"id": 1, "item": "x"}, {"id": "one", "item": "x"}
    host.say(batch_of(good), batch_of(good, good), batch_of(good, bad), batch_of(good))
    if ended:
        host.say(frame(REPLY, END, 0, 1, 0))
    assert await first == Order(1, "x")
    host.heard()
    got: list[Order] = []
    with pytest.raises(
        RpcError, match=r"an item does not fit: \[1\].id: expected `int`, got `str`"
    ) as caught:
        async for order in stream:
            got.append(order)  # noqa: PERF401  # an extension by a comprehension would be lost with the error
    assert got == [Order(1, "x")] * 2
    assert (caught.value.code, caught.value.origin, caught.value.executed) == (
        Code.INTERNAL,
        Origin.CONNECTION,
        True,
    )
    await turn(3)
    resets = [(kind, extra) for kind, _, _, _, extra, _ in host.heard() if kind == RESET]
    assert resets == ([] if ended else [(RESET, int(Code.INVALID_ARGUMENT))])
    assert host.client.pending == 0
    assert [order async for order in stream] == []


async def test_a_large_reply_is_the_bytes_that_came_and_one_that_does_not_fit_says_so() -> None:
    host = Host()
    payload = bytes(range(256)) * 1200
    call = await host.asked(host.orders().scan(b"x"))
    body: bytes = msgpack.packb(payload)
    host.say(frame(CHUNK, 0, 0, 1, len(body), body[:200_000]), frame(REPLY, END, 0, 1, 0, body[200_000:]))
    assert await call == payload
    call = await host.asked(host.orders().get(1))
    host.say(frame(CHUNK, 0, 0, 2, len(body), body[:200_000]), frame(REPLY, END, 0, 2, 0, body[200_000:]))
    error = await outcome(call)
    assert error.code is Code.INTERNAL
    assert "expected `object`, got `bytes`: b'\\x00\\x01" in error.message


async def test_a_large_argument_that_does_not_fit_is_refused_with_its_name() -> None:
    guest = Guest()
    body: bytes = msgpack.packb({"order_id": bytes(300_000)})
    guest.say(frame(CHUNK, 0, 0, 1, len(body), body[:200_000]), request(GET, 1, body[200_000:]))
    ((_, flags, _, _, _, answer),) = await guest.answers()
    assert flags == END | ERROR | REFUSED
    assert "order_id: expected `int`, got `bytes`: b'\\x00\\x00" in unpack_error(answer).message
    await guest.leave()


async def test_an_error_that_is_a_bomb_is_refused_without_its_memory() -> None:
    host = Host()
    call = await host.asked(host.orders().get(1))
    lists = b"\xdc\x27\x10" + b"\x90" * 10_000
    bomb = b"\x83\xa4code\x05\xa7message\xa1x\xa7details\x81\xa1x\xdc\x00\x19" + lists * 25
    host.say(frame(REPLY, END | ERROR, 0, 1, 0, bomb))
    error = await outcome(call)
    assert error.code is Code.INTERNAL
    assert "holds more than 10,000 lists and maps" in error.message


async def test_a_reset_from_the_server_ends_the_call_with_its_code_and_reason() -> None:
    host = Host()
    calls = [await host.asked(host.orders().get(number)) for number in range(3)]
    host.say(
        frame(RESET, 0, 0, 1, int(Code.ABORTED), b"why"), frame(RESET, 0, 0, 2, 99), frame(RESET, 0, 0, 9, 1)
    )
    first, second = await outcome(calls[0]), await outcome(calls[1])
    assert (first.code, first.message) == (Code.ABORTED, "why")
    assert (second.code, second.message) == (Code.INTERNAL, "the server reset the call")
    assert not calls[2].done()
    calls[2].cancel()
    await turn(2)


async def test_after_goaway_calls_in_progress_end_and_then_the_client_leaves() -> None:
    host = Host()
    call = await host.asked(host.orders().get(1))
    host.say(frame(GOAWAY, 0, 0, 0, int(Code.UNAVAILABLE), b"going home"))
    refused = await host.asked(host.orders().get(2))
    assert (await outcome(refused)).executed is False
    assert not host.link.is_closing()
    host.say(frame(REPLY, END, 0, 1, 0, msgpack.packb({"id": 1, "item": "x"})))
    assert await call == Order(1, "x")
    assert host.link.is_closing()
    await turn(2)


async def test_a_description_that_drifted_is_asked_for_once_even_if_it_is_that_of_descriptions() -> None:
    hello = serve(Orders())._table.hello
    services = {
        name: (version, {m: dataclasses.replace(entry, fingerprint="0" * 16) for m, entry in methods.items()})
        for name, (version, methods) in hello.services.items()
    }
    host = Host(dataclasses.replace(hello, services=services))
    call = await host.asked(host.orders().get(1))
    ((kind, _, _, stream, _, body),) = host.heard()
    assert (kind, msgpack.unpackb(body)) == (REQUEST, {"service": "shop.Orders"})
    host.say(frame(REPLY, END, 0, stream, 0, msgpack.packb({"methods": 5})))
    error = await outcome(call)
    assert (error.code, error.executed) == (Code.FAILED_PRECONDITION, False)
    assert "whose description of it cannot be read" in error.message


async def test_a_connection_whose_stream_has_failed_is_not_kept() -> None:
    async def fail() -> weakref.ref[ClientConnection]:
        host = Host()
        call = await host.asked(_all(host.orders().watch(1)))
        host.say(frame(REPLY, END | ERROR, 0, 1, 0, pack_error(RpcError(Code.ABORTED, "why"))))
        assert (await outcome(call)).code is Code.ABORTED
        host.link.close()
        return weakref.ref(host.client)

    client = await fail()
    await turn(3)
    gc.collect()
    assert client() is None


async def _all(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]
