"""The registry in Redis: `RedisRegistry`, which joins leases, a follower per service, the channel of changes, a board.

How registrations stand there is told in ``redis_scripts``. Needs ``pip install 'rpcfw[redis]'``, which is imported when
a registry is made and not before. Redis Cluster is not supported: a script uses keys of several slots.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from rpcfw.chance import new_rng
from rpcfw.errors import Code, RpcError
from rpcfw.registry.registration import Registration
from rpcfw.registry.remote import Away, Pauses, Problems, end_all, seconds, split_options
from rpcfw.registry.snapshots import Board
from rpcfw.registry.upkeep import Upkeep

if TYPE_CHECKING:
    from rpcfw.registry.redis_store import Server
    from rpcfw.registry.redis_watch import Follower

log = logging.getLogger("rpcfw.registry")

LEASE_S = 10.0
TIMEOUT_S = 5.0
_OPTIONS = frozenset({"lease_s", "timeout_s", "prefix", "ca"})


class RedisRegistry:
    """Keeps who offers what in Redis 5 or later.

    Attributes:
        problem: why Redis cannot be reached at present, a sentence; empty when all is well.

    Args:
        url: as redis-py has it: ``redis://user:password@host:port/0``, or ``rediss://`` for TLS.
        prefix: what all keys begin with.
        lease_s: after so long without a sign of life a registration goes.
        timeout_s: how long `register` and `services` wait for an answer.

    Raises:
        ValueError: at a URL or time that cannot be used.
        ImportError: without redis-py.
    """

    def __init__(
        self, url: str, *, prefix: str = "rpcfw", lease_s: float = LEASE_S, timeout_s: float = TIMEOUT_S
    ) -> None:
        self.problem = ""
        self._prefix = prefix or "rpcfw"
        self._lease_s = lease_s
        self._timeout_s = timeout_s
        self._server = _server(url, self._prefix, timeout_s)
        self._board = Board(first=self._first, last=self._last)
        self._problems = Problems(self._told)
        self._followers: dict[str, tuple[Follower, asyncio.Task[None]]] = {}
        self._listening: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._upkeep: Upkeep | None = None

    @classmethod
    def from_url(cls, url: str) -> RedisRegistry:
        """Read ``redis://host:port/0?lease_s=10&timeout_s=5&prefix=rpcfw``, or ``rediss://`` with ``ca`` naming a file.

        Raises ValueError that names what is wrong.
        """
        scheme = "rediss" if url.startswith("rediss:") else "redis"
        parts, options = split_options(url, scheme, _OPTIONS)
        database = parts.path.strip("/")
        if database and not (database.isascii() and database.isdigit()):
            raise ValueError(f"{url!r}: the path is the number of a database: redis://127.0.0.1:6379/0")
        if "ca" in options and scheme == "redis":
            raise ValueError(f"{url!r}: ca is for TLS: write rediss://")
        query = f"ssl_ca_certs={options['ca']}" if "ca" in options else ""
        return cls(
            urlunsplit((scheme, parts.netloc or "127.0.0.1", parts.path, query, "")),
            prefix=options.get("prefix", "rpcfw"),
            lease_s=seconds(url, "lease_s", options.get("lease_s", str(LEASE_S))),
            timeout_s=seconds(url, "timeout_s", options.get("timeout_s", str(TIMEOUT_S))),
        )

    def register(self, registration: Registration) -> AbstractAsyncContextManager[None]:
        """See `Registry.register`."""
        if self._upkeep is None:
            from rpcfw.registry.redis_store import Leases

            rng = new_rng()
            self._upkeep = Upkeep(
                Leases(self._server, self._prefix, self._lease_s, rng),
                lease_s=self._lease_s,
                timeout_s=self._timeout_s,
                report=lambda problem: self._problems.report("registrations", problem),
                rng=rng,
            )
        return self._upkeep.register(registration)

    def watch(self, service: str) -> AsyncGenerator[frozenset[Registration], None]:
        """See `Registry.watch`. Watchers of one service share what is read."""
        return self._board.watch(service)

    async def services(self) -> frozenset[str]:
        """See `Registry.services`. Raises RpcError UNAVAILABLE."""
        try:
            return await self._server.services()
        except Away as away:
            raise RpcError(Code.UNAVAILABLE, str(away)) from away

    async def close(self) -> None:
        """See `Registry.close`. What is registered is taken back, unless Redis is away."""
        if self._upkeep is not None:
            await self._upkeep.close()
        self._board.close()
        tasks = [*self._ending, *(task for _, task in self._followers.values())]
        if self._listening is not None:
            tasks.append(self._listening)
        await end_all(tasks)
        self._followers.clear()
        self._listening = None
        await self._server.close()

    # ------------------------------------------------------------------------------------ watched services

    def _first(self, service: str) -> None:
        from rpcfw.registry.redis_watch import Follower

        follower = Follower(
            self._server,
            service,
            grace_s=self._lease_s,
            publish=lambda registrations: self._board.publish(service, registrations),
        )

        def report(problem: str) -> None:
            self._problems.report(service, problem)

        rng = new_rng()
        task = asyncio.create_task(follower.run(report, rng), name=f"rpcfw watch of {service}")
        self._followers[service] = (follower, task)
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen(rng), name="rpcfw changes in redis")

    def _last(self, service: str) -> None:
        if service in self._followers:
            _, task = self._followers.pop(service)
            self._end(task)
        if not self._followers and self._listening is not None:
            self._end(self._listening)
            self._listening = None
        self._board.forget(service)
        self._problems.report(service, "")

    def _end(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _listen(self, rng: random.Random) -> None:
        """Pass on what servers tell. A channel that breaks delays news and loses none: followers read anyway."""
        pauses = Pauses(rng)
        while True:
            try:
                async with self._server.changes() as changes:
                    while True:
                        service = await changes.next()
                        pauses.reset()
                        self._wake(service)
            except Away as away:
                log.debug("the channel of changes broke: %s", away)
                self._wake()  # whether the server is away is theirs to find out
            await asyncio.sleep(pauses.next_s())

    def _wake(self, service: str = "") -> None:
        """Let the follower of a service read, or all of them."""
        for watched, (follower, _) in self._followers.items():
            if service in ("", watched):
                follower.wake()

    def _told(self, problem: str) -> None:
        self.problem = problem


def _server(url: str, prefix: str, timeout_s: float) -> Server:
    try:
        from rpcfw.registry.redis_store import Server
    except ModuleNotFoundError as error:
        raise ImportError(f"a registry in redis needs {error.name}: pip install 'rpcfw[redis]'") from error
    name = urlsplit(url).netloc.rpartition("@")[2]  # without the password
    return Server(url, name=name, prefix=prefix, timeout_s=timeout_s)
