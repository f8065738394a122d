"""One end of a simulated TCP connection, as the system of its host keeps it: numbers, windows, retransmission.

The process on top reads and writes through it (`SimLink`); the parcels below may be lost or late (`Medium`). After
RFC 9293, with the timer of RFC 6298 and no congestion control: chance in the network is what is simulated, not fair
shares of it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import math
import os
from collections import deque
from collections.abc import Callable
from typing import Protocol

from rpcfw.testing.medium import Medium

Address = tuple[str, int]
Data = bytes | memoryview

SEND_BUFFER_BYTES = RECEIVE_BUFFER_BYTES = 262_144
PATIENCE_S = 30.0
"""A peer that acknowledges nothing for so long is given up."""
CONNECT_PATIENCE_S = 130.0
_FIRST_RTO_S, _LEAST_RTO_S = 1.0, 0.2
_LONGEST_RTO_S, _LONGEST_CONNECT_RTO_S = 3.0, 64.0
"""Linux doubles the time up to 120 s, and is patient for 15 minutes; this leaves as many tries in half a minute."""
_FIN_WAIT_S = 60.0
"""How long the system waits for the peer's end once the process has closed and all it wrote is there."""


@dataclasses.dataclass(slots=True)
class Segment:
    """What one parcel of a connection holds.

    Attributes:
        number: of its first byte; the beginning (SYN) and the end (FIN) take one number each.
        ack: the number expected next from the receiver of this segment.
        window: how many numbers from `ack` on its receiver may send.
        probe: asks for an acknowledgement, and brings nothing.
    """

    number: int
    ack: int = 0
    window: int = 0
    data: Data = b""
    syn: bool = False
    fin: bool = False
    rst: bool = False
    probe: bool = False

    @property
    def end(self) -> int:
        """The number after its last."""
        return self.number + len(self.data) + self.syn + self.fin

    def __str__(self) -> str:
        if not (self.syn or self.fin or self.rst or self.probe):
            return f"{len(self.data)} B" if self.data else ""
        marks = [name.upper() for name in ("syn", "fin", "rst", "probe") if getattr(self, name)]
        return " ".join([*marks, *([f"{len(self.data)} B"] if self.data else [])])


@dataclasses.dataclass(slots=True)
class _Sent:
    """A segment that is not acknowledged yet."""

    segment: Segment
    end: int
    departs: float
    again: bool = False


class Wire(Protocol):
    """What a socket sends through."""

    medium: Medium

    @property
    def segment_bytes(self) -> int:
        """How much data one segment holds at most."""
        ...

    def send(self, segment: Segment, text: str) -> float:
        """Send a segment to the peer; returns when it has left the host."""
        ...

    def forget(self) -> None:
        """The connection is over: further segments of it are answered with a reset."""


class TcpSocket:
    """One end of a connection. The system calls `arrive`, the process everything else.

    Attributes:
        local, remote: the addresses.
        changed: called, in the network's context, when there may be something to read or the connection has opened
            or broken; and when there is room again, if `wants_room` is set.
        open: both sides have heard of each other.
        broken: why it broke, if it did.
        gone: it is over, cleanly or not. What is written goes nowhere; what has arrived can still be read.
    """

    def __init__(self, wire: Wire, local: Address, remote: Address, *, dials: bool) -> None:
        """Args: dials: True for the end that connects, False for the one that a SYN has come to."""
        self.local, self.remote = local, remote
        self.changed: Callable[[], None] = _nothing
        self.wants_room = False
        self.open = self.gone = False
        self.broken: OSError | None = None
        self._wire = wire
        self._medium = wire.medium
        self._dials = dials
        self._orphan = False
        self._unsent: deque[Data] = deque()
        self._unsent_bytes = 0
        self._sent: deque[_Sent] = deque()
        self._next = self._acked = 0
        self._edge = 1
        self._fin_wanted = self._fin_sent = False
        self._expected = 0  # 0: the peer's SYN has not come
        self._early: dict[int, Segment] = {}
        self._inbox: deque[Data] = deque()
        self._inbox_bytes = 0
        self._told_edge = 0
        self._fin_came = self._owes = False
        self._timer: asyncio.TimerHandle | None = None
        self._due = self._rings_at = 0.0
        self._progress_at = 0.0
        self._attempts = 0
        self._recover = 0
        self._round_trip_s = self._variance_s = math.nan
        self._expiry: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Send the SYN."""
        self._send_new(Segment(self._next, syn=True))

    # --------------------------------------------------------------------------------------- the process

    @property
    def room(self) -> int:
        """How many bytes `write` takes now."""
        if self.gone:
            return SEND_BUFFER_BYTES
        return max(0, SEND_BUFFER_BYTES - self._unsent_bytes - (self._next - self._acked))

    def write(self, data: Data) -> None:
        """Send bytes, no more than there is `room` for."""
        if not self.gone:
            self._unsent.append(data)
            self._unsent_bytes += len(data)
            self._pump()

    def shut(self) -> None:
        """Send the end after all that was written."""
        self._fin_wanted = True
        self._pump()

    @property
    def readable(self) -> int:
        """Bytes that wait to be read."""
        return self._inbox_bytes

    @property
    def at_end(self) -> bool:
        """Everything was read, and the peer sends no more."""
        return self._fin_came and not self._inbox

    def read_into(self, buffer: memoryview) -> int:
        """Move bytes into the buffer; how many."""
        room, filled = buffer.nbytes, 0
        while self._inbox and filled < room:
            chunk = self._inbox[0]
            size = min(len(chunk), room - filled)
            buffer[filled : filled + size] = chunk[:size]
            if size == len(chunk):
                self._inbox.popleft()
            else:
                self._inbox[0] = memoryview(chunk)[size:]
            filled += size
        self._inbox_bytes -= filled
        if not self.gone and self._new_edge() - self._told_edge >= RECEIVE_BUFFER_BYTES // 2:
            self._acknowledge()
        return filled

    def close(self) -> None:
        """The process is done: deliver the rest, then end. With bytes unread it is a reset, as on Linux."""
        self._orphan, self.changed = True, _nothing
        if self._inbox or not self.open:
            self.reset()
        else:
            self.shut()
            self._settle()

    def reset(self) -> None:
        """End at once; what was written and not delivered is lost."""
        if not self.gone and self._expected:
            self._wire.send(Segment(self._next, self._expected, rst=True), "RST")
        self._over(None)

    def vanish(self) -> None:
        """The host lost its power: nobody is told."""
        self.changed = _nothing
        self._over(None)

    # ---------------------------------------------------------------------------------------- the system

    def arrive(self, segment: Segment) -> None:
        """A segment came."""
        if self.gone:
            return
        if segment.rst:
            self._refused()
            return
        if not self._expected and not segment.syn:
            return  # of a connection that had these addresses before
        self._take_ack(segment)
        if segment.data or segment.syn or segment.fin or segment.probe:
            self._take(segment)
        if not self.gone:
            self._pump()
            self._settle()

    def _take_ack(self, segment: Segment) -> None:
        self._edge = max(self._edge, segment.ack + segment.window)
        now = self._medium.now()
        if segment.ack > self._acked:
            self._acked = segment.ack
            self._forget_sent(now)
            self._attempts = 0
            self._progress_at = now
            if self._sent:
                self._due = max(now, self._sent[0].departs) + self._rto_s()
                if self._acked < self._recover:
                    self._send_again()
                self._arm()
            if self.wants_room:
                self.changed()
        elif not self._sent:
            self._progress_at = now  # it answers probes: it lives, and does not read
        self._check_open()

    def _forget_sent(self, now: float) -> None:
        """Let go of what is acknowledged, and learn from it how long a round trip takes."""
        clear = True
        round_trip_s = math.nan
        while self._sent and self._sent[0].end <= self._acked:
            sent = self._sent.popleft()
            clear = clear and not sent.again
            round_trip_s = now - sent.departs
        if clear:  # else it waited for one sent again, or answers one of two (Karn's algorithm)
            self._measure(round_trip_s)

    def _take(self, segment: Segment) -> None:
        if segment.number >= self._expected:
            self._early[segment.number] = segment
        news = False
        while (following := self._early.pop(self._expected, None)) is not None:
            self._expected = following.end
            if following.data:
                self._inbox.append(following.data)
                self._inbox_bytes += len(following.data)
            self._fin_came = self._fin_came or following.fin
            news = True
        if self._orphan and self._inbox:
            self.reset()  # nobody will ever read it
            return
        if segment.syn or segment.fin or segment.probe:
            self._acknowledge()
        elif not self._owes:
            self._owes = True  # one acknowledgement for all that arrives at this instant
            self._medium.soon(self._settle_debt)
        self._check_open()
        if news:
            self.changed()

    def _check_open(self) -> None:
        if not self.open and self._expected and self._acked:
            self.open = True
            self.changed()

    def _refused(self) -> None:
        if self._fin_came and self._fin_sent:
            self._over(None)  # the peer has forgotten a connection that both have ended
        elif self._dials and not self.open:
            self._over(ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)))
        else:
            self._over(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))

    def _settle(self) -> None:
        """Forget a connection that the process has closed and both sides have ended."""
        if not self._orphan or self.gone or not self._fin_sent or self._sent:
            return
        if self._fin_came:
            self._over(None)
        elif self._expiry is None:
            self._expiry = self._medium.later(_FIN_WAIT_S, self._over, None)

    def _over(self, error: OSError | None) -> None:
        if self.gone:
            return
        self.gone, self.broken = True, error
        for timer in (self._timer, self._expiry):
            if timer is not None:
                timer.cancel()
        self._timer = self._expiry = None
        self._unsent.clear()
        self._sent.clear()
        self._early.clear()
        self._unsent_bytes = 0
        self._wire.forget()
        self.changed()

    # ------------------------------------------------------------------------------------------- sending

    def _pump(self) -> None:
        """Send what the peer has room for."""
        if self.gone or not self.open:
            return
        if self._unsent and self._next < self._edge:
            most = self._wire.segment_bytes
            while self._unsent and self._next < self._edge:
                self._send_new(Segment(self._next, data=self._cut(min(most, self._edge - self._next))))
        if self._fin_wanted and not self._fin_sent and not self._unsent:
            self._fin_sent = True
            self._send_new(Segment(self._next, fin=True))
        if self._unsent and not self._sent and self._timer is None:
            self._progress_at = self._medium.now()
            self._due = self._progress_at + self._rto_s()
            self._arm()  # a probe, in case word of the room gets lost

    def _cut(self, limit: int) -> Data:
        """The next bytes, at most so many."""
        parts: list[Data] = []
        size = 0
        while self._unsent and size < limit:
            part = self._unsent[0]
            if len(part) > limit - size:
                view = memoryview(part)
                parts.append(view[: limit - size])
                self._unsent[0] = view[limit - size :]
                size = limit
            else:
                parts.append(self._unsent.popleft())
                size += len(part)
        self._unsent_bytes -= size
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _send_new(self, segment: Segment) -> None:
        now = self._medium.now()
        self._next = segment.end
        departs = self._emit(segment, str(segment))
        if not self._sent:
            self._progress_at = now
            self._due = departs + self._rto_s()
        self._sent.append(_Sent(segment, self._next, departs))
        self._arm()

    def _send_again(self) -> None:
        """Send the oldest segment that is not acknowledged once more, unless it has not even left the host."""
        sent = self._sent[0]
        if sent.departs <= self._medium.now():
            sent.again = True
            sent.departs = self._emit(sent.segment, f"{sent.segment} again")
        self._due = sent.departs + self._rto_s()

    def _settle_debt(self) -> None:
        if self._owes and not self.gone:
            self._acknowledge()

    def _acknowledge(self) -> None:
        self._emit(Segment(self._next), "")

    def _emit(self, segment: Segment, text: str) -> float:
        self._owes = False
        self._told_edge = self._new_edge()
        window = self._told_edge - self._expected
        current = Segment(
            segment.number,
            self._expected,
            window,
            segment.data,
            segment.syn,
            segment.fin,
            segment.rst,
            segment.probe,
        )
        return self._wire.send(current, text)

    def _new_edge(self) -> int:
        return self._expected + RECEIVE_BUFFER_BYTES - self._inbox_bytes

    # --------------------------------------------------------------------------------------------- timer

    def _measure(self, round_trip_s: float) -> None:
        if math.isnan(self._round_trip_s):
            self._round_trip_s, self._variance_s = round_trip_s, round_trip_s / 2
        else:
            self._variance_s += (abs(round_trip_s - self._round_trip_s) - self._variance_s) / 4
            self._round_trip_s += (round_trip_s - self._round_trip_s) / 8

    def _rto_s(self) -> float:
        """How long to wait for an acknowledgement."""
        if math.isnan(self._round_trip_s):
            first = _FIRST_RTO_S
        else:
            first = max(_LEAST_RTO_S, self._round_trip_s + 4 * self._variance_s)
        longest = _LONGEST_RTO_S if self.open or not self._dials else _LONGEST_CONNECT_RTO_S
        return min(first * 2.0 ** min(self._attempts, 16), max(longest, first))

    def _arm(self) -> None:
        """See that `_ring` comes when it is due. One that comes earlier does not matter."""
        if self._timer is not None:
            if self._rings_at <= self._due:
                return
            self._timer.cancel()
        self._rings_at = self._due
        self._timer = self._medium.later(max(0.0, self._due - self._medium.now()), self._ring)

    def _ring(self) -> None:
        self._timer = None
        if not self._sent and not self._unsent:
            return
        now = self._medium.now()
        patience_s = CONNECT_PATIENCE_S if self._dials and not self.open else PATIENCE_S
        gives_up_at = self._progress_at + patience_s
        if now >= self._due:
            if now >= gives_up_at:
                self._over(TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))
                return
            self._attempts += 1
            if self._sent:
                self._recover = self._next
                self._send_again()
            else:
                departs = self._emit(Segment(self._next, probe=True), "probe")
                self._due = departs + self._rto_s()
            self._due = min(self._due, max(gives_up_at, now + _LEAST_RTO_S))
        self._arm()


def _nothing() -> None:
    """No process listens."""
