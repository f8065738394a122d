"""What Redis says of one service, followed by one task: read after each change told, and when the next lease ends.

The reading is the truth; what is told on the channel only makes it early. When Redis has lost its data, because it was
restarted or flushed, what was known stays known for the time of a lease, in which servers register again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable

from rpcfw.registry.redis_store import Server
from rpcfw.registry.registration import Registration
from rpcfw.registry.remote import Away, Entries, Pauses

log = logging.getLogger("rpcfw.registry")

READ_S = 10.0
"""The longest time between two readings."""
_GAP_S = 0.05
"""The shortest: a hundred servers that start at once are read in a few goes."""
_AFTER_EXPIRY_S = 0.02


class Follower:
    """Follows one service and publishes each change.

    Args:
        server: Redis.
        service: whose registrations.
        grace_s: how long registrations stay known after Redis has lost its data.
        publish: told of all registrations after each reading.
    """

    def __init__(
        self,
        server: Server,
        service: str,
        *,
        grace_s: float,
        publish: Callable[[frozenset[Registration]], None],
    ) -> None:
        self._server = server
        self._service = service
        self._grace_s = grace_s
        self._publish = publish
        self._entries = Entries("redis")
        self._epoch = ""
        self._known: dict[str, tuple[Registration, float]] = {}
        """Of each address its registration, and when its lease ends by what was read last."""
        self._lost: dict[str, tuple[Registration, float]] = {}
        """What was there before Redis lost its data, and how long it counts."""
        self._news = asyncio.Event()
        self._fault = ""

    def wake(self) -> None:
        """Read soon: something has changed, or may have."""
        self._news.set()

    async def run(self, report: Callable[[str], None], rng: random.Random) -> None:
        """Follow until cancelled. `report` is told of each problem, and of its end by an empty text."""
        loop = asyncio.get_running_loop()
        pauses = Pauses(rng)
        while True:
            self._news.clear()
            try:
                epoch, rows = await self._server.read(self._service)
            except Away as away:
                report(str(away))
                await asyncio.sleep(pauses.next_s())
                continue
            except Exception as error:  # a fault here must not end the watch
                problem = f"watching {self._service} in redis failed with {error!r}: please report this"
                if problem != self._fault:
                    self._fault = problem
                    log.exception("watching %s in redis failed", self._service)
                report(problem)
                await asyncio.sleep(pauses.next_s())
                continue
            report("")
            pauses.reset()
            self._take(epoch, rows, loop.time())
            await asyncio.sleep(_GAP_S)
            ends = (end + _AFTER_EXPIRY_S for _, end in (*self._known.values(), *self._lost.values()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min([loop.time() + READ_S, *ends])):
                    await self._news.wait()

    def _take(self, epoch: str, rows: list[tuple[str, bytes, float]], now: float) -> None:
        """All there is, and what was lost a short while ago."""
        if self._epoch and epoch != self._epoch:
            self._lost |= {key: (entry, now + self._grace_s) for key, (entry, _) in self._known.items()}
        self._epoch = epoch or self._epoch
        self._known = {}
        for address, value, left_s in rows:
            registration = self._entries.read(self._service, f"{self._service}/{address}", value)
            if registration is not None:
                self._known[address] = (registration, now + left_s)
        self._lost = {
            key: (entry, end)
            for key, (entry, end) in self._lost.items()
            if end > now and key not in self._known
        }
        shown = {**self._lost, **self._known}
        self._publish(frozenset(registration for registration, _ in shown.values()))
