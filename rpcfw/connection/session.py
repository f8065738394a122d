"""What both ends of a connection do alike: read frames, answer pings, notice a dead peer, end with a reason.

The session knows no calls. It hands each frame to the handler of its type, given by the side that owns it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from rpcfw.connection.outbox import Outbox
from rpcfw.connection.resources import Resources
from rpcfw.connection.spin import Spin
from rpcfw.errors import Code, ProtocolError
from rpcfw.transport import Link, peer_subject
from rpcfw.wire.frames import GOAWAY, HEADER_BYTES, PING, PONG
from rpcfw.wire.handshake import Settings
from rpcfw.wire.liveness import Liveness, PingGuard, Verdict
from rpcfw.wire.reader import FrameReader, OnFrame

logger = logging.getLogger("rpcfw")

_WRITE_HIGH_BYTES = 256 * 1024
_LINGER_S = 5.0
"""How long a closed link may take to deliver what was written before."""


def _unknown(flags: int, method: int, stream: int, extra: int, body: bytes | memoryview) -> None:
    raise ProtocolError("a frame of an unknown type came")


def _name_of(link: Link) -> str:
    """The peer's address, for logs; behind TLS also the subject of its certificate."""
    name = link.get_extra_info("peername")
    address = f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name or "a local peer")
    subject = peer_subject(link)
    return f"{address} ({subject})" if subject else address


class Session(asyncio.BufferedProtocol):
    """One end of a connection, made before its link exists and told about it by the loop.

    Args:
        resources: shared with the other sessions of the same owner.
        settings: what this side accepts.
        max_hello_bytes: largest HELLO taken from a stranger.
        on_open: called once the link is there.
        on_lost: called once at the end with the reason, a sentence, and what broke the link, if anything did.
    """

    def __init__(
        self,
        resources: Resources,
        settings: Settings,
        *,
        max_hello_bytes: int | None = None,
        on_open: Callable[[], None],
        on_lost: Callable[[str, BaseException | None], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader(
            resources.scratch,
            max_frame_bytes=settings.max_frame_bytes,
            max_message_bytes=settings.max_message_bytes,
            max_assemblies=settings.max_assemblies,
            budget=resources.budget,
            max_hello_bytes=max_hello_bytes,
        )
        self._reader.parts = True
        self.settings = settings
        self.budget = resources.budget
        self._resources = resources
        self._spin = resources.spin
        self._on_open = on_open
        self._on_lost = on_lost
        self._handlers: Sequence[OnFrame] = ()
        self._heard_at = self._loop.time()
        self._frame_bytes = HEADER_BYTES  # as the last read brought them: tells how many the next one brings
        self._progress = 0
        self._progress_at = 0.0
        self._waits_for_reader = False
        self._liveness: Liveness | None = None
        self._ping_guard: PingGuard | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._gone = False
        self._until_gone: asyncio.Event | None = (
            None  # made for the first that waits: it is large, and few do
        )
        self._pings = 0
        self._waiting_pongs: dict[int, asyncio.Future[float]] = {}
        self._reason: str | None = None
        self.load: Callable[[], dict[str, Any]] = dict
        self.peer_load: dict[str, Any] = {}
        self.on_pong: Callable[[], None] | None = None
        self.link: Link
        self.peer_name = ""
        self.outbox: Outbox
        self.closed = False

    def handle(self, handlers: Sequence[OnFrame]) -> None:
        """Whom to give the frames to, by type number; PING and PONG are handled here."""
        own: dict[int, OnFrame] = {PING: self._ping, PONG: self._pong}
        known = [own.get(kind, handler) for kind, handler in enumerate(handlers)]
        self._handlers = known + [_unknown] * (256 - len(known))

    def keep_alive(self, interval_s: float | None, timeout_s: float) -> None:
        """Ping a silent peer every `interval_s` seconds, give it up `timeout_s` seconds after an unanswered one."""
        self._liveness = Liveness(interval_s or math.inf, timeout_s, self._loop.time())
        self._schedule_look()

    def wait_for_reader(self) -> None:
        """Read nothing from a peer that does not read: servers only, or both sides would wait for each other.

        Else a client could have replies pile up here without end. Large ones do not count here but in the budget: while
        one is on its way, the client is still heard. Keepalive gives up one that never reads again.
        """
        self._waits_for_reader = True

    @property
    def reason(self) -> str:
        """Why the connection ended; empty while it has not."""
        return self._reason or ""

    @property
    def heard_at(self) -> float:
        """When the peer last said anything, by the loop's clock."""
        return self._heard_at

    def guard_pings(self, min_interval_s: float) -> None:
        """Send a peer away that pings more often."""
        self._ping_guard = PingGuard(min_interval_s)

    def beat(self) -> None:
        """Send a ping and wait for nothing: its answer shows in `heard_at` and `peer_load`, and calls `on_pong`."""
        self._pings = (self._pings + 1) & 0xFFFF_FFFF
        self.outbox.send(PING, 0, 0, 0, self._pings)

    async def ping(self) -> float:
        """One round trip, in seconds. Raises ConnectionError when the link is gone."""
        if self.closed:
            raise ConnectionError(self._reason or "the connection is closed")
        self._pings = number = (self._pings + 1) & 0xFFFF_FFFF
        waiter = self._waiting_pongs[number] = self._loop.create_future()
        started = self._loop.time()
        self.outbox.send(PING, 0, 0, 0, number)
        try:
            return float(await waiter) - started
        finally:
            self._waiting_pongs.pop(number, None)

    def fail(self, code: Code, reason: str) -> None:
        """End the connection because the peer broke a rule: tell it which, then close."""
        if not self.closed:
            self._reason = self._reason or reason
            self.go_away(code, reason)
            self._close_link()
            self._lost(None)

    def go_away(self, code: Code, reason: str) -> None:
        """Tell the peer to open no more calls here."""
        if not self.closed:
            self.outbox.send(GOAWAY, 0, 0, 0, int(code), reason.encode()[:1000])

    def close(self, reason: str) -> None:
        """Write what is queued and close the link."""
        if not self.closed:
            self._reason = self._reason or reason
            self._close_link()
            self._lost(None)

    def abort(self, reason: str) -> None:
        """Close the link at once; what was not written is lost."""
        if not self.closed:
            self._reason = self._reason or reason
            self.link.abort()
            self._lost(None)

    async def wait_closed(self) -> None:
        """Wait until the link is gone, and with it what was written has been delivered or given up."""
        if not self._gone:
            if self._until_gone is None:
                self._until_gone = asyncio.Event()
            await self._until_gone.wait()

    @property
    def receiving(self) -> bool:
        """Whether part of a message has come, and the rest has not."""
        return self._reader.progress != 0

    def is_stalled(self, patience_s: float) -> bool:
        """Whether a message that is arriving has made no progress for so long. Ask now and then."""
        progress, now = self._reader.progress, self._loop.time()
        if progress == 0 or progress != self._progress:
            self._progress, self._progress_at = progress, now
        return progress != 0 and now - self._progress_at >= patience_s

    @property
    def head(self) -> bytes:
        """What goes before the body of a frame with the flag PARTED, while that is handled."""
        return self._reader.head

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.link = transport  # type: ignore[assignment]  # every transport's link is a Link
        self.link.set_write_buffer_limits(high=_WRITE_HIGH_BYTES)
        self.peer_name = _name_of(self.link)
        if self.link.get_extra_info("socket") is None:
            self._spin = Spin(0)  # within one process the other side needs this very loop
        self.outbox = Outbox(self._loop, self.link, self.settings, self._spin)
        self._resources.links += 1
        self._on_open()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
        self._resources.links -= 1
        self._lost(exc)
        self._gone = True
        if self._until_gone is not None:
            self._until_gone.set()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._reader.target()

    def buffer_updated(self, nbytes: int) -> None:
        if self.closed:  # TLS still delivers while it shuts down
            return
        self._heard_at = self._loop.time()
        self._spin.heard()
        reader = self._reader
        self.outbox.expect(nbytes // self._frame_bytes, alone=self._resources.links == 1)
        frames = reader.received(nbytes, self._handlers)
        if frames:
            self._frame_bytes = nbytes // frames + 1
        elif reader.is_amid_large:
            self._spin.large()
        if reader.error is not None:
            logger.warning("connection with %s: %s", self.peer_name, reader.error)
            self.fail(Code.INVALID_ARGUMENT, str(reader.error))
        elif self.outbox.congested and self._waits_for_reader:
            self._hold_reading()

    def _hold_reading(self) -> None:
        if self.outbox.backlog >= _WRITE_HIGH_BYTES and not self.link.is_closing():
            self.link.pause_reading()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.outbox.pause()

    def resume_writing(self) -> None:
        if self._waits_for_reader and not self.link.is_closing():
            self.link.resume_reading()
        self.outbox.resume()

    # heartbeat

    def _ping(self, flags: int, method: int, stream: int, extra: int, body: bytes | memoryview) -> None:
        if self._ping_guard is not None and not self._ping_guard.ping(self._loop.time()):
            raise ProtocolError(
                f"too many pings: at most one every {self._ping_guard.min_interval_s:g} s is allowed"
            )
        load = self.load()
        self.outbox.send(PONG, 0, 0, 0, extra, msgpack.packb(load) if load else b"")

    def _pong(self, flags: int, method: int, stream: int, extra: int, body: bytes | memoryview) -> None:
        if body:
            try:
                load = msgpack.unpackb(body, max_map_len=64, max_array_len=64)
            except (ValueError, RecursionError, msgpack.UnpackException) as error:
                raise ProtocolError(f"the load in a PONG cannot be read: {error}") from None
            self.peer_load = load if isinstance(load, dict) else {}
        waiter = self._waiting_pongs.get(extra)
        if waiter is not None and not waiter.done():
            waiter.set_result(self._loop.time())
        if self.on_pong is not None:
            self.on_pong()

    def _schedule_look(self) -> None:
        assert self._liveness is not None
        at = self._liveness.next_look()
        if at != math.inf and not self.closed:
            self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        liveness, now = self._liveness, self._loop.time()
        assert liveness is not None
        liveness.heard(self._heard_at)
        verdict = liveness.look(now)
        if verdict is Verdict.LOST:
            self.abort(f"no sign of life for {liveness.interval_s + liveness.timeout_s:g} s")
            return
        if verdict is Verdict.PING:
            self.beat()
        self._schedule_look()

    def _close_link(self) -> None:
        """Hand what is queued to the link and close it; a peer that does not read holds that up only for a while."""
        self.outbox.congested = False
        self.outbox.flush()
        self._lingering = self._loop.call_later(_LINGER_S, self.link.abort)
        self.link.close()

    def _lost(self, exc: BaseException | None) -> None:
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._handlers = ()
        self._reader.close()
        reason = self._reason or (f"the connection broke: {exc}" if exc else "the peer closed the connection")
        self._reason = reason
        self.outbox.close()
        for waiter in self._waiting_pongs.values():
            if not waiter.done():
                waiter.set_exception(ConnectionError(reason))
        self._on_lost(reason, exc)
