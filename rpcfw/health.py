"""Whether the services of a server do well, as an ordinary service that anybody may ask or watch.

The words and rules are those of the gRPC health checking protocol: the empty name means the whole server, `check` of an
unknown service is NOT_FOUND, and `watch` of one says SERVICE_UNKNOWN and goes on, in case it comes.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Iterable

from rpcfw.errors import Code, RpcError
from rpcfw.interface import idempotent, local, service

HEALTH = "rpcfw.Health"
MAX_WATCHES = 1000
"""So many watches of one server at a time; a stranger could open them without end."""


class Status(enum.StrEnum):
    """How a service does."""

    SERVING = "SERVING"
    NOT_SERVING = "NOT_SERVING"
    SERVICE_UNKNOWN = "SERVICE_UNKNOWN"


@service(HEALTH)
class Health:
    """Says how the services of the server that serves it do.

    Attributes:
        ended: the server is going; nothing is served any more, whatever was set.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._statuses = dict.fromkeys(services, Status.SERVING)
        self.ended = False
        self._watches = 0
        self._waiting: set[asyncio.Future[None]] = set()

    @idempotent
    async def check(self, service: str = "") -> Status:
        """How a service does; the empty name means all of them together. NOT_FOUND when there is no such service."""
        status = self.status(service)
        if status is Status.SERVICE_UNKNOWN:
            raise RpcError(Code.NOT_FOUND, f"there is no service {service!r} here; there are {self._known()}")
        return status

    async def watch(self, service: str = "") -> AsyncIterator[Status]:
        """How a service does: now, and whenever that changes, until the server ends."""
        if self._watches >= MAX_WATCHES:
            raise RpcError(
                Code.RESOURCE_EXHAUSTED,
                f"{MAX_WATCHES:,} watches are open here; use check instead",
                executed=False,
            )
        self._watches += 1
        try:
            told: Status | None = None
            while True:
                status = self.status(service)
                if status is not told:
                    told = status
                    yield status
                elif self.ended:
                    return
                else:
                    await self.changed()
        finally:
            self._watches -= 1

    @local
    def status(self, service: str = "") -> Status:
        """How a service does; SERVICE_UNKNOWN when there is none of that name."""
        if service:
            known = self._statuses.get(service, Status.SERVICE_UNKNOWN)
            return Status.NOT_SERVING if self.ended and known is Status.SERVING else known
        serves = not self.ended and all(status is Status.SERVING for status in self._statuses.values())
        return Status.SERVING if serves else Status.NOT_SERVING

    @local
    def set(self, service: str, status: Status) -> None:
        """Say how a service does; the empty name means all of them. Call it on the server's loop.

        Clients that hear of it by heartbeats call the service elsewhere while it is NOT_SERVING.

        Raises:
            KeyError: this server has no such service.
            ValueError: the status is neither SERVING nor NOT_SERVING.
        """
        if status not in (Status.SERVING, Status.NOT_SERVING):
            raise ValueError(f"status={status!r} must be Status.SERVING or Status.NOT_SERVING")
        if service and service not in self._statuses:
            raise KeyError(f"there is no service {service!r} on this server; there are {self._known()}")
        for name in [service] if service else [*self._statuses]:
            self._statuses[name] = Status(status)
        self._wake()

    @local
    def services(self) -> list[str]:
        """The names of all services."""
        return [*self._statuses]

    @local
    def unhealthy(self) -> list[str]:
        """The services that were set NOT_SERVING."""
        return [name for name, status in self._statuses.items() if status is not Status.SERVING]

    @local
    async def changed(self) -> None:
        """Wait until something is set, or the server is going."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)

    @local
    def end(self) -> None:
        """The server is going: nothing is served any more, and watches end after saying so."""
        self.ended = True
        self._wake()

    def _known(self) -> str:
        return ", ".join(sorted(self._statuses)) or "none"

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
