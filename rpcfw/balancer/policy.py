"""What a balancing policy is: it picks one of the nodes for a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from rpcfw.balancer.statistics import Statistics
from rpcfw.call import Call, Handler
from rpcfw.endpoint import Endpoint


class Node(Protocol):
    """One endpoint as a balancer or a router sees it. The same object for as long as the endpoint is known.

    Nodes are equal by identity, and can be keys. Changed labels, versions and registered weights come with a new
    sequence of nodes.
    """

    @property
    def endpoint(self) -> Endpoint:
        """Where it is; `endpoint.address` identifies it."""
        ...

    @property
    def version(self) -> str:
        """Of the service it offers, as the registry says; empty where none does."""
        ...

    @property
    def labels(self) -> Mapping[str, str]:
        """Zone, tag and whatever else was registered."""
        ...

    @property
    def weight(self) -> float:
        """Its share of calls now, beside those of the others: what was registered, less while it warms up. 0: none."""
        ...

    @property
    def available(self) -> bool:
        """Whether a call is worth trying: connected, or not known to be out of reach."""
        ...

    @property
    def in_flight(self) -> int:
        """Calls in progress from this client."""
        ...

    @property
    def statistics(self) -> Statistics:
        """How its calls went lately."""
        ...

    @property
    def reported(self) -> Mapping[str, float]:
        """What its last heartbeat said: ``running`` handlers, ``lag_s`` of its event loop; empty before the first."""
        ...

    @property
    def handler(self) -> Handler:
        """Where its calls go."""
        ...


class Balancer(Protocol):
    """Picks a node for each call. One object serves one client and all services it calls."""

    def pick(self, nodes: Sequence[Node], call: Call) -> Node:
        """One of `nodes`, which is never empty. All of them are worth trying.

        The sequence is the same object as long as nothing has changed, so a policy may keep what it derives from it.
        """
        ...


@runtime_checkable
class Timed(Protocol):
    """A policy that needs the time. Asking which loop runs costs more than a pick, so it is given that loop's clock."""

    def use_clock(self, clock: Callable[[], float]) -> None:
        """Calls are made on the loop with this clock, seconds; told again when it becomes another."""
        ...
