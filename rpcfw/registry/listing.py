"""Who offers what, as a person writes it down: a list of URLs for each service, or one list for all of them.

Checks and turns it into registrations; where it is written is not its business. What stands in code or in a file of
this host is trusted, so labels that name certificates are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rpcfw.endpoint import Endpoint
from rpcfw.registry.registration import Registration

ANY = "*"
"""In the place of a service's name: all that have no list of their own."""
MAX_LISTED = 4096
"""The most endpoints of one service."""


class ListingError(ValueError):
    """What is listed cannot be used. The message names service, value and mend.

    Attributes:
        service: in whose list it stands.
        value: what is wrong, as written; empty when it is the list as a whole.
    """

    def __init__(self, service: str, message: str, value: object = "") -> None:
        super().__init__(f"{service}: {message}")
        self.service = service
        self.value = value if isinstance(value, str) else ""


class Listing:
    """The endpoints of each service. Never changed: a new text makes a new one. Raises ListingError.

    Args:
        services: name of a service, or `ANY`, to URLs; or to a table of ``endpoints`` and the service's ``version``.
    """

    def __init__(self, services: Mapping[str, object]) -> None:
        self._of: dict[str, tuple[str, tuple[Endpoint, ...]]] = {}
        for service, written in services.items():
            version = ""
            urls = written
            if isinstance(written, Mapping):
                version, urls = _table(service, written)
            self._of[service] = version, _endpoints(service, urls)

    def registrations(self, service: str) -> frozenset[Registration]:
        """All of one service; none when it is not listed."""
        version, endpoints = self._of.get(service) or self._of.get(ANY) or ("", ())
        return frozenset(Registration(service, endpoint, version) for endpoint in endpoints)

    def services(self) -> frozenset[str]:
        """The names of those that have endpoints, without `ANY`."""
        return frozenset(service for service, (_, endpoints) in self._of.items() if endpoints) - {ANY}

    @property
    def names_all(self) -> bool:
        """Whether `services` says all: nothing is listed under `ANY`."""
        return ANY not in self._of


def _table(service: str, table: Mapping[str, Any]) -> tuple[str, object]:
    unknown = [name for name in table if name not in ("version", "endpoints")]
    if unknown:
        raise ListingError(
            service, f"{unknown[0]!r} is not known here; endpoints is, and version", str(unknown[0])
        )
    version = table.get("version", "")
    if not isinstance(version, str):
        raise ListingError(service, f'version {version!r} must be a text, such as "1.0"', "version")
    return version, table.get("endpoints", ())


def _endpoints(service: str, urls: object) -> tuple[Endpoint, ...]:
    if isinstance(urls, str | bytes) or not isinstance(urls, Iterable):
        raise ListingError(service, f'{urls!r} must be a list of URLs, such as ["tcp://10.0.0.1:7000"]', urls)
    endpoints: dict[str, Endpoint] = {}
    for url in urls:
        try:
            endpoint = Endpoint.parse(url)
        except ValueError as error:
            raise ListingError(service, str(error), url) from None
        if endpoint.address in endpoints:
            raise ListingError(service, f"{endpoint.address} is listed twice; keep one of them", url)
        endpoints[endpoint.address] = endpoint
    if len(endpoints) > MAX_LISTED:
        raise ListingError(service, f"{len(endpoints):,} endpoints are more than {MAX_LISTED:,}")
    return tuple(endpoints.values())
