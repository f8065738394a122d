"""What `rpcfw run` does beside serving: places in registries and probes, for one server or for all workers.

How a place is taken and given back is in `rpcfw.membership`, what probes tell in `rpcfw.probes`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from rpcfw.cli.notation import DEFAULT_ENDPOINT
from rpcfw.cli.output import CommandError, Exit, say
from rpcfw.endpoint import Endpoint

if TYPE_CHECKING:
    from rpcfw import Server
    from rpcfw.membership import Membership

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
"""Where what listens at all addresses is reached on the same host."""


@dataclasses.dataclass(frozen=True, slots=True)
class PlaceOptions:
    """Where a server is to be found, and asked how it does.

    Attributes:
        register: URLs of registries.
        advertise: where clients reach it; none for where it listens.
        weight: its share of calls; None for that of its endpoints.
        labels: zone, tag and the like.
        probes: host and port for liveness and readiness over HTTP; empty for none.
    """

    register: Sequence[str] = ()
    advertise: Sequence[str] = ()
    weight: int | None = None
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    probes: str = ""

    def __post_init__(self) -> None:
        told = "--advertise" if self.advertise else "--weight" if self.weight is not None else ""
        told = told or ("--label" if self.labels else "")
        if told and not self.register:
            raise CommandError(
                f"{told} is about a place in a registry: say which with --register URL", Exit.USAGE
            )


class Places:
    """The places and probes of a server. Enter it before the server starts, and leave it when that has ended.

    Probes answer from the beginning to the end. Places are taken by `take` and given back when the drain begins.

    Raises:
        CommandError: an option cannot be used.
    """

    def __init__(self, server: Server, options: PlaceOptions) -> None:
        from rpcfw.membership import register

        self._server = server
        self._options = options
        self._stack = contextlib.AsyncExitStack()
        self._memberships: list[tuple[str, Membership]] = []
        try:
            for url in options.register:
                membership = register(
                    server,
                    url,
                    advertise=options.advertise,
                    weight=options.weight,
                    labels=options.labels,
                )
                self._memberships.append((url, membership))
        except ValueError as error:
            raise CommandError(str(error), Exit.USAGE) from error
        except ImportError as error:
            raise CommandError(str(error)) from error

    def check(self, listen: Sequence[str]) -> None:
        """Refuse what could not be taken, before anything listens at these endpoints.

        Raises:
            CommandError: clients could not connect there, or a registry takes no registrations.
        """
        endpoints = [_parsed(url) for url in listen]
        if self._memberships and not self._options.advertise:
            for endpoint in endpoints:
                _refuse_wildcard(endpoint)
        for url, membership in self._memberships:
            why = membership.refusal(endpoints[0] if endpoints else DEFAULT_ENDPOINT)
            if why:
                raise CommandError(f"--register {shown(url)}: {why}")

    async def __aenter__(self) -> Self:
        if self._options.probes:
            from rpcfw.probes import Probes

            memberships = [membership for _, membership in self._memberships]
            try:
                probes = Probes(self._server, self._options.probes, memberships=memberships)
            except ValueError as error:
                raise CommandError(f"--probes {error}", Exit.USAGE) from error
            except ImportError as error:
                raise CommandError(str(error)) from error
            try:
                await self._stack.enter_async_context(probes)
            except OSError as error:
                told = error.strerror or str(error)
                raise CommandError(f"--probes {self._options.probes}: {told}") from error
            say(f"probes: http://{probes.address}/livez and /readyz")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def take(self) -> None:
        """Take all places, once calls are taken. One whose registry is away is taken when that is back.

        Raises:
            CommandError: clients could not connect to where the server listens.
            RpcError: a registry takes no registrations.
        """
        if self._memberships and not self._options.advertise:
            for endpoint in self._server.endpoints:
                _refuse_wildcard(endpoint)
        entering = (self._stack.enter_async_context(membership) for _, membership in self._memberships)
        for outcome in await asyncio.gather(*entering, return_exceptions=True):
            if isinstance(outcome, asyncio.CancelledError):
                return  # the drain has begun meanwhile, and given the place up
            if isinstance(outcome, BaseException):
                raise outcome
        for url, membership in self._memberships:
            if membership.registered.is_set():
                say(f"registered at {shown(url)}")
            else:
                say(f"not registered at {shown(url)} yet: it cannot be reached; trying on")


def labels_of(pairs: Sequence[str]) -> dict[str, str]:
    """Labels from ``key=value``. Raises CommandError for what is not."""
    for pair in pairs:
        if not pair.partition("=")[0] or "=" not in pair:
            raise CommandError(f"--label {pair!r} is not key=value", Exit.USAGE)
    return dict(pair.split("=", 1) for pair in pairs)


def shown(url: str) -> str:
    """A registry's URL without the password that may stand in it, for what is printed."""
    password = urlsplit(url).password
    return url.replace(f":{password}@", ":***@", 1) if password else url


def reached(endpoint: Endpoint) -> str:
    """The address at which a server is reached from its own host."""
    host = _LOOPBACK.get(endpoint.host)
    return endpoint.address if host is None else f"{endpoint.scheme}://{host}:{endpoint.port}"


def _parsed(url: str) -> Endpoint:
    try:
        return Endpoint.parse(url)
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE) from None


def _refuse_wildcard(endpoint: Endpoint) -> None:
    if endpoint.host in _LOOPBACK and endpoint.scheme in ("tcp", "tls", "udp"):
        raise CommandError(
            f"{endpoint.address} is no address that clients can connect to: say where this server is with "
            f"--advertise {endpoint.scheme}://HOST:{endpoint.port}",
            Exit.USAGE,
        )
