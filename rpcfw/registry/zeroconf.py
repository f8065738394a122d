"""The registry that is the network itself: `ZeroconfRegistry`, multicast DNS without any server. Loopback by default.

It joins an announcer, a table of what was heard, and a board. Nothing is said to a network unless its interface is
named. Whoever is on that network can announce anything: what is heard are candidates, and who they are is for TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager

from rpcfw.chance import new_rng
from rpcfw.errors import Code, RpcError
from rpcfw.registry.registration import Registration
from rpcfw.registry.remote import Away, Pauses, Problems, end_all, seconds, split_options
from rpcfw.registry.snapshots import Board
from rpcfw.registry.upkeep import Upkeep
from rpcfw.registry.zeroconf_announcer import HEARD_S, Announcer
from rpcfw.registry.zeroconf_network import Network, checked, credible
from rpcfw.registry.zeroconf_records import Said, txt_of
from rpcfw.registry.zeroconf_table import LONGEST_TTL_S, Table

log = logging.getLogger("rpcfw.registry")

TTL_S = 15.0
TIMEOUT_S = 5.0
SETTLING_S = 1.0
"""So long after the first question it is known that nobody is there who offers what is watched."""
_ROUND_S = 0.08
_ROUNDS = 3
"""All who are there have answered when a round of waiting, after so many, brings nobody new: they answer at once."""
_ASKED_AGAIN_S = 2.0
_ASKED_EVERY_S = 30.0
"""Servers repeat themselves anyway; asking now and then shows whether the network still works."""
_GAP_S = 0.05
"""The shortest time between two snapshots: a flood of changes makes few of them."""
_SHORTEST_WAIT_S = 0.02
_OPTIONS = frozenset({"ttl_s", "timeout_s", "group"})


class ZeroconfRegistry:
    """Finds servers on this host, or on a network that is named.

    Attributes:
        problem: why multicast does not work at present, a sentence with the mend; empty when all is well.

    Args:
        interface: an address of this host, whose network is meant, or ``all``.
        group: servers and clients of different groups do not see each other on one network.
        ttl_s: whole seconds after which a server that has died is forgotten, 1 to 120; it repeats itself three times
            in that time. Heartbeats find out earlier.
        timeout_s: how long `register` and `services` wait.

    Raises:
        ValueError: at an interface or time that cannot be used.
    """

    def __init__(
        self,
        interface: str = "127.0.0.1",
        *,
        group: str = "",
        ttl_s: float = TTL_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        interface = checked(interface)
        if not 1 <= ttl_s <= LONGEST_TTL_S:
            raise ValueError(f"ttl_s={ttl_s:g} must be from 1 to {LONGEST_TTL_S:g} seconds")
        if len(group.encode()) > 63:
            raise ValueError(f"the group {group!r} is longer than 63 bytes")
        self.problem = ""
        self._group = group
        self._ttl_s = ttl_s
        self._timeout_s = timeout_s
        self._table = Table(group, credible(interface))
        self._network = Network(interface, self._heard, self._overrun)
        self._board = Board(first=self._first, last=self._board_forgets)
        self._problems = Problems(self._told)
        self._looking: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._news = asyncio.Event()
        self._changed: set[str] = set()
        self._publishing: asyncio.TimerHandle | None = None
        self._published_at = 0.0
        self._overrun_at = -LONGEST_TTL_S
        self._announcer: Announcer | None = None
        self._upkeep: Upkeep | None = None
        self._closed = False

    @classmethod
    def from_url(cls, url: str) -> ZeroconfRegistry:
        """Read ``zeroconf://``, which is loopback, ``zeroconf://all`` or ``zeroconf://10.0.0.5?group=test&ttl_s=15``.

        Raises ValueError that names what is wrong.
        """
        parts, options = split_options(url, "zeroconf", _OPTIONS)
        if parts.path.strip("/") or parts.port is not None or "@" in parts.netloc:
            raise ValueError(f"{url!r} has more than an interface: write zeroconf://, or zeroconf://10.0.0.5")
        return cls(
            parts.hostname or "127.0.0.1",
            group=options.get("group", ""),
            ttl_s=seconds(url, "ttl_s", options.get("ttl_s", str(TTL_S))),
            timeout_s=seconds(url, "timeout_s", options.get("timeout_s", str(TIMEOUT_S))),
        )

    def register(self, registration: Registration) -> AbstractAsyncContextManager[None]:
        """See `Registry.register`. Returns once we have heard ourselves.

        A host's name is resolved here; what the network is told are addresses. Raises RpcError INVALID_ARGUMENT for
        one that is too long for DNS.
        """
        if self._upkeep is None:
            rng = new_rng()
            owner = f"{rng.getrandbits(64):016x}"
            self._announcer = Announcer(
                self._network, group=self._group, owner=owner, ttl_s=self._ttl_s, heard=self._table.heard
            )
            self._upkeep = Upkeep(
                self._announcer,
                lease_s=self._ttl_s,
                timeout_s=self._timeout_s,
                report=lambda problem: self._problems.report("registrations", problem),
                rng=rng,
                check=lambda checked: txt_of(checked, self._group),
            )
        return self._upkeep.register(registration)

    def watch(self, service: str) -> AsyncGenerator[frozenset[Registration], None]:
        """See `Registry.watch`. The first snapshot is whole: it is shown when all have had time to answer.

        That is a quarter of a second after the first question, or `SETTLING_S` when nobody offers the service.
        """
        return self._board.watch(service)

    async def services(self) -> frozenset[str]:
        """See `Registry.services`. The first time it waits for answers. Raises RpcError UNAVAILABLE."""
        self._table.expire(asyncio.get_running_loop().time())
        self._look()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._settled.wait()
        except TimeoutError:
            raise RpcError(Code.UNAVAILABLE, self.problem or "multicast DNS does not answer") from None
        if self.problem:
            raise RpcError(Code.UNAVAILABLE, self.problem)
        return self._table.services()

    async def close(self) -> None:
        """See `Registry.close`. Says goodbye for what is registered."""
        self._closed = True
        if self._upkeep is not None:
            await self._upkeep.close()
        self._board.close()
        if self._publishing is not None:
            self._publishing.cancel()
            self._publishing = None
        looking, self._looking = self._looking, None
        if looking is not None:
            await end_all([looking])
        await self._network.close()

    # ------------------------------------------------------------------------------------ what is heard

    def _heard(self, said: Mapping[str, Said]) -> None:
        self._publish(self._table.hear(said, asyncio.get_running_loop().time()))
        self._news.set()
        if self._announcer is not None:
            self._announcer.listen()

    def _overrun(self) -> None:
        """More packets came than are read: those dropped may have been those of servers that are well."""
        now = asyncio.get_running_loop().time()
        if now - self._overrun_at >= LONGEST_TTL_S:
            log.warning("multicast DNS on %s: too many packets, some are dropped", self._network.interface)
        self._overrun_at = now
        self._table.freeze(now + self._ttl_s)
        if self._announcer is not None:
            self._announcer.overrun = True

    def _publish(self, services: set[str]) -> None:
        """Show watchers what has changed: at once, but not more often than every `_GAP_S`."""
        self._changed |= services.intersection(self._board.watched())
        if self._changed and self._publishing is None:
            self._publishing = asyncio.get_running_loop().call_at(self._published_at + _GAP_S, self._flush)

    def _flush(self) -> None:
        self._publishing = None
        self._published_at = asyncio.get_running_loop().time()
        changed, self._changed = self._changed, set()
        for service in changed:
            found = self._table.of(service)
            if self._settled.is_set() or (found and self.problem):
                self._board.publish(service, found)

    # ------------------------------------------------------------------------------------ asking and forgetting

    def _look(self) -> None:
        if self._looking is None and not self._closed:
            self._looking = asyncio.create_task(self._ask_and_forget(new_rng()), name="rpcfw multicast DNS")

    async def _ask_and_forget(self, rng: random.Random) -> None:
        pauses = Pauses(rng)
        waits_s = iter((_ASKED_AGAIN_S,))
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self._ask()
            except Away as away:
                self._problems.report("looking", str(away))
                self._publish(set(self._board.watched()))
                self._table.freeze(loop.time() + self._ttl_s)
                await asyncio.sleep(pauses.next_s())
                continue
            pauses.reset()
            self._problems.report("looking", "")
            if not self._settled.is_set():
                await self._settle()
            await self._forget_until(loop.time() + next(waits_s, _ASKED_EVERY_S * rng.uniform(0.8, 1.0)))

    async def _settle(self) -> None:
        """Wait until all who are there have answered. Ask again at growing distances, for packets get lost."""
        loop = asyncio.get_running_loop()
        until = loop.time() + SETTLING_S
        waited = 0
        while loop.time() < until:
            known = len(self._table)
            await self._forget_until(min(loop.time() + _ROUND_S, until))
            waited += 1
            found = len(self._table) and all(map(self._table.of, self._board.watched()))
            if waited >= _ROUNDS and found and len(self._table) == known:
                break
            if not waited & (waited - 1):
                self._ask_at_once()
        self._settled.set()
        self._publish(set(self._board.watched()))

    async def _ask(self) -> None:
        """Ask who is there, and see whether the question at least is heard. Raises `Away`."""
        await self._network.open()
        loop = asyncio.get_running_loop()
        for _ in range(3):
            asked_at = loop.time()
            self._network.asked.clear()
            if self._settled.is_set():
                self._network.ask()
            else:
                self._ask_at_once()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARD_S):
                    await self._network.asked.wait()
                    return
            if self._overrun_at >= asked_at:
                return
        await self._network.close()
        raise Away(self._network.unheard)

    def _ask_at_once(self) -> None:
        self._network.ask_at_once(self._table.left_s(asyncio.get_running_loop().time()))

    async def _forget_until(self, until: float) -> None:
        """Forget what was not repeated in time, until it is time to ask again."""
        loop = asyncio.get_running_loop()
        while (now := loop.time()) < until:
            expiry = self._table.next_expiry()
            if expiry is None or expiry > until:
                self._news.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(until):
                        await self._news.wait()  # what is new may be over earlier
                continue
            await asyncio.sleep(max(expiry - now, _SHORTEST_WAIT_S))
            self._publish(self._table.expire(loop.time()))

    # ------------------------------------------------------------------------------------ watched services

    def _first(self, service: str) -> None:
        self._table.expire(asyncio.get_running_loop().time())  # nobody does while nobody looks
        self._look()
        self._publish({service})

    def _board_forgets(self, service: str) -> None:
        self._board.forget(service)

    def _told(self, problem: str) -> None:
        self.problem = problem
