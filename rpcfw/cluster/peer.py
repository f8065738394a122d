"""One endpoint as a fleet sees it: its connections kept up, its heartbeats watched, what it says of itself.

A peer connects by itself and again after each loss, so that what can be reached is known before a call asks. The
services that are called there share it. How its calls go, and which of them it gets, is decided in `node` and `pool`.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from rpcfw.cluster.events import Event, EventKind
from rpcfw.cluster.options import ClusterOptions
from rpcfw.connection.channel import Channel, Shared
from rpcfw.connection.client import ClientConnection
from rpcfw.connection.datagram import DatagramChannel
from rpcfw.endpoint import Endpoint
from rpcfw.errors import RpcError
from rpcfw.transport import Transport

logger = logging.getLogger("rpcfw.cluster")

_NUMBERS = ("running", "lag_s", "uptime_s", "ping_s")
_SLOWER = 1.02
"""Pings this much slower than a server bears do not come too early for it, whatever the network does to them."""
_MAX_NAMES = 64
"""So many services that do badly are taken from a heartbeat."""


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """What the peers of one client share."""

    options: ClusterOptions
    shared: Shared
    transports: Mapping[str, Transport]


class Peer:
    """One endpoint.

    Attributes:
        channel: its connections.
        up: it is connected, answers its heartbeats, and does not say that it is going.
        draining: it says that it is going.
        reason: why it is not up, a sentence.
        reported: the numbers of its last heartbeat.
        instance: names the run of the server behind the endpoint; empty while it is not known.
        unhealthy: services that it offers, and says do badly.
        uses: how many nodes stand on it.
        one_way: it carries datagrams, and so only calls that want no reply.
        attempted: whether it can be reached has been tried.
        losses: how often it was up and is not any more.
        was_silent: it was given up for its silence, and is not back yet; calls failed there as at a server that is
            broken, but only for want of an answer.
        context: its own, without that of the call that happened to be first.
    """

    def __init__(self, endpoint: Endpoint, setting: Setting, tell: Callable[[Peer, Event], None]) -> None:
        self.endpoint = endpoint
        self.address = endpoint.address
        self._options = setting.options
        self._tell = tell
        self.channel: Channel | DatagramChannel
        if endpoint.scheme == "udp":
            self.channel = DatagramChannel(endpoint)
        else:
            self.channel = Channel(
                endpoint, setting.transports[endpoint.scheme], setting.shared, self._channel_changed
            )
        self.one_way = self.up = self.attempted = endpoint.scheme == "udp"
        self.draining = False
        self.reason = "it carries one-way calls only" if self.one_way else "not connected yet"
        self.reported: Mapping[str, float] = {}
        self.instance = ""
        self.unhealthy: frozenset[str] = frozenset()
        self.uses = 0
        self.losses = 0
        self.was_silent = False
        self.context = contextvars.Context()
        self._rng = setting.shared.rng
        self._first_backoff_s = setting.shared.options.first_backoff_s
        self._started_at = -math.inf
        self._stirred: asyncio.Future[float] | None = None
        self._keeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to connect. Once; until `close` or `leave`."""
        if isinstance(self.channel, Channel):
            loop = asyncio.get_running_loop()
            # in a context of its own: it outlives the call that happened to be first
            self._keeping = loop.create_task(
                self._keep(self.channel), name=f"rpcfw peer {self.address}", context=self.context
            )

    def warmth(self, now: float) -> float:
        """The share of its weight that it gets, from 0.1 to 1, as it started a while ago."""
        warm_up_s = self._options.warm_up_s
        if not warm_up_s or self._started_at == -math.inf:
            return 1.0
        return min(1.0, max(0.1, (now - self._started_at) / warm_up_s))

    async def leave(self) -> None:
        """Make no new calls; close when those in progress have ended, or at once when this is cancelled."""
        try:
            await self._stop()
            if isinstance(self.channel, Channel):
                await self.channel.drain()
        finally:
            await self.channel.close()

    async def close(self) -> None:
        """Close at once."""
        await self._stop()
        await self.channel.close()

    async def _stop(self) -> None:
        self.up = False
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.wait([keeping])

    async def _keep(self, channel: Channel) -> None:
        """Connect, beat, and again; ever more slowly where connections end as soon as they have come."""
        loop, longest_s, short = asyncio.get_running_loop(), self._options.max_backoff_s, 0
        while True:
            try:
                connection = await channel.connected()
                came_at = loop.time()
                self.attempted = True
                if connection.usable:
                    self._came_up()
                await self._beat(channel, connection)
            except RpcError as error:
                self._went_down(error.message)
                wait_s = min(max(0.0, channel.retry_at - loop.time()), longest_s * 1.2)
            except Exception as error:  # a transport's or a detector's: the peer is not lost for that
                reason, wait_s = f"{type(error).__name__}: {error}", longest_s
                if reason != self.reason:
                    logger.exception("%s cannot be used", self.address)
                for connection in channel.connections:
                    connection.session.abort(reason)
                self._went_down(reason)
            else:
                short = short + 1 if loop.time() - came_at < self._options.attempt_s else 0
                if not short or channel.connections:
                    continue
                wait_s = min(longest_s, self._first_backoff_s * 1.6 ** min(short - 1, 64))
                wait_s *= self._rng.uniform(0.8, 1.2)
            await asyncio.sleep(wait_s)

    async def _beat(self, channel: Channel, connection: ClientConnection) -> None:
        """Exchange heartbeats until the connection takes no more calls. Whatever the server sends is a sign of life."""
        loop, session, detector = asyncio.get_running_loop(), connection.session, self._options.new_detector()
        detector.heartbeat(session.heard_at)

        def heard() -> None:
            if connection.usable:  # else it is the last word of a run of the server that goes
                self._heard(session.peer_load)

        session.on_pong = heard
        share = self._rng.uniform(0.5, 1.0)  # of the first interval: not all nodes should beat at once
        try:
            while connection.usable:
                for each in channel.connections:  # with a `pool_size` there are others
                    each.session.beat()
                now = loop.time()
                following = now + self._every_s() * share
                share = 1.0
                while connection.usable and now < following:
                    now = await self._until(min(following, detector.deadline()), connection)
                    detector.heartbeat(session.heard_at)
                    if detector.suspicion(now) >= 1.0 or detector.deadline() <= now:
                        self.was_silent = True
                        session.abort(f"no heartbeat for {loop.time() - session.heard_at:.1f} s")
        finally:
            session.on_pong = None

    def _every_s(self) -> float:
        """How often to beat: as told, but no more often than the server bears where that is soon enough, too."""
        options, least_s = self._options, self.reported.get("ping_s", 0.0) * _SLOWER
        soon_enough = least_s < options.heartbeat_s * options.misses
        return least_s if options.heartbeat_s < least_s and soon_enough else options.heartbeat_s

    async def _until(self, at: float, connection: ClientConnection) -> float:
        """Wait until that time, or until the connection takes no more calls. The time it is then.

        A loop may call a timer a little before its time: it counts, or there would be another for the same instant.
        """
        loop = asyncio.get_running_loop()
        while connection.usable and loop.time() < at:
            self._stirred = stirred = loop.create_future()
            timer = loop.call_at(at, _wake, stirred, at)
            try:
                came = await stirred
            finally:
                self._stirred = None
                timer.cancel()
            if came == at:
                return max(loop.time(), at)
        return loop.time()

    def _heard(self, load: Mapping[str, Any]) -> None:
        """Take what a heartbeat says, as far as it is of the form it should have."""
        now = asyncio.get_running_loop().time()
        numbers = {name: load[name] for name in _NUMBERS if isinstance(load.get(name), int | float)}
        self.reported = numbers
        said, before = load.get("instance", ""), self.instance
        self.instance = (said[:64] if isinstance(said, str) else "") or before
        uptime_s = numbers.get("uptime_s")
        self._started_at = now - uptime_s if uptime_s is not None else -math.inf
        unhealthy = load.get("unhealthy", ())
        told = frozenset(str(name) for name in unhealthy[:_MAX_NAMES]) if isinstance(unhealthy, list) else ()
        draining = load.get("draining") is True
        changed = frozenset(told) != self.unhealthy
        self.unhealthy = frozenset(told)
        was_draining, self.draining = self.draining, draining
        if before and before != self.instance:
            self._say(EventKind.RESTARTED, f"run {self.instance} of the server, after {before}")
        if draining and not was_draining:
            self.up, self.reason = False, "it is going"
            self._say(EventKind.DRAINING, "its heartbeat says that it is going")
        elif changed:
            badly = ", ".join(sorted(told))
            self._say(EventKind.HEALTH, f"does badly: {badly}" if badly else "all services do well")
        self._came_up()

    def _channel_changed(self) -> None:
        """A connection has come, or takes no more calls."""
        stirred = self._stirred
        if stirred is not None:
            _wake(stirred, -math.inf)
        channel = self.channel
        assert isinstance(channel, Channel)
        if channel.connections:
            if self._keeping is not None:
                self._came_up()
        elif self.up:
            self._went_down(channel.last_end or "the connection was lost")
        else:
            self.draining = False  # the one that said so is gone

    def _came_up(self) -> None:
        if not self.up and not self.draining:
            self.up, self.reason = True, ""
            self._say(EventKind.UP, "connected")
            self.was_silent = False

    def _went_down(self, reason: str) -> None:
        was, self.up, self.draining, self.reason = self.up, False, False, reason
        tried, self.attempted = self.attempted, True
        self.losses += was
        if was or not tried:
            self._say(EventKind.DOWN, reason)

    def _say(self, kind: EventKind, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        self._tell(self, Event(now, kind, self.address, "", reason))


def _wake(future: asyncio.Future[float], at: float) -> None:
    if not future.done():
        future.set_result(at)
