"""A server's place in a registry: taken when it serves, given back before it drains.

So a server gets no calls before it is ready, and its clients know that it goes before it does. What a registry is
lives in `registry`; how a server ends in `server`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Protocol, Self, runtime_checkable

from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, RpcError
from rpcfw.interface import ServiceSpec
from rpcfw.registry import Registration, Registry, open_registry
from rpcfw.registry.refusal import Refused

logger = logging.getLogger("rpcfw")

_AGAIN_S = 1.0
"""After so many seconds a registry that was away is asked again."""
_WILDCARDS = ("0.0.0.0", "::", "")


@runtime_checkable
class Served(Protocol):
    """What a membership needs of a server."""

    @property
    def specs(self) -> Sequence[ServiceSpec]:
        """The services it serves."""
        ...

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        """Where it listens."""
        ...

    @property
    def instance(self) -> str:
        """Names this run of it."""
        ...

    def before_drain(self, leave: Callable[[], Awaitable[None]]) -> None:
        """Have something done before it drains."""
        ...


class Membership:
    """All services of a server in one registry. Use it as ``async with``, inside that of the server.

    Entering does not fail because the registry is away: the server serves those who know it, and is registered as
    soon as the registry is back.

    Attributes:
        registrations: what is registered.
        registered: is set as soon as all of it is.
    """

    def __init__(
        self,
        server: Served,
        registry: Registry,
        endpoints: Sequence[Endpoint],
        describe: Callable[[Endpoint], Endpoint],
        *,
        owns_registry: bool,
    ) -> None:
        self._server = server
        self._registry = registry
        self._owns_registry = owns_registry
        self._endpoints = endpoints
        self._describe = describe
        self._staying: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._leaving = asyncio.Event()
        self.registrations: tuple[Registration, ...] = ()
        self.registered = asyncio.Event()

    async def __aenter__(self) -> Self:
        try:
            self.registrations = self._make_registrations()
        except ValueError:
            if self._owns_registry:
                await self._registry.close()
            raise
        self._server.before_drain(self.leave)
        self._staying = asyncio.get_running_loop().create_task(self._stay(), name="rpcfw membership")
        tried = asyncio.ensure_future(self._tried.wait())
        try:
            await asyncio.wait([tried, self._staying], return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            await self.leave()
            raise
        finally:
            tried.cancel()
        if self._staying.done() and not self._leaving.is_set():
            await self.leave()
            await self._staying  # raises what is wrong with it
        self._staying.add_done_callback(self._tell_of_end)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave()

    def refusal(self, endpoint: str | Endpoint) -> str:
        """Why this kind of registry takes no registrations at all; empty where it may. For before the server serves."""
        given = [*self._endpoints, Endpoint.parse(endpoint)]
        names = [spec.name for spec in self._server.specs] or ["*"]
        refused = self._registry.register(Registration(names[0], given[0]))
        return refused.message if isinstance(refused, Refused) else ""

    async def leave(self) -> None:
        """Give the place back. May be called again; draining the server calls it first."""
        staying = self._staying
        if staying is None:
            return
        self._leaving.set()
        if not self.registered.is_set():
            staying.cancel()
        try:
            await asyncio.wait([staying])
        except asyncio.CancelledError:
            staying.cancel()
            raise
        if self._owns_registry:
            await self._registry.close()

    async def _stay(self) -> None:
        """Enter all registrations, stay, leave: in one task, as a registry may need."""
        async with contextlib.AsyncExitStack() as stack:
            for registration in self.registrations:
                await self._enter(stack, registration)
            self.registered.set()
            self._tried.set()
            await self._leaving.wait()

    async def _enter(self, stack: contextlib.AsyncExitStack, registration: Registration) -> None:
        told = False
        while True:
            try:
                await stack.enter_async_context(self._registry.register(registration))
                if told:
                    logger.info("%s is registered now", registration.key)
                return
            except RpcError as error:
                if error.code is not Code.UNAVAILABLE:
                    raise
                if not told:
                    told = True
                    logger.warning("%s is not registered yet: %s; trying on", registration.key, error.message)
            self._tried.set()
            await asyncio.sleep(_AGAIN_S)

    def _tell_of_end(self, staying: asyncio.Task[None]) -> None:
        error = None if staying.cancelled() else staying.exception()
        if error is not None:
            logger.error("%s is not registered any more: %s", self._server, error, exc_info=error)

    def _make_registrations(self) -> tuple[Registration, ...]:
        server = self._server
        if not server.endpoints:
            raise ValueError(
                f"{server!r} is not serving yet: enter it first, as in "
                "async with server, rpcfw.register(server, registry)"
            )
        endpoints = self._endpoints or server.endpoints
        for endpoint in endpoints:
            if endpoint.host in _WILDCARDS and endpoint.scheme in ("tcp", "tls", "udp"):
                raise ValueError(
                    f"{endpoint.address} is no address that a client can connect to: say with advertise= where "
                    f"this server is, such as {endpoint.scheme}://10.0.0.5:{endpoint.port}"
                )
        started_at = _wall_clock()
        return tuple(
            Registration(spec.name, self._describe(endpoint), spec.version, server.instance, started_at)
            for spec in server.specs
            for endpoint in endpoints
        )


def register(
    server: Served,
    registry: Registry | str,
    *,
    advertise: str | Endpoint | Sequence[str | Endpoint] = (),
    weight: int | None = None,
    labels: Mapping[str, str] | None = None,
) -> Membership:
    """Offer all services of a server in a registry while the block runs.

        async with rpcfw.serve(Shop()) as server, rpcfw.register(server, "zeroconf://"):
            await server.wait_closed()

    Draining the server takes it off the list first, however the drain comes about.

    Args:
        server: is serving when the block is entered.
        registry: an object, or the URL of one, which is closed with the block.
        advertise: where clients reach the server, if not where it listens: behind 0.0.0.0, a proxy, or a NAT.
        weight: its share of calls beside the others', 100 unless given here or in the endpoint.
        labels: zone, tag and whatever routers look at; added to those of the endpoint.

    Raises:
        TypeError: an argument is of another type.
        ValueError: the URL is not a registry's, or the weight is below 0; on entering, the server is not serving yet,
            or it listens at a wildcard address and nothing is advertised.
        RpcError: FAILED_PRECONDITION where this kind of registry takes no registrations.
    """
    if not isinstance(server, Served):
        raise TypeError(
            f"{server!r} is not a server: serve it first, as in "
            "async with rpcfw.serve(...) as server, rpcfw.register(server, registry)"
        )
    _check_types(weight, labels)
    if weight is not None and weight < 0:
        raise ValueError(f"weight={weight!r} must be 0 or more; 100 is usual, and 0 gets no calls")
    given = [advertise] if isinstance(advertise, str | Endpoint) else advertise
    endpoints = [Endpoint.parse(endpoint) for endpoint in given]

    def describe(endpoint: Endpoint) -> Endpoint:
        described = MappingProxyType({**endpoint.labels, **(labels or {})})
        return dataclasses.replace(
            endpoint, weight=endpoint.weight if weight is None else weight, labels=described
        )

    opened = open_registry(registry) if isinstance(registry, str) else registry
    return Membership(server, opened, endpoints, describe, owns_registry=isinstance(registry, str))


def _check_types(weight: object, labels: object) -> None:
    if weight is not None and (not isinstance(weight, int) or isinstance(weight, bool)):
        raise TypeError(f"weight={weight!r} must be a whole number, 0 or more; 100 is usual")
    is_text = isinstance(labels, Mapping) and all(
        isinstance(part, str) for pair in labels.items() for part in pair
    )
    if labels is not None and not is_text:
        raise TypeError(f'labels={labels!r} must be a mapping of text to text, such as {{"zone": "a"}}')


def _wall_clock() -> float:
    """Seconds since 1970; a simulated loop has its own."""
    told: Callable[[], float] = getattr(asyncio.get_running_loop(), "wall_clock", time.time)
    return told()
