"""A registration as DNS records, and back: one DNS-SD type for all services, and what a service is called in TXT.

One type, ``_rpcfw._tcp.local.``, because a type's name has at most 15 characters and a service's has more: so one query
finds all, and the TXT says which service it is. An instance's label is a hash, for the same reason. What is read here
was said by anybody on the network: it is parsed strictly, and everything in it is bounded. Where a server is comes from
SRV and address records alone. Source: RFC 6763, sections 6 (TXT), 7 (names); RFC 6762, section 10 (times to live).
"""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import math
from types import MappingProxyType
from urllib.parse import quote, unquote

from rpcfw.endpoint import Endpoint
from rpcfw.registry.registration import MAX_LABELS, Registration, public

TYPE = "_rpcfw._tcp.local."
MARK = b"\x06_rpcfw"
"""In each packet that concerns us: the label of the type, as DNS writes it."""
MAX_TXT_BYTES = 1300
"""RFC 6763 section 6.2: so that all records of a registration fit into one packet."""
_MAX_STRING_BYTES = 255
_SCHEMES = frozenset({"tcp", "tls", "udp"})
_LABEL = "l."
_ONCE = frozenset({"txtvers", "group", "service", "version", "instance", "started", "scheme", "weight"})

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def label_of(owner: str, key: str) -> str:
    """The name of a registration of one process on the network: 16 characters that no other has."""
    return hashlib.blake2s(f"{owner} {key}".encode(), digest_size=8).hexdigest()


def txt_of(registration: Registration, group: str) -> bytes:
    """The TXT record. Raises ValueError that says what is too long."""
    endpoint = public(registration.endpoint)
    facts = {
        "txtvers": "1",
        "group": group,
        "service": registration.service,
        "version": registration.version,
        "instance": registration.instance,
        "started": repr(registration.started_at),
        "scheme": endpoint.scheme,
        "weight": str(endpoint.weight),
        **{_LABEL + quote(name, safe=""): value for name, value in endpoint.labels.items()},
    }
    data = bytearray()
    for name, value in facts.items():
        string = f"{name}={value}".encode()
        if len(string) > _MAX_STRING_BYTES:
            raise ValueError(
                f"{registration.key}: {name.removeprefix(_LABEL)} takes {len(string)} bytes in DNS with its name, "
                f"more than {_MAX_STRING_BYTES}: shorten it"
            )
        data += bytes([len(string)]) + string
    if len(data) > MAX_TXT_BYTES:
        raise ValueError(
            f"{registration.key} takes {len(data):,} bytes in DNS, more than {MAX_TXT_BYTES:,}: "
            "give it fewer or shorter labels"
        )
    return bytes(data)


def registration_of(txt: bytes, address: Address, port: int, group: str) -> Registration | None:
    """What a TXT record and the address of a server say; None when it is of another group.

    Raises ValueError that says what is wrong.
    """
    facts, labels = _facts(txt)
    if facts.get("txtvers") != "1":
        raise ValueError(f"txtvers is {facts.get('txtvers')!r} instead of '1'")
    if facts.get("group", "") != group:
        return None
    service, scheme = facts.get("service", ""), facts.get("scheme", "")
    if not service:
        raise ValueError("it names no service")
    if scheme not in _SCHEMES:
        raise ValueError(f"{scheme!r} is not a scheme of a network")
    if not 0 < port < 65536:
        raise ValueError(f"{port} is not a port of a server")
    weight = facts.get("weight", "100")
    if not weight.isascii() or not weight.isdigit() or len(weight) > 9:
        raise ValueError(f"weight={weight!r} must be a whole number, 0 or more")
    started_at = float(facts.get("started", "0"))
    if not math.isfinite(started_at):
        raise ValueError(f"{started_at} is not a time")
    endpoint = Endpoint(scheme, str(address), port, weight=int(weight), labels=MappingProxyType(labels))
    return Registration(
        service, public(endpoint), facts.get("version", "1.0"), facts.get("instance", ""), started_at
    )


def _facts(txt: bytes) -> tuple[dict[str, str], dict[str, str]]:
    if len(txt) > MAX_TXT_BYTES:
        raise ValueError(f"its TXT of {len(txt):,} bytes is over {MAX_TXT_BYTES:,}")
    facts: dict[str, str] = {}
    labels: dict[str, str] = {}
    at = 0
    while at < len(txt):
        end = at + 1 + txt[at]
        if end > len(txt):
            raise ValueError("its TXT is cut off")
        name, equals, value = txt[at + 1 : end].decode().partition("=")
        at = end
        if not equals:
            continue  # a flag of a later version
        into = labels if name.startswith(_LABEL) else facts
        name = unquote(name.removeprefix(_LABEL)) if into is labels else name
        if name in into:
            raise ValueError(f"its TXT has {name!r} twice")
        if into is labels or name in _ONCE:
            into[name] = value
    if len(labels) > MAX_LABELS:
        raise ValueError(f"it has {len(labels)} labels, more than {MAX_LABELS}")
    return facts, labels


@dataclasses.dataclass(slots=True)
class Parts:
    """What is known of one registration on the network, until all of it is: TXT, port, addresses."""

    txt: bytes | None = None
    port: int = 0
    addresses: tuple[Address, ...] = ()

    @property
    def complete(self) -> bool:
        """True when it makes a registration."""
        return self.txt is not None and bool(self.port) and bool(self.addresses)


@dataclasses.dataclass(slots=True)
class Said:
    """What one packet says of one registration."""

    parts: Parts = dataclasses.field(default_factory=Parts)
    ttl_s: float = 0.0
    goodbye: bool = False


def label_in(name: str, suffix: str) -> str:
    """The label that a name begins with; empty unless it is one of ours, all that remains being the suffix."""
    label = name.removesuffix(suffix)
    return label if label != name and len(label) <= 63 and "." not in label else ""
