"""The protocols every transport fulfils: a link of bytes, its listener, and the transport that makes both.

Types only; nothing here or beside it knows of frames. The shape is asyncio's own (Transport,
BufferedProtocol), so that for sockets the loop's transport is the link itself, with no object of ours between
a connection and the system call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from rpcfw.endpoint import Endpoint

Receiver = asyncio.BufferedProtocol
"""What a link tells of: connection_made(link), get_buffer / buffer_updated, pause_writing / resume_writing,
eof_received, connection_lost(error or None). `get_buffer` must return a memoryview: asyncio's TLS slices it
to fill it in steps, and a slice of a bytearray is a copy. A link may report less than the buffer holds, and
asks for it with any size hint, -1 included."""

ReceiverFactory = Callable[[], asyncio.BufferedProtocol]
"""Makes the receiver of one link. The receiver lives from connection_made on: after a failed connect or TLS
handshake it hears nothing at all, so it must own nothing before."""


class Link(Protocol):
    """One stream of bytes in each direction. Use it on its own loop only.

    From connection_lost on nothing of it may be called but `is_closing`: what else happens differs by loop
    (uvloop raises RuntimeError, asyncio's abort may raise AttributeError). Pause reading after
    connection_made, not within it: uvloop begins to read when that returns.
    """

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Queue bytes; never waits. After `close` it does nothing.

        Do not change a mutable buffer afterwards: uvloop, and asyncio from Python 3.12 on, keep a view of it
        until the system has taken it.
        """

    def writelines(self, parts: Iterable[bytes | bytearray | memoryview], /) -> None:
        """Queue several buffers, vectored on uvloop and on asyncio from Python 3.12 on.

        Call it through `rpcfw.transport.vectored_write`, which steps around asyncio's faults.
        """

    def pause_reading(self) -> None:
        """Deliver nothing until `resume_reading`. The end of the stream, even a reset, may go unnoticed."""

    def resume_reading(self) -> None:
        """Deliver again."""

    def get_write_buffer_size(self) -> int:
        """Bytes queued and not yet taken by the system (for ``mem``: by the peer)."""
        ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Have the receiver's pause_writing called above `high` bytes queued, resume_writing at `low`."""

    def close(self) -> None:
        """Read no more, deliver what was written, then connection_lost(None).

        A peer that does not read holds this up: `abort` does not wait.
        """

    def abort(self) -> None:
        """Drop what was written and close at once."""

    def is_closing(self) -> bool:
        """True from `close` or `abort` on, or when the peer is gone."""
        ...

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``peername`` and ``sockname``; with TLS also ``peercert`` and ``ssl_object``."""


class Listener(Protocol):
    """An address that accepts links."""

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens, with the actual port when 0 was asked."""
        ...

    def close(self) -> None:
        """Accept no more; links that exist stay. May be called again."""

    async def wait_closed(self) -> None:
        """Wait until `close` was called and the address is free again. Does not wait for links."""


class Transport(Protocol):
    """Makes links for one scheme."""

    async def connect(self, endpoint: Endpoint, receiver: ReceiverFactory) -> Link:
        """Open a link.

        Cancelling it leaves nothing open.

        Raises:
            RpcError: UNAVAILABLE when the endpoint did not answer; INVALID_ARGUMENT or FAILED_PRECONDITION
                when this side's settings can never work. The handler of no call ever ran: ``executed`` is
                False.
        """
        ...

    async def listen(self, endpoint: Endpoint, receiver: ReceiverFactory) -> Listener:
        """Accept links, each with a receiver of its own.

        Raises:
            OSError: the address cannot be had; the message names it and the mend, and ``errno`` is the
                system's.
            ValueError: the endpoint or the settings cannot serve.
        """
        ...
