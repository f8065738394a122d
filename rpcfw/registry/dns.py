"""Endpoints from DNS: the addresses of a name with a port, or the SRV records of a name.

When an answer has run out it is asked for again; while none can be had, the last one holds. Only when to ask is
decided here: what records mean is `dns_endpoints`', and how to ask is `dns_lookup`'s.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import logging
import random
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from rpcfw.chance import new_rng
from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, RpcError
from rpcfw.registry.dns_endpoints import DnsOptions, Finder
from rpcfw.registry.dns_lookup import Lookup, LookupFailed, Resolver
from rpcfw.registry.refusal import Refused
from rpcfw.registry.registration import Registration
from rpcfw.registry.snapshots import Board

log = logging.getLogger("rpcfw.registry")

SERVICE = "{service}"
"""In a name: the service's own, in lower case, with hyphens for what is neither letter nor digit."""
_FIRST_RETRY_S, _MAX_RETRY_S = 1.0, 30.0
_SPREAD = 0.1


class DnsRegistry:
    """Says what a name server says. It asks while somebody watches.

    Args:
        name: whose addresses to use, or whose SRV records when there is no `port`; may contain `SERVICE`. Without it
            all services are offered by the same servers.
        port: of the servers; None for SRV records.
        lookup: who is asked; None for this system's name servers, which knows nothing of its hosts file.
        options: see there.
        rng: where jitter comes from.

    Attributes:
        problem: why there is no answer, or that the name does not exist; empty when all is well.
    """

    def __init__(
        self,
        name: str,
        port: int | None = None,
        *,
        lookup: Lookup | None = None,
        options: DnsOptions | None = None,
        rng: random.Random | None = None,
    ) -> None:
        if port is None and not name.startswith("_"):
            raise ValueError(
                f"{name!r} lacks a port: write {name}:7000, or the name of an SRV record, _orders._tcp.{name}"
            )
        if port is not None and not 0 < port < 1 << 16:
            raise ValueError(f"port {port} must be from 1 to 65535")
        self._name = name
        self._port = port
        self._lookup = lookup or Resolver()
        self._options = options or DnsOptions()
        self._rng = rng
        self._board = Board(first=self._begin, last=self._end)
        self._followed: dict[str, _Followed] = {}
        self.problem = ""

    @classmethod
    def from_url(cls, url: str) -> DnsRegistry:
        """Read ``dns://10.0.0.2:53/shop.example:7000`` or ``dns:///_orders._tcp.shop.example``.

        The query may set timeout_s, and what `DnsOptions` has; the rest are labels. Raises ValueError that names the
        URL and the mend, and ImportError when dnspython is missing.
        """
        try:
            return cls._read(url)
        except ValueError as error:
            raise ValueError(f"{url!r}: {error}") from None

    @classmethod
    def _read(cls, url: str) -> DnsRegistry:
        parts = urlsplit(url)
        name, _, port = unquote(parts.path).removeprefix("/").partition(":")
        if not name or "/" in name:
            raise ValueError("after the name server comes a name: dns:///shop.example:7000")
        if port and not (port.isascii() and port.isdigit()):
            raise ValueError(f"port {port!r} must be a number from 1 to 65535")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        timeout_s = _number(query, "timeout_s", 5.0)
        if not timeout_s > 0:
            raise ValueError(f"timeout_s={timeout_s:g} must be above 0")
        options = DnsOptions(
            scheme=query.pop("scheme", "tcp"),
            weight=_whole(query.pop("weight", "100")),
            family=query.pop("family", "auto"),
            min_ttl_s=_number(query, "min_ttl_s", 5.0),
            max_ttl_s=_number(query, "max_ttl_s", 300.0),
            labels=MappingProxyType(query),
        )
        nameserver = parts.hostname or ""
        if nameserver:
            _check_address(nameserver)
        resolver = Resolver(nameserver, parts.port or 53, timeout_s=timeout_s)
        return cls(name, int(port) if port else None, lookup=resolver, options=options)

    def register(self, registration: Registration) -> AbstractAsyncContextManager[None]:
        """Refuse: entering raises RpcError FAILED_PRECONDITION."""
        return Refused(
            f"{registration.endpoint.address} cannot be registered in DNS: add a record to {self._name} at its name "
            "server, or use a registry that servers can register at, such as zeroconf://"
        )

    def watch(self, service: str) -> AsyncGenerator[frozenset[Registration], None]:
        """Where DNS says a service is, as `Registry.watch` has it."""
        return self._board.watch(service)

    async def services(self) -> frozenset[str]:
        """Raise RpcError UNIMPLEMENTED: a name server does not say what there is."""
        raise RpcError(
            Code.UNIMPLEMENTED,
            f"DNS does not list services; ask a server at {self._name} for its own",
            executed=False,
        )

    async def close(self) -> None:
        """End the watches, and ask no more. May be called again."""
        self._board.close()
        tasks = [followed.task for followed in self._followed.values() if followed.task is not None]
        self._followed.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # -------------------------------------------------------------------------------------------- asking

    def _begin(self, service: str) -> None:
        name = self._name_for(service)
        followed = self._followed.get(name)
        if followed is None:
            finder = Finder(name, self._port, self._lookup, self._options)
            followed = self._followed[name] = _Followed(finder)
            followed.task = asyncio.create_task(self._follow(followed), name=f"follow {name} in DNS")
        elif followed.endpoints is not None:
            self._publish(service, followed.endpoints)

    def _end(self, service: str) -> None:
        self._board.forget(service)
        name = self._name_for(service)
        if any(self._name_for(watched) == name for watched in self._board.watched()):
            return
        followed = self._followed.pop(name, None)
        if followed is not None and followed.task is not None:
            followed.task.cancel()
            self._say(followed, "")

    async def _follow(self, followed: _Followed) -> None:
        rng = self._rng or new_rng()
        failures = 0
        while True:
            try:
                found = await followed.finder.find()
            except LookupFailed as error:
                self._say(followed, str(error), "; the last answer still holds" if followed.endpoints else "")
                pause_s = min(min(_FIRST_RETRY_S, self._options.min_ttl_s) * 2.0**failures, _MAX_RETRY_S)
                failures = min(failures + 1, 10)
            else:
                failures = 0
                self._say(followed, found.problem)
                followed.endpoints = found.endpoints
                for service in self._board.watched():
                    if self._name_for(service) == followed.finder.name:
                        self._publish(service, found.endpoints)
                pause_s = max(self._options.min_ttl_s, min(found.ttl_s, self._options.max_ttl_s))
            # Never early, and not all clients at once when a record runs out for all of them.
            await asyncio.sleep(pause_s * (1.0 + _SPREAD * rng.random()))

    def _publish(self, service: str, endpoints: Sequence[Endpoint]) -> None:
        self._board.publish(service, (Registration(service, endpoint, version="") for endpoint in endpoints))

    def _say(self, followed: _Followed, problem: str, consequence: str = "") -> None:
        if problem and problem != followed.problem:
            log.warning("%s%s", problem, consequence)
        followed.problem = problem
        problems = [other.problem for other in self._followed.values() if other.problem]
        self.problem = problems[0] if problems else ""

    def _name_for(self, service: str) -> str:
        if SERVICE not in self._name:
            return self._name
        return self._name.replace(SERVICE, re.sub("[^a-z0-9]+", "-", service.lower()).strip("-"))


@dataclasses.dataclass(slots=True, eq=False)
class _Followed:
    """A name that is asked for again and again."""

    finder: Finder
    task: asyncio.Task[Any] | None = None
    endpoints: tuple[Endpoint, ...] | None = None
    problem: str = ""


def _number(query: dict[str, str], name: str, default: float) -> float:
    text = query.pop(name, None)
    if text is None:
        return default
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name}={text!r} must be a number") from None


def _whole(weight: str) -> int:
    if not weight.isascii() or not weight.isdigit():
        raise ValueError(f"weight={weight!r} must be a whole number, 0 or more")
    return int(weight)


def _check_address(host: str) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(
            f"the name server {host!r} must be an IP address, or left out for the system's: dns:///shop.example:7000"
        ) from None
