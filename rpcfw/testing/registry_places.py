"""Where the contract of registries is checked: one store, a way to reach it, and ways to disturb it.

Only what a place has to offer is here; what is checked there is in `registry_contract`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from rpcfw.endpoint import Endpoint
from rpcfw.registry.policy import Registry
from rpcfw.registry.registration import Registration

P_contra = TypeVar("P_contra", contravariant=True)
Check = Callable[[P_contra], Awaitable[None]]
"""One thing that must be true at a place. Raises AssertionError."""

ORDERS, STOCK = "shop.Orders", "shop.Stock"
"""The services that the checks register."""


class Place(Protocol):
    """One store, empty at the start of each check.

    Attributes:
        patience_s: the longest a change may take to be seen, a lease to run out, or a call to fail, by the loop's time.
    """

    patience_s: float

    def open(self) -> Registry:
        """A new registry object of this store, as another process would have it. The check closes it."""
        ...


class Offers(Place, Protocol):
    """A place for registries that only read, such as a file or DNS."""

    async def offer(self, service: str, endpoints: Sequence[Endpoint]) -> None:
        """Make the store say that exactly these offer the service."""
        ...


class Leases(Place, Protocol):
    """A place whose store notices that a server is dead."""

    async def crash(self, registry: Registry) -> None:
        """Let the process that owns a registry die: it renews nothing and takes nothing back from now on.

        Its leases must be over within `patience_s`. The check leaves its ``register`` blocks and closes it afterwards;
        neither may raise or reach the store.
        """
        ...


class Outages(Place, Protocol):
    """A place whose store can be away."""

    async def stop_backend(self) -> None:
        """Let the store be out of reach; open connections break. It may forget what it knows."""
        ...

    async def start_backend(self) -> None:
        """Let it be reachable again, at the same address."""
        ...


class Store(Leases, Outages, Protocol):
    """A place with all of it."""


def registration(
    port: int = 7001, *, service: str = ORDERS, weight: int = 100, zone: str = "a"
) -> Registration:
    """A registration with something in every field."""
    endpoint = Endpoint.parse(f"tcp://127.0.0.1:{port}?weight={weight}&zone={zone}")
    return Registration(service, endpoint, version="2.1", instance=f"run-{port}", started_at=1_700_000_000.5)
