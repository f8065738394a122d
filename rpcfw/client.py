"""The client: endpoints, middleware and a balancer wired into one handler, and the lifetime of all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from rpcfw.balancer import Balancer, RoundRobin
from rpcfw.call import Call, Handler, Middleware, chain, check_timeout
from rpcfw.chance import new_rng
from rpcfw.connection.channel import Channel, ConnectionOptions, Shared
from rpcfw.connection.datagram import DatagramChannel
from rpcfw.endpoint import Endpoint
from rpcfw.middleware import Retry
from rpcfw.stub import make_stub, wrong_loop
from rpcfw.transport import Transport, default_transports

S = TypeVar("S")
DEFAULT_TIMEOUT_S = 10.0


class Client:
    """Makes calls to one or more endpoints that serve the same services. Use it as ``async with``.

    Connections are opened by the first calls. A client belongs to the event loop that first uses it; it may be shared
    by all tasks of that loop. Leaving the ``async with`` closes the connections and fails calls still in progress.
    """

    def __init__(
        self,
        endpoints: Sequence[str | Endpoint],
        *,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        balancer: Balancer | None = None,
        middleware: Sequence[Middleware] | None = None,
        options: ConnectionOptions | None = None,
        transports: Mapping[str, Transport] | None = None,
    ) -> None:
        if not endpoints:
            raise ValueError("a client needs at least one endpoint, such as tcp://127.0.0.1:7000")
        check_timeout(timeout_s, "Client")
        self.timeout_s = timeout_s
        rng = new_rng()
        self._transports = dict(transports or default_transports())
        self._shared = Shared(options or ConnectionOptions(), rng)
        self._channels = [self._channel(Endpoint.parse(endpoint)) for endpoint in endpoints]
        self._balancer = balancer or RoundRobin()
        wrapped = [Retry(rng=rng)] if middleware is None else middleware
        bottom = self._channels[0].handler if len(self._channels) == 1 else self._balanced
        self._handler = chain(wrapped, bottom)
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"<Client of {', '.join(channel.endpoint.address for channel in self._channels)}>"

    @property
    def handler(self) -> Handler:
        """Where stubs send their calls: the top of the client's stack."""
        return self._handler

    @property
    def nodes(self) -> tuple[Channel | DatagramChannel, ...]:
        """The endpoints with their state, as the balancer sees them."""
        return tuple(self._channels)

    def stub(self, interface: Callable[..., S]) -> S:
        """A stub of an interface, typed as the interface, without a generated file."""
        return make_stub(interface, self)

    def attach(self) -> asyncio.AbstractEventLoop:
        """The running loop, which is this client's own from the first use on. Raises RpcError on another loop."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None:
                raise wrong_loop()
            self._loop = loop
        return loop

    async def close(self) -> None:
        """Close all connections. Calls in progress fail with UNAVAILABLE. May be called again."""
        await asyncio.gather(*(channel.close() for channel in self._channels))

    async def __aenter__(self) -> Self:
        self.attach()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _balanced(self, call: Call) -> Awaitable[Any]:
        return self._balancer.pick(self._channels, call).handler(call)

    def _channel(self, endpoint: Endpoint) -> Channel | DatagramChannel:
        if endpoint.scheme == "udp":
            return DatagramChannel(endpoint)
        if endpoint.scheme not in self._transports:
            known = ", ".join(f"{scheme}://" for scheme in sorted([*self._transports, "udp"]))
            raise ValueError(
                f"{endpoint} needs a transport for {endpoint.scheme}://; this client has {known}"
            )
        return Channel(endpoint, self._transports[endpoint.scheme], self._shared)


def connect(
    *endpoints: str | Endpoint,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
    balancer: Balancer | None = None,
    middleware: Sequence[Middleware] | None = None,
    options: ConnectionOptions | None = None,
    transports: Mapping[str, Transport] | None = None,
) -> Client:
    """A client of the given endpoints; nothing is opened before the first call.

        async with rpcfw.connect("tcp://127.0.0.1:7000") as client:
            orders = client.stub(Orders)

    Args:
        endpoints: URLs of servers that serve the same services.
        timeout_s: for unary calls where neither the interface nor the caller says otherwise; None for no limit.
        balancer: picks the endpoint of each call; round robin unless given.
        middleware: wraps every call, the first outermost; `Retry()` unless given.
        options: how connections are kept, and sizes.
        transports: by scheme; the standard ones unless given.

    Raises:
        ValueError: an endpoint cannot be read.
    """
    return Client(
        endpoints,
        timeout_s=timeout_s,
        balancer=balancer,
        middleware=middleware,
        options=options,
        transports=transports,
    )
