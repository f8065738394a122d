"""Links between two ends of one process on one loop, by name: for tests, and for services that live together.

They behave as sockets do (short buffers, limits, an end of stream, a reset), with nothing between the ends
that could differ from run to run. Names belong to a `MemoryTransport`, not to the process: both ends use the
same one.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context

from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, Origin, RpcError
from rpcfw.transport.failure import unlistenable, unreachable
from rpcfw.transport.link import Link, Listener, ReceiverFactory

MAX_TURN_BYTES = 262_144
"""What one turn of the loop delivers over one link at most, like one read of a socket; the other callbacks
have their turn."""
_HIGH_WATER_BYTES = 65_536


class MemoryTransport:
    """Links by name, ``mem://name``, within this object."""

    def __init__(self) -> None:
        self._listeners: dict[str, MemoryListener] = {}

    async def connect(self, endpoint: Endpoint, receiver: ReceiverFactory) -> Link:
        """Open a link to the listener of that name. Never waits."""
        listener = self._listeners.get(endpoint.host)
        if listener is None:
            error = ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens under that name")
            check = "listen first, and through the same MemoryTransport"
            raise unreachable(endpoint, error, check) from error
        loop = asyncio.get_running_loop()
        if loop is not listener.loop:
            message = f"{endpoint.address} listens on another event loop: use tcp:// or unix:// between loops"
            raise RpcError(Code.FAILED_PRECONDITION, message, origin=Origin.LOCAL, executed=False)
        near = MemoryLink(loop, endpoint, copy_context())
        far = MemoryLink(loop, endpoint, listener.context.copy())
        near.join(far)
        loop.call_soon(listener.accept, far, context=far.context)  # before any bytes can be on their way
        try:
            near.open(receiver)
        except BaseException:
            near.abort()
            raise
        return near

    async def listen(self, endpoint: Endpoint, receiver: ReceiverFactory) -> Listener:
        """Take the name."""
        name = endpoint.host
        if name in self._listeners:
            error = OSError(errno.EADDRINUSE, "the name is taken")
            raise unlistenable(endpoint, error, "close the listener of that name, or choose another name")
        listener = MemoryListener(endpoint, receiver, lambda: self._listeners.pop(name))
        self._listeners[name] = listener
        return listener


class MemoryListener:
    """A name that accepts links."""

    def __init__(self, endpoint: Endpoint, receiver: ReceiverFactory, free: Callable[[], object]) -> None:
        """Args: free: called once, to give the name back."""
        self.endpoint = endpoint
        self.loop = asyncio.get_running_loop()
        self.context = copy_context()
        self._receiver = receiver
        self._free = free
        self._closed = asyncio.Event()

    def accept(self, link: MemoryLink) -> None:
        """Give the link its receiver; what that raises is the server's fault, the client sees a reset."""
        try:
            link.open(self._receiver)
        except Exception as error:
            link.fail(error, "the receiver of an accepted link failed")

    def close(self) -> None:
        """Give the name back; links that exist stay."""
        if not self._closed.is_set():
            self._closed.set()
            self._free()

    async def wait_closed(self) -> None:
        """Wait until `close` was called."""
        await self._closed.wait()


class MemoryLink(asyncio.Transport):
    """One end of a pair. What it is sent waits in its inbox, which is the write buffer of the other end."""

    _peer: MemoryLink

    def __init__(self, loop: asyncio.AbstractEventLoop, endpoint: Endpoint, context: Context) -> None:
        """Make one end. Its receiver runs in `context`: the context variables of the peer stay there."""
        super().__init__({"peername": endpoint.address, "sockname": endpoint.address})
        self.context = context
        self._loop = loop
        self._receiver: asyncio.BufferedProtocol | None = None
        self._inbox: deque[bytes | memoryview] = deque()
        self._inbox_bytes = 0
        self._no_more = False  # the peer wrote its last
        self._scheduled = False
        self._reading_paused = False
        self._writing_paused = False
        self._closing = False
        self._lost = False
        self._high, self._low = _HIGH_WATER_BYTES, _HIGH_WATER_BYTES // 4

    def join(self, peer: MemoryLink) -> None:
        """Make the two ends of one pair."""
        self._peer, peer._peer = peer, self

    def open(self, receiver: ReceiverFactory) -> None:
        """Make the receiver and tell it of the link."""
        self._receiver = receiver()
        self._receiver.connection_made(self)

    # ------------------------------------------------------------------------------------------- writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue a copy, or the bytes themselves: those never change."""
        owned = data if isinstance(data, bytes) else memoryview(data).tobytes()
        if self._closing or self._peer._closing or not owned:
            return
        self._peer._take(owned)
        if self._peer._inbox_bytes > self._high:
            self._pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Queue several."""
        for data in list_of_data:
            self.write(data)

    def get_write_buffer_size(self) -> int:
        """Bytes the peer has not taken yet."""
        return self._peer._inbox_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the limits; asyncio's rules for what is left out."""
        if high is None:
            high = _HIGH_WATER_BYTES if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high={high} must be at least low={low}, and both 0 or more")
        self._high, self._low = high, low
        if self._peer._inbox_bytes > high:
            self._pause_writing()

    def _pause_writing(self) -> None:
        if not self._writing_paused and self._receiver is not None:
            self._writing_paused = True
            self._tell(self._receiver.pause_writing)

    def _drained(self) -> None:
        """The peer took bytes. Runs in the peer's context."""
        if self._writing_paused and self._peer._inbox_bytes <= self._low and not self._closing:
            self._writing_paused = False
            if self._receiver is not None:
                self.context.run(self._tell, self._receiver.resume_writing)
        if self._closing and not self._peer._inbox:
            self._lose(None)

    def _tell(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as error:
            self._report(error, f"{callback.__name__}() of a link's receiver failed")

    # ------------------------------------------------------------------------------------------- reading

    def pause_reading(self) -> None:
        """Deliver nothing more."""
        self._reading_paused = True

    def resume_reading(self) -> None:
        """Deliver again."""
        self._reading_paused = False
        self._wake()

    def is_reading(self) -> bool:
        """True unless paused or closing."""
        return not self._reading_paused and not self._closing

    def _take(self, data: bytes) -> None:
        self._inbox.append(data)
        self._inbox_bytes += len(data)
        self._wake()

    def _wake(self) -> None:
        if not self._scheduled and self.is_reading() and (self._inbox or self._no_more):
            self._scheduled = True
            self._loop.call_soon(self._deliver, context=self.context)

    def _deliver(self) -> None:
        self._scheduled = False
        receiver = self._receiver
        if receiver is None:
            return
        left = MAX_TURN_BYTES
        try:
            while self._inbox and left > 0 and self.is_reading():
                buffer = memoryview(receiver.get_buffer(self._inbox_bytes))
                if not buffer.nbytes:
                    raise RuntimeError("get_buffer() returned an empty buffer")
                filled = self._fill(buffer, left)
                left -= filled
                receiver.buffer_updated(filled)
                self._peer._drained()
            if self._no_more and not self._inbox and self.is_reading():
                self._no_more = False  # told once
                if not receiver.eof_received():
                    self.close()
        except Exception as error:
            self.fail(error, "the receiver of a link failed")
        self._wake()

    def _fill(self, buffer: memoryview, limit: int) -> int:
        """Move bytes from the inbox into the buffer; how many."""
        room = min(buffer.nbytes, limit)
        filled = 0
        while self._inbox and filled < room:
            chunk = self._inbox[0]
            size = min(len(chunk), room - filled)
            if size == len(chunk):
                buffer[filled : filled + size] = chunk
                self._inbox.popleft()
            else:
                rest = memoryview(chunk)
                buffer[filled : filled + size] = rest[:size]
                self._inbox[0] = rest[size:]
            filled += size
        self._inbox_bytes -= filled
        return filled

    # ------------------------------------------------------------------------------------------- the end

    def is_closing(self) -> bool:
        """True once the link ends, whoever ended it."""
        return self._closing

    def close(self) -> None:
        """Deliver what was written, then end both sides."""
        if self._closing:
            return
        self._closing = True
        peer = self._peer
        if peer._closing:
            peer._lose(None)  # it waited for us to take its last bytes
        else:
            peer._no_more = True
            peer._wake()
        if not peer._inbox:
            self._lose(None)

    def abort(self) -> None:
        """Drop what was written, and end both sides at once."""
        self._break(None)

    def fail(self, error: Exception, message: str) -> None:
        """Report what a receiver raised, as asyncio does, and break the link."""
        self._report(error, message)
        self._break(error)

    def _break(self, error: Exception | None) -> None:
        self._lose(error)
        self._peer._lose(ConnectionResetError(errno.ECONNRESET, "the peer broke the link"))

    def _lose(self, error: Exception | None) -> None:
        self._closing = True
        self._inbox.clear()
        self._inbox_bytes = 0
        if not self._lost:
            self._lost = True
            self._loop.call_soon(self._say_lost, error, context=self.context)

    def _say_lost(self, error: Exception | None) -> None:
        if self._receiver is not None:
            self._receiver.connection_lost(error)

    def _report(self, error: Exception, message: str) -> None:
        self._loop.call_exception_handler({"message": message, "exception": error, "transport": self})
