"""Whom a command asks: the server at an endpoint, or the servers that a registry lists."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import rpcfw
from rpcfw.cli.output import CommandError, Exit
from rpcfw.cli.places import shown
from rpcfw.client import DEFAULT_TIMEOUT_S
from rpcfw.endpoint import SCHEMES
from rpcfw.errors import Code, RpcError
from rpcfw.generic import schema_from, services_of
from rpcfw.health import HEALTH, Health
from rpcfw.interface import Schema, service_schema, spec_of
from rpcfw.reflection import REFLECTION, Reflection, ServiceInfo
from rpcfw.registry import Registration, Registry, is_registry_url, open_registry
from rpcfw.registry.opening import near_scheme, registry_schemes
from rpcfw.transport import TlsConfig, TlsTransport, Transport, default_transports
from rpcfw.transport.certificates import FollowingContext

OWN = {HEALTH: Health, REFLECTION: Reflection}
"""Services that every server has, and lists nowhere."""
_ASKED = 8
"""So many servers of a service are tried when it is to be described."""
_AT_A_TIME = 16


class Reach:
    """Servers, and what they serve. Use it as ``async with``.

    Args:
        url: of an endpoint or of a registry.
        timeout_s: of unary calls, and of questions to a registry.
        transports: of the servers, not of the registry; the standard ones unless given.

    Attributes:
        client: makes calls. To one endpoint it fails at the first failure; where there are others, it tries on.

    Raises:
        CommandError: the URL cannot be used.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        transports: Mapping[str, Transport] | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._transports = transports
        self.registry = opened(url) if is_registry_url(url) else None
        self.where = shown(url)
        if self.registry is not None:
            self.client = rpcfw.connect(self.registry, timeout_s=timeout_s, transports=transports)
            return
        if not url.startswith(tuple(f"{scheme}://" for scheme in SCHEMES)):
            raise CommandError(_unknown(url), Exit.USAGE)
        try:
            self.client = rpcfw.connect(url, timeout_s=timeout_s, middleware=(), transports=transports)
        except ValueError as error:
            raise CommandError(str(error), Exit.USAGE) from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.close()
        if self.registry is not None:
            await self.registry.close()

    async def split(self, name: str) -> tuple[str, str | None]:
        """``shop.Orders``, ``shop.Orders.get`` or ``shop.Orders/get`` as service and method.

        Raises CommandError naming the services there are, when none of them fits.
        """
        known = await self._names(_candidates(name))
        service, slash, method = name.partition("/")
        if slash or name in known or name in OWN:
            parts = service, method or None
        else:
            service, _, method = name.rpartition(".")
            parts = service, method
        if parts[0] in known or (self.registry is None and parts[0] in OWN):
            return parts
        has = ", ".join(sorted(known)) or "nothing"
        place = f"at this server; it serves {has}"
        if self.registry is not None:
            place = f"at {self.where}, which lists {has}"
        raise CommandError(f"there is no service {parts[0] or name!r} {place}", Exit.REFUSED)

    async def infos(self) -> list[ServiceInfo]:
        """All services: of a registry each as one of its servers has it. Without methods where none can be asked."""
        if self.registry is None:
            return await services_of(self.client)
        slots = asyncio.Semaphore(_AT_A_TIME)

        async def info(name: str) -> ServiceInfo:
            try:
                async with slots, self._servers(name) as client:
                    found = await services_of(client)
            except RpcError as error:
                return ServiceInfo(name, "", [], f"no server of it can be asked: {error.message}")
            return next((one for one in found if one.name == name), ServiceInfo(name, "", []))

        return await asyncio.gather(*(info(name) for name in sorted(await self._names([REFLECTION]))))

    async def schema(self, service: str) -> Schema:
        """What a server says of a service. Raises RpcError."""
        if self.registry is None:
            own = OWN.get(service)
            return await schema_from(self.client, service) if own is None else service_schema(spec_of(own))
        async with self._servers(service) as client:
            return await schema_from(client, service)

    async def _names(self, candidates: Sequence[str]) -> list[str]:
        if self.registry is None:
            return [service.name for service in await services_of(self.client)]
        try:
            async with asyncio.timeout(self._timeout_s):
                return sorted(await self.registry.services())
        except TimeoutError:
            raise _silent(self.registry, self.where) from None
        except RpcError as error:
            if error.code is not Code.UNIMPLEMENTED:
                raise
        # One that does not list its services, such as DNS. A server that it has for one of these names does.
        for candidate in candidates:
            with contextlib.suppress(_NobodyError):
                async with self._servers(candidate) as client:
                    return [service.name for service in await services_of(client)]
        raise _NobodyError(f"{self.where} has no server of {' or '.join(candidates)}")

    @contextlib.asynccontextmanager
    async def _servers(self, service: str) -> AsyncIterator[rpcfw.Client]:
        """A client of the servers of a service, for what they say of themselves."""
        assert self.registry is not None
        found = await first_snapshot(self.registry, service, self._timeout_s, self.where)
        endpoints = sorted((registration.endpoint for registration in found), key=str)[:_ASKED]
        if not endpoints:
            raise _NobodyError(f"{self.where} lists no server of {service}")
        async with rpcfw.connect(
            *endpoints, timeout_s=self._timeout_s, transports=self._transports
        ) as client:
            yield client


class _NobodyError(RpcError):
    def __init__(self, message: str) -> None:
        super().__init__(Code.UNAVAILABLE, message, executed=False)


def transports_of(ca: Path | None, cert: Path | None, key: Path | None) -> dict[str, Transport] | None:
    """Transports that use these files for TLS, whatever an address says; None where no file is given.

    Raises CommandError when they do not go together, or one cannot be used.
    """
    if ca is None and cert is None and key is None:
        return None
    try:
        config = TlsConfig(certificate=cert, key=key, ca=ca)
        FollowingContext(config, "client")  # so that it fails here, and not at each server
    except OSError as error:
        raise CommandError(error.strerror or str(error), Exit.USAGE) from None
    except ValueError as error:
        raise CommandError("--key is the key of a certificate: give --cert as well", Exit.USAGE) from error
    return {**default_transports(), "tls": TlsTransport(config)}


def _unknown(url: str) -> str:
    registries = registry_schemes()
    near = near_scheme(url, [*SCHEMES, *registries])
    return (
        f"{url!r} is neither an endpoint nor a registry: start it with one of "
        f"{', '.join(f'{scheme}://' for scheme in SCHEMES)} for a server, or "
        f"{', '.join(f'{scheme}://' for scheme in registries)} for a registry"
        f"{f'; did you mean {near}://?' if near else ''}"
    )


def opened(url: str) -> Registry:
    """The registry of a URL. Raises CommandError when it cannot be used."""
    try:
        return open_registry(url)
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE) from None
    except ImportError as error:
        raise CommandError(str(error)) from None


async def first_snapshot(
    registry: Registry, service: str, timeout_s: float | None, where: str
) -> frozenset[Registration]:
    """What a registry lists for a service now. Raises RpcError UNAVAILABLE when it does not answer in time."""
    watch: Any = registry.watch(service)
    async with contextlib.aclosing(watch) as snapshots:
        try:
            async with asyncio.timeout(timeout_s):
                found: frozenset[Registration] = await anext(snapshots)
                return found
        except TimeoutError:
            raise _silent(registry, where) from None


def _silent(registry: Registry, where: str) -> RpcError:
    why = registry.problem or "it does not answer"
    return RpcError(Code.UNAVAILABLE, f"nothing can be learnt from {where}: {why}", executed=False)


def _candidates(name: str) -> list[str]:
    service, slash, _ = name.partition("/")
    return [service] if slash else [part for part in (name.rpartition(".")[0], name) if part]
