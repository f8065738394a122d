"""The server's end of a connection: requests become tasks, their outcomes become replies.

It refuses what is over a limit before any work is done, cancels a handler when its caller gives up or its deadline
passes, and counts handlers until they have really ended, not until their stream was reset (the HTTP/2 rapid reset).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import Callable
from typing import Any

from rpcfw.call import Call, enter_call, unpack_metadata
from rpcfw.codec import Encoded
from rpcfw.connection.deadlines import Deadlines
from rpcfw.connection.exchange import Entry, Load, ServerExchange, Table, end_process, task_starter
from rpcfw.connection.method import MethodCodec
from rpcfw.connection.outbox import COPIED_BYTES
from rpcfw.connection.resources import Resources
from rpcfw.connection.server_replies import ReplySender, is_refusal, unsendable
from rpcfw.connection.server_streams import ServerStreams
from rpcfw.connection.session import Session
from rpcfw.connection.streams import HELD_BYTES
from rpcfw.errors import Code, ProtocolError, RpcError
from rpcfw.wire.frames import (
    BY_NAME,
    END,
    END_METADATA,
    ERROR,
    METADATA,
    METHOD_NAME,
    ONEWAY,
    PARTED,
    REFUSED,
    REPLY,
    RESET,
    TICKS_PER_S,
    UNKEPT,
    pack_error,
    split_metadata,
)
from rpcfw.wire.handshake import Hello, Settings

logger = logging.getLogger("rpcfw")

_FOREVER = math.inf
_KNOWN_METADATA_BYTES = 256
"""A connection remembers the last metadata, up to so many bytes: mostly the next call has the same."""
_MAX_HELLO_BYTES = 4096
"""A client's HELLO says seven numbers; a stranger gets no more memory than that needs."""


class ServerConnection:
    """One client's connection.

    Args:
        table: what is served.
        load: shared with the server's other connections.
        on_open: called once when the link is there.
        on_closed: called once when the link is gone and no handler of it runs any more.
    """

    def __init__(
        self,
        resources: Resources,
        settings: Settings,
        table: Table,
        load: Load,
        *,
        on_open: Callable[[ServerConnection], None],
        on_closed: Callable[[ServerConnection], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._start_task = task_starter(self._loop)
        self._table = table
        self._entries = table.entries
        self._plain = table.plain
        self._load = load
        self._budget = resources.budget
        self._on_closed = on_closed
        self._exchanges: dict[int, ServerExchange] = {}
        self._deadlines = Deadlines(self._loop, self._deadlines_of_calls, self._expire)
        self.greeted = False
        self._sent_away = False
        self.idle_since = self._loop.time()
        self.session = Session(
            resources,
            settings,
            max_hello_bytes=_MAX_HELLO_BYTES,
            on_open=lambda: on_open(self),
            on_lost=self._lost,
        )
        self._metadata = b""  # the last that came
        self._head = b""  # how a body with it begins; empty before the first
        self._max_streams = settings.max_streams
        self._streams = ServerStreams(self.session, self._exchanges)
        self._replies = ReplySender(self.session, self._hold, dev=load.dev)
        unexpected = self._unexpected
        self.session.handle(
            [
                self._hello,
                self._request,
                unexpected,
                self._streams.take_items,
                self._streams.take_credit,
                self._reset,
                unexpected,
                unexpected,
                self._goaway,
                unexpected,
            ]
        )

    @property
    def running(self) -> int:
        """Handlers of this connection that have not ended."""
        return len(self._exchanges)

    def refuse(self, reason: str) -> None:
        """Take no calls from this client at all."""
        self.session.link.write(self._table.hello.pack())
        self.session.fail(Code.RESOURCE_EXHAUSTED, reason)

    def cut_off(self, reason: str) -> None:
        """Close the link and cancel what runs."""
        self.session.close(reason)
        for stream, exchange in list(self._exchanges.items()):
            self._cancel(exchange, stream, insist=True)

    def send_away(self, reason: str) -> None:
        """Ask the client to make its next calls elsewhere; it closes the link when its last call has ended."""
        if self.greeted and not self._sent_away:  # nothing goes before HELLO; see _hello
            self._sent_away = True
            self.session.go_away(Code.UNAVAILABLE, reason)

    # frames from the client

    def _hello(self, flags: int, method: int, stream: int, extra: int, body: bytes | memoryview) -> None:
        if self.greeted:
            raise ProtocolError("a second HELLO came")
        self.greeted = True
        self.session.outbox.limits = Hello.unpack(body).settings
        self.session.link.write(self._table.hello.pack())
        if self._load.draining:
            self.send_away("the server is shutting down")

    def _request(self, flags: int, method: int, stream: int, extra: int, body: bytes | memoryview) -> None:
        exchanges, load = self._exchanges, self._load
        if stream in exchanges:
            raise ProtocolError(f"stream {stream} is in use; stream ids only go up")
        entry, metadata = self._plain.get(method), None
        if (
            entry is not None
            and load.running < load.max_running
            and len(exchanges) < self._max_streams
            and len(body) < HELD_BYTES
        ):
            head = self._head
            if flags == END:
                metadata = b""
            elif flags == END_METADATA and head and type(body) is bytes and body.startswith(head):
                metadata, body = self._metadata, body[len(head) :]
        if entry is not None and metadata is not None:
            decode = entry.decode_small
            try:
                arguments = decode(body)
            except Exception as error:
                self._refuse(flags, stream, self._misfit(entry.codec, error, body))
                return
            deadline = self._loop.time() + extra / TICKS_PER_S if extra else _FOREVER
            exchange = ServerExchange(self.session, entry.codec, deadline)
            call = Call(entry.spec, arguments, deadline, metadata, None, exchange)
        else:
            opened = self._open_unusual(flags, method, stream, extra, body)
            if opened is None:
                return
            exchange, entry, call = opened
        exchanges[stream] = exchange
        load.running += 1
        if call.deadline < self._deadlines.next_look:
            self._deadlines.watch(call.deadline)
        run = self._run(exchange, entry, call, stream)
        start = self._start_task
        task = start(run, loop=self._loop, name=entry.codec.path)
        if not exchange.ended:
            exchange.task = task

    def _open_unusual(
        self, flags: int, method: int, stream: int, extra: int, body: bytes | memoryview
    ) -> tuple[ServerExchange, Entry, Call] | None:
        """Open any other call: with other metadata, streams or large arguments, by name, one-way, or over a limit.

        None when it is refused.
        """
        metadata, exchange = b"", None
        try:
            if flags & UNKEPT:
                raise self._no_memory()
            if flags & METADATA:
                whole = body
                metadata, body = split_metadata(body, self.session.settings.max_metadata_bytes)
                if len(metadata) <= _KNOWN_METADATA_BYTES:
                    self._metadata, self._head = metadata, bytes(whole[: len(whole) - len(body)])
            entry = self._entries[method] if method < len(self._entries) else None
            if entry is None:
                entry = self._find(method, metadata)
            if self._load.running >= self._load.max_running or len(self._exchanges) >= self._max_streams:
                self._refuse_load()
            codec = entry.codec
            deadline = self._loop.time() + extra / TICKS_PER_S if extra else _FOREVER
            exchange = ServerExchange(self.session, codec, deadline)
            if len(body) >= HELD_BYTES:
                self._hold(exchange, len(body))
            try:
                if flags & PARTED:
                    arguments = codec.arguments.decode_parts(self.session.head, memoryview(body))
                else:
                    arguments = codec.arguments.decode(body)
            except Exception as error:
                raise self._misfit(codec, error, self.session.head + body) from None
        except RpcError as error:
            if exchange is not None and exchange.held:
                self._budget.give(exchange.held)
            self._refuse(flags, stream, error)
            return None
        if not codec.is_unary:
            arguments = self._streams.open(exchange, stream, flags, arguments)
        call = Call(codec.spec, arguments, deadline, metadata, None, exchange)
        exchange.silent = bool(flags & ONEWAY)
        return exchange, entry, call

    def _refuse(self, flags: int, stream: int, error: RpcError) -> None:
        self._load.refused += 1
        if not flags & ONEWAY:
            self.session.outbox.send(REPLY, END | ERROR | REFUSED, 0, stream, 0, pack_error(error))

    def _reset(self, flags: int, method: int, stream: int, extra: int, body: bytes | memoryview) -> None:
        exchange = self._exchanges.get(stream)
        if exchange is not None and exchange.sender is not None:
            exchange.sender.stop()
        if self.session.outbox.drop(stream):
            self.session.outbox.send(RESET, 0, 0, stream, int(Code.CANCELLED))
        if exchange is not None:
            exchange.silent = True
            self._cancel(exchange, stream)

    def _goaway(self, flags: int, method: int, stream: int, extra: int, body: bytes | memoryview) -> None:
        reason = bytes(body[:1000]).decode(errors="replace")
        logger.info("client %s goes away: %r", self.session.peer_name, reason)

    def _unexpected(self, flags: int, method: int, stream: int, extra: int, body: bytes | memoryview) -> None:
        raise ProtocolError("a client may not send this frame")

    # a request's way to its handler

    def _find(self, method: int, metadata: bytes) -> Entry:
        """The method of a request that numbers none, or none that there is."""
        name = (
            str(unpack_metadata(metadata).get(METHOD_NAME, "")) if method == BY_NAME else f"number {method}"
        )
        entry = self._table.by_name.get(name)
        if entry is None:
            raise RpcError(Code.UNIMPLEMENTED, f"there is no method {name!r} here", executed=False)
        return entry

    def _refuse_load(self) -> None:
        load, limit = self._load, self.session.settings.max_streams
        what = (
            f"{load.max_running:,} handlers run on this server"
            if load.running >= load.max_running
            else f"{limit:,} calls are open on this connection"
        )
        raise RpcError(
            Code.RESOURCE_EXHAUSTED,
            f"{what}, which is its limit; try again later or another server",
            executed=False,
        )

    def _hold(self, exchange: ServerExchange, size: int) -> None:
        if not self._budget.take(size):
            raise self._no_memory()
        exchange.held += size

    def _no_memory(self) -> RpcError:
        budget = self._budget
        return RpcError(
            Code.RESOURCE_EXHAUSTED,
            f"large messages hold {budget.used:,} of the {budget.limit:,} bytes this server gives them; "
            "try again later",
            executed=False,
        )

    @staticmethod
    def _misfit(codec: MethodCodec, error: Exception, body: bytes | memoryview) -> RpcError:
        problem = codec.arguments.decoding_error(error, body)
        return RpcError(Code.INVALID_ARGUMENT, f"{codec.path}: {problem}", executed=False)

    async def _run(self, exchange: ServerExchange, entry: Entry, call: Call, stream: int) -> None:
        """A call's task: run the handler, send what comes of it."""
        enter_call(call)  # here, in the task's own context, which ends with it
        body: Encoded = b""
        try:
            try:
                function, encode = entry.function, entry.encode
                result = await (function(*call.arguments) if function is not None else entry.handler(call))
                if exchange.sender is None:
                    try:
                        body = encode(result)
                    except Exception as error:
                        raise unsendable(entry.codec, error, result) from error
                else:
                    await exchange.sender.send_all(result)
                if not exchange.silent:
                    if type(body) is bytes and len(body) < HELD_BYTES and exchange.reply_metadata is None:
                        if len(body) < COPIED_BYTES:
                            self.session.outbox.send_small(REPLY, END, 0, stream, 0, body)
                        else:
                            self.session.outbox.send(REPLY, END, 0, stream, 0, body)
                    else:
                        self._replies.send_unusual(exchange, stream, body)
            except BaseException as error:
                refused = entry.guarded and not exchange.begun and is_refusal(error)
                self._load.refused += refused
                self._replies.send_failure(exchange, stream, error, refused=refused)
                if isinstance(error, SystemExit | KeyboardInterrupt):
                    end_process(self._loop, error)
                elif not isinstance(error, Exception | asyncio.CancelledError):
                    raise
            if exchange.held:
                await self._replies.until_sent(exchange, stream)
        finally:
            self._finish(exchange, stream)

    def _finish(self, exchange: ServerExchange, stream: int) -> None:
        load = self._load
        del self._exchanges[stream]
        exchange.ended = True
        exchange.task = None  # whose context holds the call: a circle, which only the collector would free
        load.running -= 1
        load.served += 1
        if exchange.held:
            self._budget.give(exchange.held)
        if exchange.receiver is not None:
            exchange.receiver.drop()
        if not self._exchanges:
            self.idle_since = self._loop.time()
            if self.session.closed:
                self._end()

    # ends

    def _cancel(self, exchange: ServerExchange, stream: int, *, insist: bool = False) -> None:
        """Cancel a handler, once, so that its own end is not cut short; only the end of a grace insists."""
        if exchange.task is None or (exchange.cancelled and not insist):
            return
        exchange.cancelled = True
        run: Any = exchange.task.get_coro()
        begun = inspect.getcoroutinestate(run) != inspect.CORO_CREATED
        exchange.task.cancel()
        if not begun:  # a task cancelled before its first step never runs its own end
            self._finish(exchange, stream)

    def _end(self) -> None:
        self._deadlines.close()
        self._on_closed(self)

    def _lost(self, reason: str, error: BaseException | None) -> None:
        for stream, exchange in list(self._exchanges.items()):
            exchange.silent = exchange.orphaned = True
            if not exchange.codec.spec.oneway:  # nobody waits for those, here or elsewhere: they go on
                self._cancel(exchange, stream)
        if not self._exchanges:
            self._end()

    def _deadlines_of_calls(self) -> list[tuple[int, float]]:
        return [(s, exchange.deadline) for s, exchange in self._exchanges.items() if not exchange.cancelled]

    def _expire(self, stream: int) -> None:
        self._cancel(self._exchanges[stream], stream)
