"""Where registrations stand in etcd: ``prefix/service/address``; the ranges with those of one service, or with all."""

from __future__ import annotations

from urllib.parse import quote, unquote

from rpcfw.registry.etcd_gateway import base64_of
from rpcfw.registry.registration import Registration


def folder_of(prefix: str, service: str = "") -> str:
    """What the keys of a service, or all keys, begin with. A slash in a service's name is escaped."""
    return f"{prefix}/{quote(service, safe='')}/" if service else f"{prefix}/"


def key_of(prefix: str, registration: Registration) -> str:
    """The key of a registration."""
    return folder_of(prefix, registration.service) + registration.endpoint.address


def range_of(folder: str) -> dict[str, str]:
    """All keys that begin with the folder: the key and range_end of a request."""
    return {"key": base64_of(folder), "range_end": base64_of(folder[:-1] + chr(ord(folder[-1]) + 1))}


def service_of(prefix: str, key: bytes) -> str:
    """The service a key belongs to; empty when it is none of ours."""
    text = key.decode(errors="replace")
    folder = folder_of(prefix)
    service, slash, address = text.removeprefix(folder).partition("/")
    return unquote(service) if text.startswith(folder) and slash and address else ""
