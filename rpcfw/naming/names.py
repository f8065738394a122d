"""Names for single servers: `bind`, `rebind`, `unbind`, `lookup`, `names`. After ``java.rmi.Naming``.

A name stands for one service at one endpoint, unlike a service in the registry, which any number of servers offer. It
lives as long as its binder's lease. A stub that was looked up stays with its server; it does not follow a rebind.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from rpcfw.call import Middleware
from rpcfw.client import DEFAULT_TIMEOUT_S, Client
from rpcfw.connection.channel import ConnectionOptions
from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, RpcError
from rpcfw.interface import ServiceSpec, spec_of
from rpcfw.naming.address import endpoints_of
from rpcfw.naming.holdings import Held
from rpcfw.naming.interface import Answer, Bound
from rpcfw.naming.registry import NamingRegistry
from rpcfw.naming.table import MAX_NAME, check_words
from rpcfw.registry.registration import Registration, from_network
from rpcfw.server import Server
from rpcfw.transport import Transport

S = TypeVar("S")

_AGAIN_S = 0.25
"""A registry that has just started is asked again after this time."""
_NEAR = 3


class Binding:
    """A name that stands for a server while the block runs. Draining the server gives it back first.

    Attributes:
        name: the name.
        registration: what it stands for; known once the block is entered.
    """

    def __init__(
        self,
        url: str,
        target: Server | str | Endpoint,
        interface: Any,
        advertise: str | Endpoint | None,
        replace: bool,
    ) -> None:
        self._registry, self.name = _opened(url)
        self._target = target
        self._spec = spec_of(interface) if interface is not None else None
        self._advertise = advertise
        self._replace = replace
        self._held: Held | None = None
        self._stack = contextlib.AsyncExitStack()
        self.registration: Registration

    @property
    def lost(self) -> str:
        """How the name was taken by another; empty while it is bound."""
        return self._held.lost if self._held is not None else ""

    async def __aenter__(self) -> Self:
        self.registration = self._describe()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._registry.close)
            bound = self._registry.bind(self.name, self.registration, replace=self._replace)
            self._held = await stack.enter_async_context(bound)
            if isinstance(self._target, Server):
                self._target.before_drain(self.leave)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave()

    async def leave(self) -> None:
        """Give the name back. May be called again; draining the server calls it first."""
        stack, self._stack = self._stack, contextlib.AsyncExitStack()
        await stack.aclose()

    def _describe(self) -> Registration:
        if not isinstance(self._target, Server):
            if self._spec is None:
                raise ValueError(
                    f"which service of {self._target}? give its interface: bind(url, endpoint, Orders)"
                )
            return Registration(self._spec.name, Endpoint.parse(self._target), self._spec.version)
        server = self._target
        if not server.endpoints:
            raise ValueError(f"{server!r} is not serving yet: enter it first, and bind it inside its block")
        endpoint = Endpoint.parse(self._advertise) if self._advertise is not None else server.endpoint
        spec = _chosen(server, self._spec)
        return Registration(spec.name, endpoint, spec.version, server.instance)


def bind(
    url: str,
    target: Server | str | Endpoint,
    interface: Any = None,
    *,
    advertise: str | Endpoint | None = None,
) -> Binding:
    """Let a name stand for a server while the block runs.

        async with rpcfw.serve(Shop()) as server, rpcfw.naming.bind("rpcfw://10.0.0.5:7400/orders", server):
            await server.wait_closed()

    Args:
        url: of the registry, with the name as its path.
        target: a server that is serving when the block is entered, or the endpoint of one.
        interface: which of its services; may be left out for a server that has only one.
        advertise: where clients reach the server, if not where it listens.

    Raises:
        ValueError: the URL names no registry or no name, or it is not clear which service is meant.
        RpcError: on entering. ALREADY_EXISTS when the name is bound; UNAVAILABLE when no registry can be reached.
    """
    return Binding(url, target, interface, advertise, replace=False)


def rebind(
    url: str,
    target: Server | str | Endpoint,
    interface: Any = None,
    *,
    advertise: str | Endpoint | None = None,
) -> Binding:
    """As `bind`, but the name is taken from who has it; there `Binding.lost` then says so."""
    return Binding(url, target, interface, advertise, replace=True)


async def unbind(url: str) -> None:
    """Take a name from whoever has bound it. Raises RpcError NOT_FOUND, or UNAVAILABLE."""
    registry, name = _opened(url)
    async with _closing(registry):
        if not any(await registry.ask(lambda asked: asked.unbind(name))):
            raise await _not_found(registry, name, 0.0)


async def names(url: str) -> dict[str, Registration]:
    """All names in a registry, and what they stand for. Raises RpcError UNAVAILABLE."""
    registry = NamingRegistry.from_url(url)
    async with _closing(registry):
        return await _names(registry)


@contextlib.asynccontextmanager
async def lookup(
    url: str,
    interface: Callable[..., S],
    *,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
    middleware: Sequence[Middleware] | None = None,
    options: ConnectionOptions | None = None,
    transports: Mapping[str, Transport] | None = None,
) -> AsyncIterator[S]:
    """A stub of what a name stands for, typed as the interface. Its client is closed at the end of the block.

        async with rpcfw.naming.lookup("rpcfw://10.0.0.5:7400/orders", Orders) as orders:
            print(await orders.get(7))

    Args:
        url: of the registry, with the name as its path.
        interface: of the service that the name stands for.
        timeout_s: of unary calls, as for `rpcfw.connect`,
        middleware: and the rest as well.
        options: see there.
        transports: see there; they are also how the registry is reached.

    Raises:
        ValueError: the URL names no registry or no name.
        RpcError: NOT_FOUND when the name is not bound, with those that are like it; FAILED_PRECONDITION when it stands
            for another service; UNAVAILABLE when no registry can be reached.
    """
    registry, name = _opened(url, transports)
    async with _closing(registry):
        found = await _find(registry, name, endpoints_of(url)[2])
    spec = spec_of(interface)
    if found.service != spec.name:
        raise RpcError(
            Code.FAILED_PRECONDITION,
            f"{name!r} stands for {found.service} at {found.endpoint.address}, not for {spec.name}; look it up with "
            "the interface of that service",
            executed=False,
        )
    async with Client(
        [found.endpoint], timeout_s=timeout_s, middleware=middleware, options=options, transports=transports
    ) as client:
        yield client.stub(interface)


def _opened(url: str, transports: Mapping[str, Transport] | None = None) -> tuple[NamingRegistry, str]:
    endpoints, name, timeout_s = endpoints_of(url)
    if not name:
        raise ValueError(f"{url!r} lacks a name: write rpcfw://10.0.0.5:7400/orders")
    try:
        check_words("name", [name], MAX_NAME)
    except RpcError as error:
        raise ValueError(f"{url!r}: {error.message}") from None
    return NamingRegistry(endpoints, timeout_s=timeout_s, transports=transports), name


@contextlib.asynccontextmanager
async def _closing(registry: NamingRegistry) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await registry.close()


async def _find(registry: NamingRegistry, name: str, timeout_s: float) -> Registration:
    """What a name stands for. A registry that has just started is given time to hear of it."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + timeout_s
    while True:
        answers: list[Answer] = await registry.ask(lambda asked: asked.find(name))
        found = [answer.bound for answer in answers if answer.bound is not None]
        if found:
            return _read(min(found, key=lambda bound: bound.age_s))
        settling_s = max(answer.settling_s for answer in answers)
        if not settling_s or loop.time() + _AGAIN_S >= ends_at:
            raise await _not_found(registry, name, settling_s)
        await asyncio.sleep(_AGAIN_S)


async def _not_found(registry: NamingRegistry, name: str, settling_s: float) -> RpcError:
    there = await _names(registry)
    folded = {known.casefold(): known for known in there}
    near = [folded[known] for known in difflib.get_close_matches(name.casefold(), folded, _NEAR)]
    hint = f"; is it {', '.join(map(repr, near))}?" if near else ""
    if not there:
        hint = "; no name is"
    if settling_s:
        hint += f" (the registry has just started, and may not know all names for {settling_s:.0f} s more)"
    return RpcError(Code.NOT_FOUND, f"{name!r} is not bound{hint}", {"near": near}, executed=True)


async def _names(registry: NamingRegistry) -> dict[str, Registration]:
    newest: dict[str, Bound] = {}
    for bound in [bound for answer in await registry.ask(lambda asked: asked.names()) for bound in answer]:
        if bound.name not in newest or bound.age_s < newest[bound.name].age_s:
            newest[bound.name] = bound
    return {name: _read(newest[name]) for name in sorted(newest)}


def _read(bound: Bound) -> Registration:
    try:
        return from_network(bound.registration)
    except ValueError as error:
        raise RpcError(
            Code.INTERNAL, f"the registry says of {bound.name!r} what cannot be read: {error}"
        ) from None


def _chosen(server: Server, spec: ServiceSpec | None) -> ServiceSpec:
    known = ", ".join(sorted(served.name for served in server.specs)) or "none"
    if spec is None:
        if len(server.specs) != 1:
            raise ValueError(f"which service of {known}? give its interface: bind(url, server, Orders)")
        return server.specs[0]
    for served in server.specs:
        if served.name == spec.name:
            return served
    raise ValueError(f"the server has no {spec.name}; it has {known}")
