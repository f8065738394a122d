"""The URLs of rpcfw's own registry, ``rpcfw://host:port,host:port/name?timeout_s=5``, and what stands in them."""

from __future__ import annotations

from types import MappingProxyType
from urllib.parse import unquote

from rpcfw.endpoint import Endpoint
from rpcfw.naming.interface import DEFAULT_PORT
from rpcfw.registry.remote import seconds, split_options

TIMEOUT_S = 5.0
_TLS = frozenset({"ca", "cert", "key", "hostname"})
_OPTIONS = _TLS | {"tls", "timeout_s"}


def endpoints_of(url: str) -> tuple[list[Endpoint], str, float]:
    """The endpoints in a URL, the name in its path, and the time that questions may take, in seconds.

    Raises ValueError that names what is wrong.
    """
    parts, options = split_options(url, "rpcfw", _OPTIONS)
    if "@" in parts.netloc:
        raise ValueError("a registry's URL takes no user: it is protected by TLS (ca, cert, key)")
    if options.get("tls", "1") not in ("0", "1"):
        raise ValueError(f"{url!r}: tls={options['tls']!r} must be 1 or 0")
    labels = {name: options[name] for name in _TLS if name in options}
    is_tls = options.get("tls", "1" if labels else "0") == "1"
    if labels and not is_tls:
        raise ValueError(f"{url!r}: tls=0 contradicts {', '.join(sorted(labels))}, which are for TLS")
    endpoints = [
        _endpoint(url, host, "tls" if is_tls else "tcp", labels)
        for host in (parts.netloc or "127.0.0.1").split(",")
    ]
    timeout_s = seconds(url, "timeout_s", options.get("timeout_s", str(TIMEOUT_S)))
    return endpoints, unquote(parts.path.removeprefix("/")), timeout_s


def url_of(address: str) -> str:
    """A registry's URL by the address of its endpoint, for what is told to people."""
    scheme, _, where = address.partition("://")
    return f"rpcfw://{where}{'?tls=1' if scheme == 'tls' else ''}"


def _endpoint(url: str, text: str, scheme: str, labels: dict[str, str]) -> Endpoint:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    is_bad = not bare or (":" in bare and bare is host)
    if is_bad or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(
            f"{url!r}: {text!r} is not host:port; write rpcfw://10.0.0.5:{DEFAULT_PORT},10.0.0.6:{DEFAULT_PORT}"
        )
    return Endpoint(scheme, bare, int(port), labels=MappingProxyType(labels))
