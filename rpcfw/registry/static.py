"""Endpoints that are known beforehand and never change, for one service each or for all alike."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, RpcError
from rpcfw.registry.listing import ANY, Listing
from rpcfw.registry.refusal import Refused
from rpcfw.registry.registration import Registration
from rpcfw.registry.snapshots import Board


class StaticRegistry:
    """Says what it was given.

    Args:
        endpoints: URLs that offer every service that is asked for; or a mapping from a service's name to such a list,
            where ``"*"`` stands for those not named. Weight and labels stand in the URLs.

    Attributes:
        problem: always empty.
    """

    def __init__(
        self, endpoints: Iterable[str | Endpoint] | Mapping[str, Iterable[str | Endpoint]], /
    ) -> None:
        listed: Mapping[Any, Any] = endpoints if isinstance(endpoints, Mapping) else {ANY: endpoints}
        self._listing = Listing(listed)
        self._board = Board(first=self._show, last=self._forget)
        self.problem = ""

    @classmethod
    def from_url(cls, url: str) -> StaticRegistry:
        """Read ``static://10.0.0.1:7000,10.0.0.2:7000?scheme=tls&zone=a``: the query is that of each endpoint.

        Raises ValueError that names the URL and the mend.
        """
        addresses, _, query = url.removeprefix("static://").partition("?")
        if not addresses or "/" in addresses:
            raise ValueError(
                f"{url!r} is not a list of addresses: write static://10.0.0.1:7000,10.0.0.2:7000"
            )
        options = [option for option in query.split("&") if option]
        schemes = [option.removeprefix("scheme=") for option in options if option.startswith("scheme=")]
        scheme = schemes[-1] if schemes else "tcp"
        kept = "&".join(option for option in options if not option.startswith("scheme="))
        return cls([f"{scheme}://{address}?{kept}" for address in addresses.split(",")])

    def register(self, registration: Registration) -> AbstractAsyncContextManager[None]:
        """Refuse: entering raises RpcError FAILED_PRECONDITION."""
        return Refused(
            f"{registration.endpoint.address} cannot be registered: this list is fixed. Add the URL where the list "
            "is made, or use a registry that servers can register at, such as zeroconf://"
        )

    def watch(self, service: str) -> AsyncGenerator[frozenset[Registration], None]:
        """What is listed for a service, once; then it waits until the registry is closed."""
        return self._board.watch(service)

    async def services(self) -> frozenset[str]:
        """The services listed by name. Raises RpcError UNIMPLEMENTED where some are not."""
        return named(self._listing)

    async def close(self) -> None:
        """End the watches. May be called again."""
        self._board.close()

    def _forget(self, service: str) -> None:
        self._board.forget(service)

    def _show(self, service: str) -> None:
        self._board.publish(service, self._listing.registrations(service))


def named(listing: Listing) -> frozenset[str]:
    """The services of a listing. Raises RpcError UNIMPLEMENTED where it has endpoints for services it does not name."""
    if not listing.names_all:
        raise RpcError(
            Code.UNIMPLEMENTED, "the endpoints are listed for services of any name; ask a server for its own"
        )
    return listing.services()
