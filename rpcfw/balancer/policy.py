"""What a balancing policy is: it picks one of the nodes for a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rpcfw.call import Call, Handler
from rpcfw.endpoint import Endpoint


class Node(Protocol):
    """One endpoint as a balancer sees it."""

    @property
    def endpoint(self) -> Endpoint:
        """Where it is."""
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
    def handler(self) -> Handler:
        """Where its calls go."""
        ...


class Balancer(Protocol):
    """Picks a node for each call. One object serves one client."""

    def pick(self, nodes: Sequence[Node], call: Call) -> Node:
        """One of `nodes`, which is never empty."""
        ...
