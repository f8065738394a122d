"""Questions to a name server, and their answers as plain values: addresses of a host, servers of a service.

Everything of dnspython is here and nowhere else; when to ask, and what becomes of an answer, is not. SRV records are
read as RFC 2782 has them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Protocol

MISSING = "dns:// needs dnspython: pip install 'rpcfw[dns]'"


class LookupFailed(Exception):
    """No answer could be had; the message says why. It says nothing about whether the name exists."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What a name server said.

    Attributes:
        records: texts of addresses, or `Target`; none when there are none.
        ttl_s: for how long it holds, in seconds; None when the answer was that there is nothing.
        exists: whether the name exists at all.
    """

    records: tuple[Any, ...]
    ttl_s: float | None = None
    exists: bool = True


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Target:
    """One SRV record: the lowest priority is to be used alone, weights share the calls within it."""

    priority: int
    weight: int
    host: str
    port: int


class Lookup(Protocol):
    """Asks a name server."""

    async def addresses(self, host: str, kind: str) -> Answer:
        """The addresses of a host, of one kind: ``A`` or ``AAAA``. Raises LookupFailed."""
        ...

    async def targets(self, name: str) -> Answer:
        """The SRV records of a name. Raises LookupFailed."""
        ...


class Resolver:
    """Asks one name server, or those of this system. Raises ImportError that says what to install.

    Args:
        nameserver: IP address; empty for the system's, whose search list then completes short names.
        port: of the name server.
        timeout_s: seconds for one question, retries and TCP included.
    """

    def __init__(self, nameserver: str = "", port: int = 53, *, timeout_s: float = 5.0) -> None:
        self._dns = _library()
        self._nameserver = nameserver
        self._port = port
        self._timeout_s = timeout_s
        self._resolver: Any = None

    async def addresses(self, host: str, kind: str) -> Answer:
        """The addresses of a host, of one kind: ``A`` or ``AAAA``. Raises LookupFailed."""
        records, ttl_s, exists = await self._ask(host, kind)
        return Answer(tuple(sorted({record.address for record in records})), ttl_s, exists)

    async def targets(self, name: str) -> Answer:
        """The SRV records of a name. Raises LookupFailed."""
        records, ttl_s, exists = await self._ask(name, "SRV")
        targets = {
            Target(record.priority, record.weight, record.target.to_text(omit_final_dot=True), record.port)
            for record in records
            if record.target.to_text() != "." and record.port  # "." says that the service is not offered
        }
        return Answer(tuple(sorted(targets)), ttl_s, exists)

    async def _ask(self, name: str, kind: str) -> tuple[Sequence[Any], float | None, bool]:
        dns = self._dns
        try:
            if self._resolver is None:
                self._resolver = self._configured()
            answer = await self._resolver.resolve(
                name, kind, lifetime=self._timeout_s, search=not self._nameserver
            )
        except dns.resolver.NXDOMAIN:
            return (), None, False
        except dns.resolver.NoAnswer:
            return (), None, True
        except (dns.exception.DNSException, OSError, ValueError) as error:
            self._resolver = None  # the system may have other name servers by the next time
            raise LookupFailed(f"cannot look up {kind} of {name}: {error or type(error).__name__}") from None
        return tuple(answer), float(answer.chaining_result.minimum_ttl), True

    def _configured(self) -> Any:
        resolver = self._dns.asyncresolver.Resolver(configure=not self._nameserver)
        if self._nameserver:
            resolver.nameservers, resolver.port = [self._nameserver], self._port
        return resolver


def _library() -> ModuleType:
    try:
        import dns.asyncresolver
        import dns.exception
        import dns.resolver
    except ImportError as error:
        raise ImportError(MISSING) from error
    return dns
