"""The client's end of a connection: a handler of calls, multiplexed over one link.

It matches replies to calls, keeps their deadlines, tells the server when a caller gives up, and fails every pending
call with UNAVAILABLE when the link is lost. Which connection a call takes is decided above.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from math import floor
from typing import Any, Protocol

from rpcfw.call import Call, Recover, Witness
from rpcfw.codec import GUARDED_BYTES, Encoded, size_of
from rpcfw.connection.binding import DESCRIBE, Bound, bind
from rpcfw.connection.client_replies import Pending, settle, unreadable
from rpcfw.connection.client_streams import ClientStreams
from rpcfw.connection.deadlines import Deadlines
from rpcfw.connection.method import MethodCodec
from rpcfw.connection.resources import Resources
from rpcfw.connection.session import Session
from rpcfw.errors import Code, Origin, ProtocolError, RpcError
from rpcfw.interface import MethodSpec
from rpcfw.wire.frames import (
    END,
    END_METADATA,
    KEY,
    MAX_STREAM_ID,
    MEMORY,
    ONEWAY,
    REQUEST,
    RESET,
    TICKS_PER_S,
    with_metadata,
)
from rpcfw.wire.handshake import Hello, Settings

_DESCRIBE_TIMEOUT_S = 5.0
_FOREVER = math.inf
_KEY_ON_THE_WIRE, _MEMORY_ON_THE_WIRE = KEY.encode(), MEMORY.encode()
_SMALL_BYTES = 1024
"""Messages up to this size fit any peer's limits and are not looked at further."""


def _resolve(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_result(None)


class ClientConnection:
    """One connection to one server, ready for calls once `opened` has returned.

    Attributes:
        session: the protocol object to hand to a transport.
        peer: the endpoint's address, for errors.
        hello: what the server said about itself.
        draining: the server takes no new calls here.
        farewell: why it does not, in its own words.
        pending: how many calls are in progress.
    """

    def __init__(
        self,
        peer: str,
        resources: Resources,
        settings: Settings,
        on_closed: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._time, self._create_future = self._loop.time, self._loop.create_future
        self.peer = peer
        self.hello: Hello | None = None
        self.draining = False
        self.farewell = ""
        self._on_closed = on_closed
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._pending: dict[int, Pending] = {}
        self._methods: dict[MethodSpec, Bound] = {}
        self._heads: dict[bytes, bytes] = {}  # of metadata, the last that was seen
        self._next_stream = 1
        self._deadlines = Deadlines(self._loop, self._deadlines_of_calls, self._expire)
        self._idle_since = self._loop.time()
        self.session = Session(resources, settings, on_open=self._greet, on_lost=self._lost)
        self._streams = ClientStreams(self.session, self._pending, self._expect, self._give_up)
        unexpected = self._unexpected
        self.session.handle(
            [
                self._hello,
                unexpected,
                self._reply,
                self._streams.take_items,
                self._streams.take_credit,
                self._reset,
                unexpected,
                unexpected,
                self._goaway,
                unexpected,
            ]
        )

    async def opened(self, timeout_s: float) -> None:
        """Wait for the handshake. Raises RpcError UNAVAILABLE, with the link closed, when it fails or takes longer."""
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._opened)
        except TimeoutError:
            reason = (
                f"{self.peer} did not answer the handshake within {timeout_s:g} s; is it an rpcfw server?"
            )
            self.session.abort(reason)
            raise self._unavailable(reason, executed=False) from None
        except asyncio.CancelledError:
            self.session.abort("the caller gave up while connecting")
            raise

    @property
    def pending(self) -> int:
        """Calls in progress."""
        return len(self._pending)

    @property
    def usable(self) -> bool:
        """Whether new calls can be made here."""
        return self._opened.done() and not self.draining and not self.session.closed

    @property
    def idle_s(self) -> float:
        """Seconds since the last call ended; 0 while calls are in progress."""
        return 0.0 if self._pending else self._loop.time() - self._idle_since

    def call(self, call: Call, recover: Recover | None = None) -> Awaitable[Any]:
        """Make a call here; what `recover` makes of a failure is the outcome. Cancelling it tells the server at once.

        Returns the result, or an async iterator of items.
        """
        return make_call(self, call, recover)

    async def _unusual_call(
        self, call: Call, codec: MethodCodec, stream: int, head: tuple[int, int, int], body: Encoded
    ) -> Any:
        """Make a call that has streams, or wants no reply."""
        flags, method, extra = head
        outbox = self.session.outbox
        if codec.spec.oneway:
            self._idle_since = self._loop.time()
            outbox.send(REQUEST, flags | ONEWAY, method, stream, extra, body)
            if outbox.is_sending(stream):
                await self._until_sent(call, codec, stream)
            return None
        return await self._streams.call(call, codec, stream, head, body)

    def _expect(self, call: Call, codec: MethodCodec, stream: int) -> asyncio.Future[Any]:
        """Enter a call that is not plain as pending."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending[stream] = (future, codec, call)
        self._deadlines.watch(call.deadline)
        return future

    async def _until_sent(self, call: Call, codec: MethodCodec, stream: int) -> None:
        """Wait until a large one-way call is out: until then it counts as pending, and may still fail."""
        future = self._expect(call, codec, stream)
        self.session.outbox.when_sent(stream, lambda: _resolve(future))
        try:
            await future
        except BaseException:
            self._give_up(stream, Code.CANCELLED)
            raise
        self._pending.pop(stream, None)
        self._ended()

    async def _until_ready(self, call: Call) -> None:
        """Wait until the link takes bytes again, but no longer than the call may."""
        outbox = self.session.outbox
        if call.deadline == math.inf:
            return await outbox.ready()
        try:
            async with asyncio.timeout_at(call.deadline):
                await outbox.ready()
        except TimeoutError:
            message = f"{call.method.path}: {self.peer} took no more bytes before the deadline"
            raise RpcError(
                Code.DEADLINE_EXCEEDED, message, origin=Origin.CONNECTION, executed=False
            ) from None

    def drain(self) -> None:
        """Take no new calls; the link closes when the last one in progress has ended."""
        self.draining = True
        if not self._pending:
            self.session.close(f"the connection to {self.peer} was closed by this side")

    # frames from the server

    def _hello(self, flags: int, method: int, stream: int, extra: int, body: bytes | memoryview) -> None:
        if self.hello is not None:
            raise ProtocolError("a second HELLO came")
        self.hello = Hello.unpack(body)
        self.session.outbox.limits = self.hello.settings
        if not self._opened.done():
            self._opened.set_result(None)

    def _reply(self, flags: int, method: int, stream: int, extra: int, body: bytes | memoryview) -> None:
        pending = self._pending.pop(stream, None)
        if pending is None:
            return  # the caller has given up
        future, codec, _ = pending
        if flags == END and codec.is_plain:
            try:
                decode = codec.decode_small if len(body) <= GUARDED_BYTES else codec.decode_result
                future.set_result(decode(body))
            except Exception as error:
                if not future.done():  # as it is when its caller has just been cancelled
                    future.set_exception(unreadable(codec, error, body))
        elif not future.done():
            settle(pending, flags, body, self.session)
        if not self._pending:
            self._ended()

    def _ended(self) -> None:
        if not self._pending:
            self._idle_since = self._loop.time()
            if self.draining:
                self.session.close(f"the connection to {self.peer} was drained")

    def _reset(self, flags: int, method: int, stream: int, extra: int, body: bytes | memoryview) -> None:
        pending = self._pending.pop(stream, None)
        if pending is not None and not pending[0].done():
            code = Code(extra) if extra in Code._value2member_map_ else Code.INTERNAL
            message = bytes(body).decode(errors="replace") or "the server reset the call"
            pending[0].set_exception(RpcError(code, message, origin=Origin.REMOTE))
        self._ended()

    def _goaway(self, flags: int, method: int, stream: int, extra: int, body: bytes | memoryview) -> None:
        self.draining = True
        self.farewell = bytes(body).decode(errors="replace")
        self._on_closed()
        if not self._pending:
            self.session.close(f"{self.peer} asked this client to go: {self.farewell}")

    def _unexpected(self, flags: int, method: int, stream: int, extra: int, body: bytes | memoryview) -> None:
        raise ProtocolError("a server may not send this frame")

    # ends

    def _greet(self) -> None:
        self.session.link.write(Hello(self.session.settings).pack())

    def _lost(self, reason: str, error: BaseException | None) -> None:
        self.draining = True
        if self.farewell and self.farewell not in reason:
            reason = f"{reason}, saying: {self.farewell}"
        failure = self._unavailable(f"the connection to {self.peer} was lost: {reason}", executed=None)
        if not self._opened.done():
            self._opened.set_exception(
                self._unavailable(f"no connection to {self.peer}: {reason}", executed=False)
            )
            self._opened.exception()  # nobody may be waiting
        self._deadlines.close()
        pending = list(self._pending.values())
        self._pending.clear()
        memory = self.hello.memory if self.hello is not None else ""
        for future, _, _ in pending:
            if not future.done():
                details = {"memory": memory} if memory else None
                future.set_exception(
                    RpcError(failure.code, failure.message, details, origin=Origin.CONNECTION)
                )
        self._on_closed()

    def _deadlines_of_calls(self) -> list[tuple[int, float]]:
        return [(stream, call.deadline) for stream, (_, _, call) in self._pending.items()]

    def _expire(self, stream: int) -> None:
        _, codec, _ = self._pending[stream]
        message = f"{codec.path}: no reply from {self.peer} before the deadline"
        self._give_up(stream, Code.DEADLINE_EXCEEDED, RpcError(Code.DEADLINE_EXCEEDED, message))

    def _give_up(self, stream: int, code: Code, error: Exception | None = None) -> None:
        """The call ends without its reply, with an error if somebody still waits: tell the server, once."""
        pending = self._pending.pop(stream, None)
        if pending is None:
            return
        if not self.session.closed:
            outbox = self.session.outbox
            self._streams.stop(stream)
            outbox.drop(stream)
            outbox.send(RESET, 0, 0, stream, int(code))
        self._ended()
        if error is not None and not pending[0].done():
            pending[0].set_exception(error)

    async def _bind(self, call: Call) -> Bound:
        assert self.hello is not None

        async def describe(service: str) -> Any:
            deadline = min(call.deadline, self._loop.time() + _DESCRIBE_TIMEOUT_S)
            return await self.call(Call(DESCRIBE, (service,), deadline))

        bound = self._methods[call.method] = await bind(call.method, self.peer, self.hello, describe)
        return bound

    def _check_size(self, codec: MethodCodec, body: Encoded) -> None:
        """Raises RpcError RESOURCE_EXHAUSTED for a request that is too large for the server."""
        size, limit = size_of(body), self.session.outbox.limits.max_message_bytes
        if size > limit:
            raise RpcError(
                Code.RESOURCE_EXHAUSTED,
                f"{codec.path}: a message of {size:,} bytes is over the {limit:,} that {self.peer} accepts; "
                "send a stream, or raise max_message_bytes there",
                executed=False,
            )

    def _metadata_head(self, call: Call) -> bytes:
        """What goes before the body; kept where it is plain, since the calls of a stub have the same."""
        metadata = call.metadata_bytes
        head = with_metadata(metadata, b"")
        if _MEMORY_ON_THE_WIRE in metadata:
            self._refuse_to_another(call)
        elif _KEY_ON_THE_WIRE not in metadata:
            self._heads = {metadata: head}
        if _KEY_ON_THE_WIRE in metadata:
            self._refuse_unkept_key(call)
        return head

    def _refuse_to_another(self, call: Call) -> None:
        """A call that comes again goes to the server that may have run it, or nowhere."""
        memory = call.metadata.get(MEMORY)
        if memory is not None and (self.hello is None or memory != self.hello.memory):
            raise RpcError(
                Code.ABORTED,
                f"{call.method.path}: what became of the first attempt of this call cannot be known: {self.peer} "
                "has been restarted since, or does not remember calls (middleware Dedupe)",
                {"outcome": "unknown"},
                origin=Origin.CONNECTION,
            )

    def _refuse_unkept_key(self, call: Call) -> None:
        """A key that the caller gave, as text, promises that the call runs once: to a server that can keep that."""
        key = call.metadata.get(KEY)
        if isinstance(key, str) and (self.hello is None or not self.hello.memory):
            raise RpcError(
                Code.FAILED_PRECONDITION,
                f"{call.method.path}: {self.peer} does not remember calls, so the key {key!r} would not keep this one "
                "from running twice; give the server middleware=[Dedupe()]",
                origin=Origin.CONNECTION,
                executed=False,
            )

    def _closing(self) -> RpcError:
        why = f": {self.farewell}" if self.farewell else ""
        return self._unavailable(f"the connection to {self.peer} is closing{why}", executed=False)

    def _unavailable(self, message: str, *, executed: bool | None) -> RpcError:
        return RpcError(Code.UNAVAILABLE, message, origin=Origin.CONNECTION, executed=executed)


Choose = Callable[[Call], tuple[ClientConnection, Witness] | None]
"""The connection for a call that begins now, and who is told how it went; None where that takes more than a look."""


class Chooser(Protocol):
    """Says which connection takes a call when that begins, which may be long after somebody made it.

    Attributes:
        quick: by service, for those where a look is enough as things are.
    """

    quick: dict[str, Choose]

    def call_carefully(self, call: Call, recover: Recover | None) -> Awaitable[Any]:
        """Make a call for which there is no `quick` choice."""
        ...


async def make_call(
    connection: ClientConnection | None,
    call: Call,
    recover: Recover | None = None,
    chooser: Chooser | None = None,
) -> Any:
    """Make a call at a connection, or at one that is chosen now: the bottom of the client's stack of handlers.

    One coroutine does it all, for whoever stands around: every call passes here.
    """
    witness, entry, spec = None, None, call.method
    if chooser is not None:
        choose = chooser.quick.get(spec.service)
        chosen = choose(call) if choose is not None else None
        if chosen is None:
            return await chooser.call_carefully(call, recover)
        connection, witness = chosen
    assert connection is not None
    time = connection._time
    began = now = time()
    try:
        if witness is not None:
            entry = witness.begins(call, began)
        found = connection._methods.get(spec)
        if found is None:
            found, now = await connection._bind(call), time()
        method, codec = found
        outbox = connection.session.outbox
        if outbox.congested:
            await connection._until_ready(call)
            now = time()
        encode = codec.encode_call
        try:
            body = encode(call.arguments)
        except Exception as error:
            raise codec.unsendable(call.arguments, error) from error
        flags, extra, deadline = END, 0, call.deadline
        if metadata := call.metadata_bytes:
            flags = END_METADATA
            head = connection._heads.get(metadata) or connection._metadata_head(call)
            body = head + body if type(body) is bytes else [head, *body]
        small = body if type(body) is bytes and len(body) <= _SMALL_BYTES else None
        if small is None:
            connection._check_size(codec, body)
        if connection.draining:
            raise connection._closing()
        if deadline != _FOREVER:
            extra = floor((deadline - now) * TICKS_PER_S)
            if extra <= 0:
                message = f"{codec.path}: the deadline had passed before the call was sent"
                raise RpcError(Code.DEADLINE_EXCEEDED, message, executed=False)
        stream = connection._next_stream
        connection._next_stream = stream + 1
        if stream >= MAX_STREAM_ID:
            connection.draining = True  # the ids are used up: calls from now on go over another connection
            connection._on_closed()
        if not codec.is_plain:
            result = await connection._unusual_call(call, codec, stream, (flags, method, extra), body)
            if witness is not None:
                witness.succeeded(began, time(), entry)
            return result
        create_future = connection._create_future
        future: asyncio.Future[Any] = create_future()
        connection._pending[stream] = (future, codec, call)
        if deadline < connection._deadlines.next_look:
            connection._deadlines.watch(deadline)
        if small is not None:
            outbox.send_small(REQUEST, flags, method, stream, extra, small)
        else:
            outbox.send(REQUEST, flags, method, stream, extra, body)
        try:
            result = await future
        except asyncio.CancelledError:
            connection._give_up(stream, Code.CANCELLED)
            raise
        finally:
            del future  # which has the error, whose traceback has this frame: a circle
        if witness is not None:
            witness.succeeded(began, time(), entry)
        return result
    except BaseException as error:
        if witness is not None and entry is not None:
            witness.failed(began, error, entry)
        if recover is None or not isinstance(error, RpcError):
            raise
        failure = error
    try:
        return await recover(call, began, failure)
    finally:
        del failure  # a circle again
