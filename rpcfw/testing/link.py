"""A simulated link as a process sees it: asyncio's stream transport over a `TcpSocket`.

Every callback of the protocol runs in the context of the code that opened or accepted the link, one kind of news at a
time, so that an order of callbacks drawn at random cannot mix them up. Losses and delays are below.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context

from rpcfw.testing.tcp import Data, TcpSocket

_HIGH_WATER_BYTES = 65_536
_READ_BYTES = 262_144


class SimLink(asyncio.Transport):
    """One end of a link."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: TcpSocket,
        protocol: asyncio.BaseProtocol,
        context: Context,
        lost: Callable[[SimLink], None] = lambda link: None,
    ) -> None:
        """Take over an open socket.

        Args:
            context: the protocol is called in it, and in no other.
            lost: called after connection_lost.
        """
        super().__init__({"peername": socket.remote, "sockname": socket.local, "socket": None})
        self.made: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._socket = socket
        self._protocol: asyncio.BaseProtocol | None = protocol
        self._context = context
        self._after = lost
        self._buffer: deque[Data] = deque()
        self._buffered = 0
        self._high, self._low = _HIGH_WATER_BYTES, _HIGH_WATER_BYTES // 4
        self._scheduled = self._told_made = False
        self._reading_paused = self._writing_paused = False
        self._eof_wanted = self._eof_told = False
        self._closing = self._ended = False
        self._error: Exception | None = None
        socket.changed = self._wake
        self._wake()

    def __repr__(self) -> str:
        (here, port), (there, other) = self._socket.local, self._socket.remote
        state = "closing" if self._closing else "open"
        return f"<SimLink {here}:{port} to {there}:{other}, {state}>"

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Tell another one from now on."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Who is told."""
        if self._protocol is None:
            raise RuntimeError("the link is lost, and has let go of its protocol")
        return self._protocol

    # ------------------------------------------------------------------------------------------- writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue bytes; others than `bytes` are copied."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be bytes, bytearray or memoryview, not {type(data).__name__}")
        if self._eof_wanted:
            raise RuntimeError("write() after write_eof(): nothing can follow the end")
        owned = data if isinstance(data, bytes) else memoryview(data).tobytes()
        if self._closing or not owned:
            return
        if self._socket.broken is not None:
            self._end(self._socket.broken)
            return
        self._buffer.append(owned)
        self._buffered += len(owned)
        self._drain()
        self._look_at_limit()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Queue several, joined."""
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        """Send the end after what was written, and go on reading."""
        if not self._closing and not self._eof_wanted:
            self._eof_wanted = True
            self._drain()

    def can_write_eof(self) -> bool:
        """True."""
        return True

    def get_write_buffer_size(self) -> int:
        """Bytes that the simulated system has not taken yet."""
        return self._buffered

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The low and the high limit."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the limits; asyncio's rules for what is left out."""
        if high is None:
            high = _HIGH_WATER_BYTES if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high={high} must be at least low={low}, and both 0 or more")
        self._high, self._low = high, low
        self._look_at_limit()

    def _look_at_limit(self) -> None:
        if self._buffered > self._high and not self._writing_paused and self._protocol is not None:
            self._writing_paused = True
            self._tell(self._protocol.pause_writing)

    def _drain(self) -> None:
        """Hand the system what it has room for, and the end behind it."""
        while self._buffer and (room := self._socket.room):
            chunk = self._buffer.popleft()
            if len(chunk) > room:
                view = memoryview(chunk)
                self._buffer.appendleft(view[room:])
                chunk = view[:room]
            self._buffered -= len(chunk)
            self._socket.write(chunk)
        self._socket.wants_room = bool(self._buffer)
        if self._eof_wanted and not self._buffer:
            self._socket.shut()

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

    def _read(self) -> None:
        """Deliver what one read brings, or the end."""
        if self._socket.readable:
            try:
                self._deliver()
            except Exception as error:
                self._fail(error, "the protocol of a simulated link failed on its data")
        elif self._socket.broken is not None:
            self._end(self._socket.broken)
        elif self._socket.at_end and not self._eof_told:
            self._eof_told = True
            try:
                stays = isinstance(self._protocol, _READERS) and self._protocol.eof_received()
            except Exception as error:
                self._fail(error, "eof_received() of a simulated link failed")
                return
            if not stays:
                self.close()

    def _deliver(self) -> None:
        protocol = self._protocol
        if isinstance(protocol, asyncio.BufferedProtocol):
            buffer = memoryview(protocol.get_buffer(-1))
            if not buffer.nbytes:
                raise RuntimeError("get_buffer() returned an empty buffer")
            protocol.buffer_updated(self._socket.read_into(buffer))
        else:
            buffer = memoryview(bytearray(min(self._socket.readable, _READ_BYTES)))
            self._socket.read_into(buffer)
            if isinstance(protocol, asyncio.Protocol):
                protocol.data_received(buffer.tobytes())

    # ---------------------------------------------------------------------------------------- what to do

    def _wake(self) -> None:
        """See that `_turn` comes. Called from any context."""
        if not self._scheduled and self._protocol is not None:
            self._scheduled = True
            self._loop.call_soon(self._turn, context=self._context)

    def _turn(self) -> None:
        """Do what is next."""
        self._scheduled = False
        if not self._told_made:
            self._make()
        elif self._ended:
            self._say_lost()
            return
        else:
            self._write_on()
            if self.is_reading():
                self._read()
        if self._ended or (self.is_reading() and self._has_news()):
            self._wake()

    def _has_news(self) -> bool:
        socket = self._socket
        return bool(socket.readable or socket.broken or (socket.at_end and not self._eof_told))

    def _make(self) -> None:
        self._told_made = True
        if self._protocol is not None:
            try:
                self._protocol.connection_made(self)
            except Exception as error:
                self._report(error, "connection_made() of a simulated link failed")
        if not self.made.done():
            self.made.set_result(None)
        self._wake()

    def _write_on(self) -> None:
        if self._buffer and self._socket.broken is not None:
            self._end(self._socket.broken)
            return
        self._drain()
        if self._writing_paused and self._buffered <= self._low and self._protocol is not None:
            self._writing_paused = False
            self._tell(self._protocol.resume_writing)
        if self._closing and not self._buffer:
            self._end(None)

    def _tell(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as error:
            self._report(error, f"{callback.__name__}() of a simulated link failed")

    # ------------------------------------------------------------------------------------------- the end

    def is_closing(self) -> bool:
        """True from `close` or `abort` on, or when the link is lost."""
        return self._closing

    def close(self) -> None:
        """Read no more, deliver what was written, then connection_lost(None)."""
        if not self._closing:
            self._closing = True
            if not self._buffer:
                self._end(None)

    def abort(self) -> None:
        """Drop what was written; the peer sees a reset."""
        self._socket.reset()
        self._end(None)

    def _fail(self, error: Exception, message: str) -> None:
        self._report(error, message)
        self._socket.reset()
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        if self._ended:
            return
        self._ended = self._closing = True
        self._error = error
        self._buffer.clear()
        self._buffered = 0
        self._socket.close()
        self._wake()

    def _say_lost(self) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            try:
                protocol.connection_lost(self._error)
            except Exception as error:
                self._report(error, "connection_lost() of a simulated link failed")
            finally:
                self._after(self)

    def _report(self, error: Exception, message: str) -> None:
        told = {"message": message, "exception": error, "transport": self, "protocol": self._protocol}
        self._loop.call_exception_handler(told)


_READERS = (asyncio.Protocol, asyncio.BufferedProtocol)
