"""From the records of a name to endpoints: which records count, what their weights mean, for how long they hold.

Asks through a `Lookup` and keeps only what it needs when a part of an answer is missing; when to ask is not decided
here. Priorities and weights are those of RFC 2782.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from rpcfw.endpoint import Endpoint
from rpcfw.registry.dns_lookup import Lookup, LookupFailed, Target

log = logging.getLogger("rpcfw.registry")

MAX_TARGETS = 256
"""The most SRV records of one name whose hosts are looked up."""
_AT_ONCE = 16
_FAMILIES = {"auto": ("A", "AAAA"), "4": ("A",), "6": ("AAAA",), "any": ("A", "AAAA")}
_SCHEMES = ("tcp", "tls", "udp")


@dataclasses.dataclass(frozen=True, slots=True)
class DnsOptions:
    """How answers become endpoints, and when they are asked for anew. Raises ValueError.

    Attributes:
        scheme: of the endpoints: tcp, tls or udp. With tls they are to prove the name that was looked up, for an SRV
            record that of its domain, unless `labels` has a ``hostname``.
        weight: of endpoints from addresses; SRV records bring their own.
        labels: of all endpoints.
        family: ``4``, ``6``, ``any`` for both, or ``auto``: IPv6 only where there is no IPv4, so that a server with
            both is not taken for two.
        min_ttl_s: the shortest time between two questions, in seconds, above 0, whatever the answers say.
        max_ttl_s: the longest.
    """

    scheme: str = "tcp"
    weight: int = 100
    labels: Mapping[str, str] = dataclasses.field(default_factory=lambda: MappingProxyType({}))
    family: str = "auto"
    min_ttl_s: float = 5.0
    max_ttl_s: float = 300.0

    def __post_init__(self) -> None:
        if self.scheme not in _SCHEMES:
            raise ValueError(
                f"scheme={self.scheme!r} has no addresses in DNS: use one of {', '.join(_SCHEMES)}"
            )
        if self.family not in _FAMILIES:
            raise ValueError(f"family={self.family!r} must be one of {', '.join(_FAMILIES)}")
        if not 0 < self.min_ttl_s <= self.max_ttl_s:
            raise ValueError(
                f"min_ttl_s={self.min_ttl_s:g} and max_ttl_s={self.max_ttl_s:g}: the first must be above 0, and the "
                "second no less"
            )


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What became of the records of a name.

    Attributes:
        endpoints: in the order of their addresses; none when the name has none.
        ttl_s: for how long they hold, in seconds; 0 when nobody said.
        problem: what is wrong with a part of them, or that the name does not exist; else empty.
    """

    endpoints: tuple[Endpoint, ...]
    ttl_s: float
    problem: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class _Host:
    """A host's addresses, for how long they hold, and whether its name exists."""

    addresses: tuple[str, ...] = ()
    ttl_s: float = 0.0
    exists: bool = True


class Finder:
    """Finds the endpoints of one name.

    Args:
        name: whose addresses to use, or whose SRV records when there is no `port`.
    """

    def __init__(self, name: str, port: int | None, lookup: Lookup, options: DnsOptions) -> None:
        self.name = name
        self._port = port
        self._lookup = lookup
        self._options = options
        self._hosts: dict[str, _Host] = {}

    async def find(self) -> Found:
        """Ask. Raises LookupFailed."""
        if self._port is None:
            return await self._by_targets()
        host = await self._addresses(self.name)
        weight = self._options.weight
        endpoints = [self._endpoint(self.name, address, self._port, weight) for address in host.addresses]
        return Found(tuple(endpoints), host.ttl_s, "" if host.exists else _missing(self.name))

    async def _by_targets(self) -> Found:
        """Those of SRV records. A host of which there is no answer keeps its last one; it fails only if all do."""
        answer = await self._lookup.targets(self.name)
        if not answer.records:
            return Found((), answer.ttl_s or 0.0, "" if answer.exists else _missing(self.name))
        targets = _preferred(self.name, answer.records)
        names = sorted({target.host for target in targets})
        gate = asyncio.Semaphore(_AT_ONCE)
        answers = await asyncio.gather(*(self._look(name, gate) for name in names))
        failures = [host for host in answers if isinstance(host, LookupFailed)]
        if len(failures) == len(answers):
            raise failures[0]
        self._hosts = {
            name: self._hosts.get(name, _Host()) if isinstance(host, LookupFailed) else host
            for name, host in zip(names, answers, strict=True)
        }
        endpoints = self._weighted(targets)
        if failures:
            return Found(endpoints, 0.0, str(failures[0]))
        ttl_s = min([answer.ttl_s or 0.0, *(host.ttl_s for host in self._hosts.values())])
        missing = [name for name, host in self._hosts.items() if not host.exists]
        return Found(endpoints, ttl_s, _missing(missing[0]) if missing else "")

    def _weighted(self, targets: Sequence[Target]) -> tuple[Endpoint, ...]:
        domain = self.name.split(".", 2)[-1]
        endpoints: dict[str, Endpoint] = {}
        shares = _shares([target.weight for target in targets])
        for target, share in zip(targets, shares, strict=True):
            for address in self._hosts[target.host].addresses:
                endpoint = self._endpoint(domain, address, target.port, share)
                endpoints.setdefault(endpoint.address, endpoint)
        return tuple(endpoints.values())

    async def _look(self, host: str, gate: asyncio.Semaphore) -> _Host | LookupFailed:
        async with gate:
            try:
                return await self._addresses(host)
            except LookupFailed as error:
                return error

    async def _addresses(self, host: str) -> _Host:
        """The addresses of a host in the families wanted. Raises LookupFailed."""
        found: list[str] = []
        ttls: list[float] = []
        for kind in _FAMILIES[self._options.family]:
            answer = await self._lookup.addresses(host, kind)
            if not answer.exists:
                return _Host(exists=False)
            if answer.records:
                found.extend(answer.records)
                ttls.append(answer.ttl_s or 0.0)
                if self._options.family == "auto":
                    break
        return _Host(tuple(found), min(ttls, default=0.0))

    def _endpoint(self, name: str, address: str, port: int, weight: int) -> Endpoint:
        labels = self._options.labels
        if self._options.scheme == "tls" and "hostname" not in labels:
            labels = MappingProxyType({**labels, "hostname": name.removesuffix(".")})
        return Endpoint(self._options.scheme, address, port, weight=weight, labels=labels)


def _missing(name: str) -> str:
    return f"{name} does not exist in DNS"


def _preferred(name: str, targets: Sequence[Target]) -> list[Target]:
    """Those of the lowest priority, which are to be used alone; a bounded number."""
    lowest = min(target.priority for target in targets)
    kept = sorted(target for target in targets if target.priority == lowest)
    if len(kept) > MAX_TARGETS:
        log.warning(
            "%s has %d SRV records, more than %d: the others are left out", name, len(kept), MAX_TARGETS
        )
    return kept[:MAX_TARGETS]


def _shares(weights: Sequence[int]) -> list[int]:
    """SRV weights as weights of endpoints, of which 0 gets nothing: in SRV it gets very little, and all 0 are equal."""
    if not any(weights):
        return [100] * len(weights)
    if all(weights):
        return [*weights]
    return [weight * 100 or 1 for weight in weights]
