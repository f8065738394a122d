"""What a router is: it says which of the nodes may take a call, before a balancer picks one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rpcfw.balancer.policy import Node
from rpcfw.call import Call


class Router(Protocol):
    """Narrows the nodes for a call. One object serves one client and all services it calls."""

    def route(self, nodes: Sequence[Node], call: Call) -> Sequence[Node]:
        """Those of `nodes` that may take the call; none means that no node may. Must not change `nodes`."""
        ...
