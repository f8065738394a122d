"""The client: endpoints or a registry, middleware and a balancer wired into one handler, and the lifetime of it all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar

from rpcfw.balancer import Balancer, PowerOfTwo
from rpcfw.call import Handler, Middleware, chain, check_timeout
from rpcfw.chance import new_rng
from rpcfw.cluster.cluster import Cluster
from rpcfw.cluster.events import EventKind
from rpcfw.cluster.node import Node
from rpcfw.cluster.options import ClusterOptions
from rpcfw.connection.channel import Channel, ConnectionOptions, Shared
from rpcfw.connection.datagram import DatagramChannel
from rpcfw.endpoint import SCHEMES, Endpoint
from rpcfw.interface import spec_of
from rpcfw.middleware import Retry
from rpcfw.mistakes import (
    check_instance,
    check_mapping,
    check_middleware,
    check_number,
    check_object,
    shown,
)
from rpcfw.registry import Registry, is_registry_url, open_registry
from rpcfw.registry.opening import near_scheme, registry_schemes
from rpcfw.stub import make_stub, wrong_loop
from rpcfw.transport import Transport, default_transports

S = TypeVar("S")
DEFAULT_TIMEOUT_S = 10.0


class Client:
    """Makes calls to the servers at one or more endpoints, or to those that a registry lists. Use it as ``async with``.

    Connections are opened by the first calls. A client belongs to the event loop that first uses it; it may be shared
    by all tasks of that loop. Leaving the ``async with`` closes the connections and fails calls still in progress.
    """

    def __init__(  # noqa: PLR0913  # what a client is made of, one each
        self,
        source: Registry | Sequence[str | Endpoint],
        *,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        balancer: Balancer | None = None,
        middleware: Sequence[Middleware] | None = None,
        options: ConnectionOptions | None = None,
        transports: Mapping[str, Transport] | None = None,
        cluster: ClusterOptions | None = None,
    ) -> None:
        if timeout_s is not None:
            check_number(timeout_s, "timeout_s")
        check_timeout(timeout_s, "Client")
        if balancer is not None:
            check_object(balancer, "balancer", "pick", "RoundRobin()")
        if middleware is not None:
            check_middleware(middleware)
        if options is not None:
            check_instance(options, "options", ConnectionOptions, "ConnectionOptions()")
        if transports is not None:
            check_mapping(transports, "transports", '{"tls": TlsTransport(...)}')
        if cluster is not None:
            check_instance(cluster, "cluster", ClusterOptions, "ClusterOptions()")
        self.timeout_s = timeout_s
        rng = new_rng()
        self._transports = dict(transports or default_transports())
        self._own_registry: Registry | None = None
        found = self._found(source)
        self._sole: Channel | DatagramChannel | None = None
        self._cluster: Cluster | None = None
        options = options or ConnectionOptions()
        self._shared = Shared(options, rng)
        if isinstance(found, list) and len(found) == 1 and cluster is None:
            self._sole = self._channel(found[0])
            bottom: Handler = self._sole
        else:
            self._cluster = Cluster(
                found, balancer or PowerOfTwo(), cluster or ClusterOptions(), self._shared, self._transports
            )
            bottom = self._cluster.handler
        self._handler = chain([Retry(rng=rng)] if middleware is None else middleware, bottom)
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"<Client of {self._cluster if self._sole is None else self._sole.endpoint.address}>"

    @property
    def handler(self) -> Handler:
        """Where stubs send their calls: the top of the client's stack."""
        return self._handler

    @property
    def nodes(self) -> tuple[Node | Channel | DatagramChannel, ...]:
        """The endpoints with their state, as the balancer sees them, of the services called so far."""
        if self._sole is not None:
            return (self._sole,)
        assert self._cluster is not None
        return self._cluster.nodes

    @property
    def channels(self) -> tuple[Channel | DatagramChannel, ...]:
        """The connections to each endpoint, whatever is called there."""
        if self._sole is not None:
            return (self._sole,)
        assert self._cluster is not None
        return tuple(peer.channel for peer in self._cluster.peers)

    @property
    def event_counts(self) -> Mapping[tuple[EventKind, str], int]:
        """How often what happened to which endpoint, since the client was made: for metrics."""
        return {} if self._cluster is None else self._cluster.counts

    def watch(self, interface: type) -> None:
        """Find and connect to the servers of an interface now, and not only when it is first called."""
        self.attach()
        if self._cluster is not None:
            self._cluster.watch(spec_of(interface).name)

    async def ready(self, interface: type, nodes: int = 1) -> None:
        """Wait until so many servers of an interface can be called. Give it a limit by `asyncio.timeout`.

        A program that starts may wait for its servers so, and a test for all of them. A client of a single endpoint
        connects to it, and raises RpcError UNAVAILABLE when that fails.
        """
        self.attach()
        if self._cluster is not None:
            await self._cluster.ready(spec_of(interface).name, nodes)
        elif isinstance(self._sole, Channel):
            await self._sole.connected()

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
        if self._sole is not None:
            await self._sole.close()
        if self._cluster is not None:
            await self._cluster.close()
        if self._own_registry is not None:
            await self._own_registry.close()

    async def __aenter__(self) -> Self:
        self.attach()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _found(self, source: Registry | Sequence[str | Endpoint]) -> Registry | list[Endpoint]:
        """The registry, or the endpoints, that a client is made of."""
        if isinstance(source, str | Endpoint):
            raise TypeError(f"source={str(source)!r} is one endpoint: write connect({str(source)!r})")
        if not isinstance(source, Sequence):
            _check_registry(source)
            return source
        urls = [text for text in source if isinstance(text, str) and is_registry_url(text)]
        if urls and len(source) > 1:
            raise ValueError(f"{urls[0]!r} is a registry: give it alone, or give endpoints only")
        if urls:
            self._own_registry = open_registry(urls[0])
            return self._own_registry
        if not source:
            raise ValueError(
                "a client needs an endpoint, such as tcp://127.0.0.1:7000, or a registry, such as zeroconf://"
            )
        for server in source:
            _check_scheme(server)
        endpoints = [Endpoint.parse(endpoint) for endpoint in source]
        for endpoint in endpoints:
            if endpoint.scheme not in self._transports and endpoint.scheme != "udp":
                known = ", ".join(f"{scheme}://" for scheme in sorted([*self._transports, "udp"]))
                raise ValueError(
                    f"{endpoint} needs a transport for {endpoint.scheme}://; this client has {known}"
                )
        return endpoints

    def _channel(self, endpoint: Endpoint) -> Channel | DatagramChannel:
        if endpoint.scheme == "udp":
            return DatagramChannel(endpoint)
        return Channel(endpoint, self._transports[endpoint.scheme], self._shared)


def connect(
    *servers: str | Endpoint | Registry,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
    balancer: Balancer | None = None,
    middleware: Sequence[Middleware] | None = None,
    options: ConnectionOptions | None = None,
    transports: Mapping[str, Transport] | None = None,
    cluster: ClusterOptions | None = None,
) -> Client:
    """A client of the given servers; nothing is opened before the first call.

        async with rpcfw.connect("tcp://127.0.0.1:7000") as client:
            orders = client.stub(Orders)

    Args:
        servers: one registry, by URL or as an object, or the endpoints of servers that serve the same services. A
            registry given by URL is closed with the client, one given as an object is not.
        timeout_s: for unary calls where neither the interface nor the caller says otherwise; None for no limit.
        balancer: picks the node of each call; `PowerOfTwo` unless given.
        middleware: wraps every call, the first outermost; `Retry()` unless given.
        options: how connections are kept, and sizes.
        transports: by scheme; the standard ones unless given. A registry cannot lead to any other: a client that is
            given only ``tls`` never speaks without it.
        cluster: how several nodes are watched and chosen. A single endpoint is called without any of it unless given.

    Raises:
        ValueError: an endpoint or the URL of a registry cannot be read.
        TypeError: an argument is of the wrong kind; the message says which, and what to write.
    """
    registries = [server for server in servers if not isinstance(server, str | Endpoint | list | tuple)]
    for registry in registries:
        _check_registry(registry)
    if registries and len(servers) > 1:
        raise ValueError(f"{registries[0]!r} is a registry: give it alone, or give endpoints only")
    return Client(
        registries[0] if registries else servers,  # type: ignore[arg-type]  # told apart above
        timeout_s=timeout_s,
        balancer=balancer,
        middleware=middleware,
        options=options,
        transports=transports,
        cluster=cluster,
    )


def _check_registry(source: object) -> None:
    """Refuse what is given in the place of a registry and is none."""
    if source is None or isinstance(source, int | float | bytes | Mapping):
        port = source if isinstance(source, int) and not isinstance(source, bool) else 7000
        raise TypeError(
            f"server={shown(source)} is neither an endpoint nor a registry: write a URL, such as "
            f'"tcp://127.0.0.1:{port}" or "zeroconf://"'
        )
    check_object(source, "server", "watch", 'open_registry("zeroconf://")')


def _check_scheme(server: object) -> None:
    """Refuse a URL whose scheme neither an endpoint nor a registry has, and say which one may be meant."""
    if not isinstance(server, str):
        return
    if server.partition(":")[0].lower() in SCHEMES:
        return
    registries = registry_schemes()
    near = near_scheme(server, [*SCHEMES, *registries])
    host, _, port = server.rpartition(":")
    if near:
        mend = f"; did you mean {near}://?"
    elif "://" not in server and host and port.isdigit():
        mend = f"; write tcp://{server}"
    else:
        mend = ""
    raise ValueError(
        f"{server!r} is neither an endpoint nor a registry: start it with one of {_listed(SCHEMES)} for a server, "
        f"or {_listed(registries)} for a registry{mend}"
    )


def _listed(schemes: Sequence[str]) -> str:
    return ", ".join(f"{scheme}://" for scheme in schemes)
