"""What a registry is: servers tell it what they offer, clients watch it. Every kind has this one small interface."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from rpcfw.registry.registration import Registration


class Registry(Protocol):
    """Keeps who offers what. One object serves one event loop; nothing is opened before its first use.

    A registry that cannot be reached costs nothing: what was known stays known, and what was registered is registered
    again when it is back. Only closing it ends a watch or a registration that goes on.
    """

    @property
    def problem(self) -> str:
        """Why the registry cannot be reached at present, a sentence; empty when all is well."""
        ...

    def register(self, registration: Registration) -> AbstractAsyncContextManager[None]:
        """Offer a service while the block runs.

        Entering returns once the registration is known to the registry, or raises RpcError UNAVAILABLE when that cannot
        be had within the registry's own timeout. From then on it is kept: leases are renewed, and it is made again
        after the registry was away. Leaving takes it back, and never raises for a registry that is away: the lease
        ends by itself then.
        """
        ...

    def watch(self, service: str) -> AsyncGenerator[frozenset[Registration], None]:
        """All registrations of a service: at once as soon as they are known, and again after each change.

        Each item is a full snapshot; several changes may come as one. An item is never repeated unchanged. It does not
        end, and does not raise while the registry is away. Close it with ``aclose``, or cancel the task
        that waits in it.
        """
        ...

    async def services(self) -> frozenset[str]:
        """The names of all services that are offered now. Raises RpcError UNAVAILABLE or UNIMPLEMENTED."""
        ...

    async def close(self) -> None:
        """Give up connections and watches. May be called again."""
        ...
