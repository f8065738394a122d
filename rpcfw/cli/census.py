"""Who provides what, and how they do: what a registry lists, and what each server answers when it is asked.

Registries and servers are strangers here: what they say is bounded, and made fit to be shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import rpcfw
from rpcfw.cli.reach import first_snapshot
from rpcfw.connection.channel import Channel
from rpcfw.endpoint import Endpoint
from rpcfw.errors import RpcError
from rpcfw.registry import Registration, Registry
from rpcfw.transport import Transport

POLL_S = 1.25
"""Servers bear one ping a second."""
NAMES_S = 5.0
"""How often a registry is asked for the names of services."""
MAX_SERVICES = 1000
MAX_SERVERS = 1000
"""No more of each are looked at."""
_AT_A_TIME = 32
_MAX_BACKOFF_S = 0.8

SERVING, NOT_SERVING, DRAINING = "SERVING", "NOT_SERVING", "DRAINING"
UNREACHABLE, UNKNOWN = "UNREACHABLE", "UNKNOWN"


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What a server said of itself.

    Attributes:
        load: what its heartbeat says; empty if it could not be asked.
        services: what it serves.
        reason: why it could not be asked.
        silent: nothing is known of it, nor will be: datagrams have no answer.
    """

    load: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    services: frozenset[str] = frozenset()
    reason: str = ""
    silent: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One service at one server.

    Attributes:
        registration: what the registry says.
        health: SERVING, NOT_SERVING, DRAINING, UNREACHABLE or, before and where it cannot be asked, UNKNOWN.
        running: calls that the server is handling, of all its services; None when not known.
        lag_ms: how late its event loop is; None when not known.
        reason: why it is not SERVING.
    """

    registration: Registration
    health: str = UNKNOWN
    running: int | None = None
    lag_ms: float | None = None
    reason: str = ""

    def document(self) -> dict[str, Any]:
        """The same as plain data."""
        said, endpoint = self.registration, self.registration.endpoint
        return {
            "service": said.service,
            "version": said.version,
            "address": endpoint.address,
            "weight": endpoint.weight,
            "labels": dict(endpoint.labels),
            "instance": said.instance,
            "started_at": _instant(said.started_at),
            "health": self.health,
            "running": self.running,
            "lag_ms": self.lag_ms,
            "reason": self.reason,
        }


class Askers:
    """Connections to servers, to ask them how they do. Use it as ``async with``."""

    def __init__(self, timeout_s: float, transports: Mapping[str, Transport] | None = None) -> None:
        self._timeout_s = timeout_s
        self._transports = transports
        self._clients: dict[str, rpcfw.Client] = {}
        self._slots = asyncio.Semaphore(_AT_A_TIME)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        clients = [*self._clients.values()]
        self._clients.clear()
        await asyncio.gather(*(client.close() for client in clients))

    async def ask(self, endpoint: Endpoint) -> Answer:
        """Ask a server how it does. Never raises; that it cannot be reached is an answer."""
        if endpoint.scheme == "udp":
            return Answer(reason="datagrams say nothing of their server", silent=True)
        try:
            async with self._slots, asyncio.timeout(self._timeout_s):
                channel = self._channel(endpoint)
                connection = await channel.connected()
                await connection.session.ping()
                hello = connection.hello
                served = frozenset(hello.services) if hello is not None else frozenset[str]()
                return Answer(connection.session.peer_load, served)
        except TimeoutError:
            return Answer(reason=f"no answer within {self._timeout_s:g} s")
        except RpcError as error:
            return Answer(reason=error.message)
        except (ConnectionError, ValueError) as error:
            return Answer(reason=str(error))

    async def forget(self, address: str) -> None:
        """Close the connection to a server."""
        client = self._clients.pop(address, None)
        if client is not None:
            await client.close()

    def _channel(self, endpoint: Endpoint) -> Channel:
        client = self._clients.get(endpoint.address)
        if client is None:
            options = rpcfw.ConnectionOptions(max_backoff_s=_MAX_BACKOFF_S, attempt_s=self._timeout_s)
            client = self._clients[endpoint.address] = rpcfw.connect(
                endpoint, options=options, transports=self._transports
            )
        (channel,) = client.nodes
        assert isinstance(channel, Channel)
        return channel


async def census(
    registry: Registry,
    names: Sequence[str],
    timeout_s: float,
    where: str,
    transports: Mapping[str, Transport] | None = None,
) -> list[Entry]:
    """What a registry lists for these services, or for all, with the answer of each server.

    Raises RpcError when the registry cannot be asked, or does not know the names of its services.
    """
    wanted = names or await service_names(registry, timeout_s, where)
    snapshots = await asyncio.gather(*(first_snapshot(registry, name, timeout_s, where) for name in wanted))
    listed = in_order(registration for snapshot in snapshots for registration in snapshot)
    endpoints = {registration.endpoint.address: registration.endpoint for registration in listed}
    async with Askers(timeout_s, transports) as askers:
        answers = await asyncio.gather(*map(askers.ask, endpoints.values()))
    by_address = dict(zip(endpoints, answers, strict=True))
    return [entry_of(registration, by_address[registration.endpoint.address]) for registration in listed]


async def service_names(registry: Registry, timeout_s: float, where: str) -> list[str]:
    """The names of the services that a registry lists. Raises RpcError."""
    try:
        async with asyncio.timeout(timeout_s):
            return sorted(await registry.services())[:MAX_SERVICES]
    except TimeoutError:
        problem = registry.problem or f"it did not answer within {timeout_s:g} s"
        raise RpcError(rpcfw.Code.UNAVAILABLE, f"nothing can be learnt from {where}: {problem}") from None


class LiveCensus:
    """A census that is kept up. Use it as ``async with``, and iterate over it: an item after each change and poll.

    Raises RpcError on entering when the registry does not list the names of its services; one that is away is
    waited for.
    """

    def __init__(
        self,
        registry: Registry,
        names: Sequence[str],
        timeout_s: float,
        where: str,
        transports: Mapping[str, Transport] | None = None,
    ) -> None:
        self._registry = registry
        self._names = names
        self._timeout_s = timeout_s
        self._where = where
        self._askers = Askers(timeout_s, transports)
        self._listed: dict[str, frozenset[Registration]] = {}
        self._answers: dict[str, Answer] = {}
        self._following: dict[str, asyncio.Task[None]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._naming: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._problem = ""

    @property
    def problem(self) -> str:
        """Why nothing new is known, a sentence; empty when all is well."""
        return self._problem or self._registry.problem

    @property
    def silent(self) -> bool:
        """The registry has not said yet who provides what: that nobody is listed means nothing."""
        unheard = [name for name in self._names if name not in self._listed]
        return bool(unheard) if self._names else bool(self._problem and not self._listed)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for name in self._names:
            self._follow(name)
        if not self._names:
            try:
                self._follow_all(await service_names(self._registry, self._timeout_s, self._where))
            except RpcError as error:
                if error.code is not rpcfw.Code.UNAVAILABLE:
                    raise
                self._problem = error.message
            self._naming = loop.create_task(self._look_for_names())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [*self._following.values(), *self._asking.values()]
        tasks += [self._naming] if self._naming is not None else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._askers.__aexit__(kind, error, trace)

    async def __aiter__(self) -> AsyncIterator[list[Entry]]:
        loop = asyncio.get_running_loop()
        while True:
            self._news.clear()
            listed = in_order(registration for snapshot in self._listed.values() for registration in snapshot)
            await self._ask_these({one.endpoint.address: one.endpoint for one in listed})
            yield [entry_of(one, self._answers.get(one.endpoint.address)) for one in listed]
            until = loop.time() + POLL_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._news.wait()

    async def _look_for_names(self) -> None:
        while True:
            await asyncio.sleep(NAMES_S)
            try:
                self._follow_all(await service_names(self._registry, self._timeout_s, self._where))
                self._problem = ""
            except RpcError as error:
                self._problem = error.message

    def _follow_all(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self._following and len(self._following) < MAX_SERVICES:
                self._follow(name)

    def _follow(self, name: str) -> None:
        self._following[name] = asyncio.get_running_loop().create_task(self._watch(name))

    async def _watch(self, name: str) -> None:
        watch: Any = self._registry.watch(name)
        async with contextlib.aclosing(watch) as snapshots:
            async for snapshot in snapshots:
                self._listed[name] = snapshot
                self._news.set()

    async def _ask_these(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Ask the servers that are listed now, and no others."""
        for address in [address for address in self._asking if address not in endpoints]:
            self._asking.pop(address).cancel()
            self._answers.pop(address, None)
            await self._askers.forget(address)
        for address, endpoint in endpoints.items():
            if address not in self._asking:
                self._asking[address] = asyncio.get_running_loop().create_task(self._keep_asking(endpoint))

    async def _keep_asking(self, endpoint: Endpoint) -> None:
        address = endpoint.address
        while True:
            before = self._answers.get(address)
            answer = self._answers[address] = await self._askers.ask(endpoint)
            if before is None or _changed(before, answer):
                self._news.set()
            await asyncio.sleep(POLL_S)


def _changed(before: Answer, after: Answer) -> bool:
    """Whether it should be shown at once, and not only at the next poll."""
    told = [(bool(a.reason), a.load.get("draining"), a.load.get("unhealthy")) for a in (before, after)]
    return told[0] != told[1]


def in_order(registrations: Any) -> list[Registration]:
    """By service and address, so many as are looked at."""
    found: list[Registration] = sorted(registrations, key=lambda one: (one.service, str(one.endpoint)))
    return found[:MAX_SERVERS]


def entry_of(registration: Registration, answer: Answer | None) -> Entry:
    """What is known of one service at one server; its answer is None while it is being asked."""
    if answer is None:
        return Entry(registration, reason="not asked yet")
    if answer.reason:
        return Entry(registration, UNKNOWN if answer.silent else UNREACHABLE, reason=answer.reason)
    load, name = answer.load, registration.service
    running, lag_s = load.get("running"), load.get("lag_s")
    unhealthy = load.get("unhealthy")
    health, reason = SERVING, ""
    if answer.services and name not in answer.services:
        health, reason = (
            NOT_SERVING,
            f"the server has no {name}; it serves {', '.join(sorted(answer.services))}",
        )
    elif load.get("draining") is True:
        health, reason = DRAINING, "the server is going"
    elif isinstance(unhealthy, list) and name in unhealthy:
        health, reason = NOT_SERVING, "the server says so"
    return Entry(
        registration,
        health,
        running if isinstance(running, int) else None,
        round(lag_s * 1000, 3) if isinstance(lag_s, int | float) else None,
        reason,
    )


def _instant(seconds: float) -> str | None:
    if not seconds:
        return None
    with contextlib.suppress(ValueError, OverflowError, OSError):
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
    return None
