"""Calls over datagrams: one-way calls and heartbeats, each one datagram, with no handshake and no promise.

A request names its method instead of numbering it, since nothing was agreed before. Anything that wants a reply is
refused here with the mend; a lost datagram is a lost call, which is what one-way means.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable
from typing import Any

from rpcfw.call import Call, Metadata, enter_call, pack_metadata, unpack_metadata
from rpcfw.connection.exchange import Entry, Load, Table, task_starter
from rpcfw.connection.method import codec_of
from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, ProtocolError, RpcError
from rpcfw.transport import DatagramLink, DatagramTransport
from rpcfw.wire.frames import (
    BY_NAME,
    END,
    HEADER,
    HEADER_BYTES,
    METADATA,
    METHOD_NAME,
    ONEWAY,
    PING,
    PONG,
    REQUEST,
    frame,
    seconds_of,
    split_metadata,
    ticks_of,
    with_metadata,
)

logger = logging.getLogger("rpcfw")


class DatagramChannel:
    """The client's end: a node for one-way calls."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.in_flight = 0
        self.sole = None  # as a channel has: there are no connections
        self._link: DatagramLink | None = None
        self._receiver = _Pongs()
        self._pings = 0
        self._closed = False
        self._opening = asyncio.Lock()

    def handler(self, call: Call) -> Awaitable[Any]:
        """Send a one-way call. Raises RpcError UNIMPLEMENTED for any other."""
        return self._send(call)

    __call__ = handler

    async def ping(self) -> float:
        """One heartbeat and its answer, in seconds; waits for ever when one is lost, so give it a timeout."""
        link, loop = await self._opened(), asyncio.get_running_loop()
        self._pings = number = (self._pings + 1) & 0xFFFF_FFFF
        waiter = self._receiver.waiting[number] = loop.create_future()
        started = loop.time()
        link.send(frame(PING, 0, 0, 0, number))
        try:
            return float(await waiter) - started
        finally:
            self._receiver.waiting.pop(number, None)

    async def close(self) -> None:
        """Close the socket."""
        self._closed = True
        if self._link is not None:
            self._link.close()

    async def _send(self, call: Call) -> None:
        spec = call.method
        if not spec.oneway:
            raise RpcError(
                Code.UNIMPLEMENTED,
                f"{spec.path} wants a reply, and {self.endpoint.address} carries one-way calls only; use tcp:// for it",
                executed=False,
            )
        link = await self._opened()
        loop = asyncio.get_running_loop()
        body = codec_of(spec).encode_arguments(call.arguments)
        metadata = pack_metadata({**call.metadata, METHOD_NAME: spec.path})
        data = with_metadata(metadata, body)
        extra = ticks_of(call.remaining_s(loop)) if call.deadline != math.inf else 0
        link.send(frame(REQUEST, END | METADATA | ONEWAY, BY_NAME, 0, extra, data))

    async def _opened(self) -> DatagramLink:
        if self._link is None or self._link.is_closing():
            async with self._opening:
                if self._closed:
                    raise RpcError(Code.UNAVAILABLE, "this client is closed", executed=False)
                if self._link is None or self._link.is_closing():
                    self._link = await DatagramTransport().connect(self.endpoint, lambda: self._receiver)
        return self._link


class _Pongs(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Future[float]] = {}

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if len(data) < HEADER_BYTES:
            return
        _, kind, _, _, _, extra = HEADER.unpack_from(data)
        waiter = self.waiting.get(extra)
        if kind == PONG and waiter is not None and not waiter.done():
            waiter.set_result(asyncio.get_running_loop().time())

    def error_received(self, exc: Exception) -> None:
        logger.debug("datagram not delivered: %s", exc)


class DatagramServer(asyncio.DatagramProtocol):
    """The server's end: answers heartbeats and runs one-way calls, within the limits of the whole server."""

    def __init__(self, table: Table, load: Load, max_metadata_bytes: int) -> None:
        self._table = table
        self._load = load
        self._max_metadata_bytes = max_metadata_bytes
        self._transport: asyncio.DatagramTransport | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a datagram endpoint's

    def datagram_received(self, data: bytes, addr: Any) -> None:
        try:
            self._take(data, addr)
        except (ProtocolError, RpcError) as error:
            self._load.refused += 1
            logger.debug("datagram from %s refused: %s", addr, error)

    def error_received(self, exc: Exception) -> None:
        logger.debug("datagram not delivered: %s", exc)

    def _take(self, data: bytes, addr: Any) -> None:
        if len(data) < HEADER_BYTES:
            raise ProtocolError(f"a datagram of {len(data)} bytes is shorter than a header")
        length, kind, flags, _, _, extra = HEADER.unpack_from(data)
        if length != len(data) - HEADER_BYTES:
            raise ProtocolError(f"a datagram holds one frame; this one of {len(data)} bytes says {length}")
        if kind == PING:
            assert self._transport is not None
            self._transport.sendto(frame(PONG, 0, 0, 0, extra), addr)
            return
        if kind != REQUEST or not flags & ONEWAY or not flags & METADATA:
            raise ProtocolError("a datagram carries a one-way request that names its method, or a PING")
        self._request(extra, data[HEADER_BYTES:], addr)

    def _request(self, extra: int, body: bytes, addr: Any) -> None:
        load, loop = self._load, asyncio.get_running_loop()
        metadata, rest = split_metadata(body, self._max_metadata_bytes)
        deadline = loop.time() + seconds_of(extra)
        name = unpack_metadata(metadata).get(METHOD_NAME, "")
        entry = self._table.by_name.get(str(name))
        if entry is None or not entry.codec.spec.oneway:
            raise RpcError(Code.UNIMPLEMENTED, f"there is no one-way method {name!r} here")
        if load.draining or load.running >= load.max_running:
            raise RpcError(Code.RESOURCE_EXHAUSTED, "the server takes no more calls")
        try:
            arguments = entry.codec.arguments.decode(rest)
        except Exception as error:
            raise RpcError(
                Code.INVALID_ARGUMENT, str(entry.codec.arguments.decoding_error(error, rest))
            ) from None
        sender = _Sender(addr)
        call = Call(entry.codec.spec, arguments, deadline, metadata, None, sender)
        load.running += 1
        task = task_starter(loop)(self._run(entry, call, sender), loop=loop, name=call.method.path)
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self._load.running -= 1
        self._load.served += 1

    @staticmethod
    async def _run(entry: Entry, call: Call, sender: _Sender) -> None:
        enter_call(call)
        try:
            async with asyncio.timeout_at(call.deadline if call.deadline != math.inf else None):
                await entry.handler(call)
        except Exception as error:
            logger.error("%s failed: %s: %s", call.method.path, type(error).__name__, error, exc_info=error)
        finally:
            sender.ended = True


class _Sender:
    def __init__(self, address: Any) -> None:
        self._address = address
        self.ended = False
        self.orphaned = False

    @property
    def peer(self) -> str:
        return (
            f"{self._address[0]}:{self._address[1]}"
            if isinstance(self._address, tuple)
            else str(self._address)
        )

    def set_reply_metadata(self, metadata: Metadata) -> None:
        raise RpcError(Code.FAILED_PRECONDITION, "a one-way call has no reply to carry metadata")
