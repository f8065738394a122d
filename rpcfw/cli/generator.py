"""One load generator: a client of its own that makes one call again and again, by reflection or by typed stubs.

What the call is was found out before and is plain data, so that another process can be given it. How the calls follow
each other is in `rpcfw.cli.load`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import rpcfw
from rpcfw.cli.load import Clock, Load, Plan
from rpcfw.cli.output import CommandError, Exit
from rpcfw.cli.reach import transports_of
from rpcfw.cli.tally import Tally
from rpcfw.cli.target import load as load_target
from rpcfw.client import DEFAULT_TIMEOUT_S, Client
from rpcfw.cluster.node import Node
from rpcfw.codec import encode_value, plan_of_arguments
from rpcfw.connection.channel import ConnectionOptions
from rpcfw.connection.spin import DEFAULT_TURNS
from rpcfw.errors import InterfaceError
from rpcfw.generic import GenericStub, service_from_schema
from rpcfw.interface import REQUIRED, MethodSpec, Schema, ServiceSpec, spec_of
from rpcfw.stub import Stub, bind_arguments, make_stub

BUSY_FROM = 32
"""With so many calls in flight a client that waits does not look out for replies (`spin_turns`), which makes no
difference then: its processor time says how busy it is."""
GRACE_S = DEFAULT_TIMEOUT_S
"""So long a stream without a timeout of its own may go on when the time of a load is over."""
_MARGIN_S = 1.0
"""A call that has a deadline is to end by it, and be counted as an error, before it is given up."""


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """What is called, and how.

    Attributes:
        url: of a server, or of a registry that lists some.
        schema: of the service.
        method: its name on the wire.
        arguments: by name, as they cross the wire.
        metadata: sent beside them.
        timeout_s: of each call; None for what the interface says, or the client.
        interface: ``module:Class`` for typed stubs, None for plain values.
        connections: to each server.
        tls: files of the roots, of a certificate and of its key; None for what the URL says.
    """

    url: str
    schema: Schema
    method: str
    arguments: Mapping[str, Any]
    metadata: Mapping[str, str]
    timeout_s: float | None = None
    interface: str | None = None
    connections: int = 1
    tls: tuple[Path | None, Path | None, Path | None] = (None, None, None)


def interface_of(name: str) -> tuple[type, ServiceSpec]:
    """The class that ``module:Class`` names, and its service. Raises CommandError for what is no interface."""
    found = load_target(name) if ":" in name else None
    try:
        if isinstance(found, type):
            return found, spec_of(found)
    except InterfaceError:
        pass
    raise CommandError(
        f"--interface {name!r} is no class decorated with @rpcfw.service: write module:Class, such as "
        "shop.contract:Orders",
        Exit.USAGE,
    )


def typed_arguments(method: MethodSpec, given: Mapping[str, Any]) -> tuple[Any, ...]:
    """Arguments as objects of the interface's classes. Raises CommandError naming what does not fit."""
    fields = [(parameter.name, parameter.type, parameter.default) for parameter in method.parameters]
    plan = plan_of_arguments(f"{method.name}_arguments", fields, REQUIRED)
    data = encode_value(dict(given))
    try:
        arguments: tuple[Any, ...] = plan.decode(data)
    except Exception as error:
        raise CommandError(f"{method.path}: {plan.decoding_error(error, data)}", Exit.USAGE) from error
    return arguments


class Generator:
    """Calls a target. Use it as ``async with``; `warm_up` and `measure` follow each other.

    Args:
        target: what is called.
        plan: how much, and when.
        clock: the machine's unless given.

    Raises:
        CommandError: the interface or the TLS files cannot be used, or the arguments do not fit the interface.
    """

    def __init__(self, target: Target, plan: Plan, clock: Clock | None = None) -> None:
        self._plan = plan
        self._clock = clock
        self.stopped = False
        self._client = _client(target, spins=plan.rate is not None or plan.in_flight < BUSY_FROM)
        stub, method, arguments = _prepared(target, self._client)
        self._call = _call(stub, method, arguments)
        self._grace_s = _grace_s(target.timeout_s or method.timeout_s, method)
        self._load: Load | None = None
        self._shares = _Shares(self._client)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def warm_up(self, seconds: float) -> None:
        """Call for so long without counting, and give up what runs then. Raises RpcError when the call is refused."""
        if seconds and not self.stopped:
            plan = dataclasses.replace(self._plan, seconds=seconds, calls=None)
            self._load = Load(self._call, plan, self._clock, grace_s=0.0)
            await self._load.run()

    async def measure(self, tell: Callable[[Tally], None], every_s: float) -> Tally:
        """Do the plan, and tell now and then how it goes. Raises RpcError when the server refuses the call."""
        if self.stopped:
            return Tally()
        self._shares.begin()
        self._load = Load(self._call, self._plan, self._clock, grace_s=self._grace_s)
        telling = asyncio.get_running_loop().create_task(_keep_telling(self._load, tell, every_s))
        try:
            await self._load.run()
        finally:
            telling.cancel()
        self._load.tally.nodes = self._shares.counts()
        return self._load.tally

    def stop(self) -> None:
        """End what runs now, and begin nothing more."""
        self.stopped = True
        if self._load is not None:
            self._load.stop()


class _Shares:
    """How many calls each node took since the beginning; those that a registry no longer lists are remembered."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._before: dict[Node, int] = {}

    def begin(self) -> None:
        self._before = {node: _taken(node) for node in self._nodes()}

    def counts(self) -> dict[str, int]:
        for node in self._nodes():
            self._before.setdefault(node, 0)
        found: dict[str, int] = {}
        for node, before in self._before.items():
            found[node.address] = found.get(node.address, 0) + _taken(node) - before
        return found

    def _nodes(self) -> list[Node]:
        return [node for node in self._client.nodes if isinstance(node, Node)]


def _taken(node: Node) -> int:
    return node.statistics.successes + node.statistics.failures


def _client(target: Target, *, spins: bool) -> Client:
    """A client without retries: one call is one call."""
    return rpcfw.connect(
        target.url,
        middleware=(),
        options=ConnectionOptions(pool_size=target.connections, spin_turns=DEFAULT_TURNS if spins else 0),
        transports=transports_of(*target.tls),
    )


def _prepared(target: Target, client: Client) -> tuple[Stub, MethodSpec, tuple[Any, ...]]:
    stub: Any
    if target.interface is None:
        spec = service_from_schema(target.schema)
        method = spec.methods[target.method]
        arguments = bind_arguments(method, (), dict(target.arguments))
        stub = GenericStub(client, spec)
    else:
        interface, spec = interface_of(target.interface)
        method = spec.methods[target.method]
        arguments = typed_arguments(method, target.arguments)
        stub = make_stub(interface, client)
    return stub.with_options(timeout_s=target.timeout_s, metadata=target.metadata), method, arguments


def _grace_s(timeout_s: float | None, method: MethodSpec) -> float:
    """How long calls in progress are waited for at the end."""
    if timeout_s is None and method.kind.streams_out:
        return GRACE_S
    return (timeout_s or DEFAULT_TIMEOUT_S) + _MARGIN_S


def _call(stub: Stub, method: MethodSpec, arguments: tuple[Any, ...]) -> Callable[[Tally], Awaitable[object]]:
    if not method.kind.streams_out:
        return lambda _: stub._call(method, arguments)

    async def read(tally: Tally) -> None:
        items: Any = stub._stream(method, arguments)
        async with contextlib.aclosing(items):
            async for _ in items:
                tally.items += 1

    return read


async def _keep_telling(load: Load, tell: Callable[[Tally], None], every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        tell(load.measure())
