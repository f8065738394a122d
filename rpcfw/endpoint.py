"""An endpoint: where a service can be reached, written as a URL.

``tcp://127.0.0.1:7000``, ``tls://host:7443?ca=ca.pem``, ``unix:///run/shop.sock``, ``mem://shop``, ``udp://127.0.0.1:7001``.
The query holds the weight and labels a balancer may use (``?weight=3&zone=a``) and a transport's own options.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

SCHEMES = ("tcp", "tls", "unix", "mem", "udp")
_WITH_PORT = ("tcp", "tls", "udp")


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of one server.

    Attributes:
        scheme: the transport: one of `SCHEMES`.
        host: host name or IP address; empty for ``unix``; the name for ``mem``.
        port: 0 asks the system for a free one when listening; always 0 for ``unix`` and ``mem``.
        path: the socket's path for ``unix``, else empty.
        weight: relative share of calls, 0 or more; 100 is usual.
        labels: everything else in the query (zone, tag, transport options).
    """

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""
    weight: int = 100
    labels: Mapping[str, str] = dataclasses.field(default_factory=lambda: MappingProxyType({}), compare=False)

    @classmethod
    def parse(cls, url: str | Endpoint) -> Endpoint:
        """Read a URL. Raises ValueError that names the URL and the mend."""
        if isinstance(url, Endpoint):
            return url
        if not isinstance(url, str):
            raise ValueError(f"{url!r} is not an endpoint: give each URL as an argument of its own")
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES:
            raise ValueError(
                f"{url!r} is not an endpoint: start it with one of {', '.join(f'{s}://' for s in SCHEMES)}"
            )
        try:
            port = parts.port
        except ValueError as error:
            raise ValueError(f"{url!r}: {error}; a port is a number from 0 to 65535") from None
        if parts.scheme in _WITH_PORT and (not parts.hostname or port is None):
            raise ValueError(f"{url!r} lacks a host or a port: write {parts.scheme}://127.0.0.1:7000")
        if parts.scheme == "unix" and (parts.netloc or not parts.path):
            raise ValueError(
                f"{url!r}: a Unix socket is an absolute path with three slashes: unix:///run/shop.sock"
            )
        if parts.scheme == "mem" and not parts.netloc:
            raise ValueError(f"{url!r}: an in-memory endpoint needs a name: mem://shop")
        labels = dict(parse_qsl(parts.query, keep_blank_values=True))
        weight = labels.pop("weight", "100")
        if not weight.isascii() or not weight.isdigit():
            raise ValueError(f"{url!r}: weight={weight!r} must be a whole number, 0 or more")
        host = parts.netloc if parts.scheme == "mem" else parts.hostname or ""
        path = parts.path if parts.scheme == "unix" else ""
        return cls(parts.scheme, host, port or 0, path, int(weight), MappingProxyType(labels))

    @property
    def address(self) -> str:
        """The URL without its query: what identifies the endpoint in logs, tables and errors."""
        if self.scheme == "unix":
            return f"unix://{quote(self.path)}"
        if self.scheme == "mem":
            return f"mem://{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def __str__(self) -> str:
        query = dict(self.labels) if self.weight == 100 else {"weight": str(self.weight), **self.labels}
        return f"{self.address}?{urlencode(query)}" if query else self.address
