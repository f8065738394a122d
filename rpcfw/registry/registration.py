"""A registration: one service that one server offers, as a registry keeps it, and its form in JSON.

What comes out of a registry is a candidate, not a truth: it is checked and bounded here, and says nothing about whom
to trust. Identity comes from TLS.
"""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import Any

import msgspec

from rpcfw.endpoint import Endpoint

MAX_REGISTRATION_BYTES = 4096
"""The longest registration taken from a registry, as JSON."""
MAX_LABELS = 32
_NETWORK = ("tcp", "tls", "udp")
_TLS_LABELS = frozenset({"ca", "cert", "key", "verify_client", "hostname"})
"""Labels that name files of one host, or whom to trust: neither is a registry's to say."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """One service at one endpoint. Two are equal when all they say is, labels and weight included.

    Attributes:
        service: the service's name.
        endpoint: where it is, with its weight and labels (zone, tag).
        version: of the service.
        instance: names this run of the server; a restart has another one.
        started_at: when the server started, in seconds since 1970; 0 when not known. For people, not for decisions.
    """

    service: str
    endpoint: Endpoint
    version: str = "1.0"
    instance: str = ""
    started_at: float = 0.0

    @property
    def key(self) -> str:
        """What a registry keeps it under: one server has one entry for each service and endpoint."""
        return f"{self.service}/{self.endpoint.address}"

    def _facts(self) -> tuple[Any, ...]:
        return (self.service, str(self.endpoint), self.version, self.instance, self.started_at)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Registration) and self._facts() == other._facts()

    def __hash__(self) -> int:
        return hash(self._facts())

    def to_json(self) -> bytes:
        """The form in which registries keep it. Labels that name files of this host are left out."""
        return msgspec.json.encode(
            {
                "service": self.service,
                "endpoint": str(public(self.endpoint)),
                "version": self.version,
                "instance": self.instance,
                "started_at": self.started_at,
            }
        )

    @classmethod
    def from_json(cls, data: bytes | str) -> Registration:
        """Read what a registry says. Raises ValueError that says what is wrong with it."""
        if len(data) > MAX_REGISTRATION_BYTES:
            raise ValueError(f"a registration of {len(data):,} bytes is over {MAX_REGISTRATION_BYTES:,}")
        try:
            wire = msgspec.json.decode(data, type=_Wire)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ValueError(f"not a registration: {error}") from None
        if not wire.service:
            raise ValueError("not a registration: it names no service")
        endpoint = Endpoint.parse(wire.endpoint)
        if len(endpoint.labels) > MAX_LABELS:
            raise ValueError(f"{endpoint.address} has {len(endpoint.labels)} labels, more than {MAX_LABELS}")
        return cls(wire.service, public(endpoint), wire.version, wire.instance, wire.started_at)


class _Wire(msgspec.Struct):
    service: str
    endpoint: str
    version: str = "1.0"
    instance: str = ""
    started_at: float = 0.0


def public(endpoint: Endpoint) -> Endpoint:
    """The endpoint without labels that name files of one host or say whom to trust."""
    if _TLS_LABELS.isdisjoint(endpoint.labels):
        return endpoint
    kept = {name: value for name, value in endpoint.labels.items() if name not in _TLS_LABELS}
    return dataclasses.replace(endpoint, labels=MappingProxyType(kept))


def from_network(data: bytes | str) -> Registration:
    """`Registration.from_json` for what anybody on a network can say: only endpoints of a network are taken.

    Raises ValueError otherwise: a record must not lead a client to a socket file of its own host.
    """
    registration = Registration.from_json(data)
    if registration.endpoint.scheme not in _NETWORK:
        raise ValueError(f"{registration.endpoint.address} is not an address on a network")
    return registration
