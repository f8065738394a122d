"""The careful way to a node: routers, breakers, what was tried before, and the balancer, in this order.

For calls that are retried, routed or explained, and while a breaker is not closed; what such a call hears of it stands
in its route. Which nodes there are to choose from is decided in `pool`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rpcfw.balancer import Balancer
from rpcfw.call import Call
from rpcfw.cluster.node import Node
from rpcfw.cluster.options import ClusterOptions
from rpcfw.errors import Code, Origin, RpcError


class Choice:
    """Narrows the nodes of one service to the one that takes a call."""

    __slots__ = ("_balancer", "_options", "_service")

    def __init__(self, service: str, options: ClusterOptions, balancer: Balancer) -> None:
        self._service = service
        self._options = options
        self._balancer = balancer

    def narrow(self, nodes: Sequence[Node], call: Call, now: float) -> Node:
        """The one of these that takes a call. Raises RpcError UNAVAILABLE where a router or the breakers let none."""
        route = call.route
        note = route.note if route is not None else None
        for router in self._options.routers:
            routed: Sequence[Any] = router.route(nodes, call)
            if note is not None and len(routed) != len(nodes):
                left = ", ".join(node.address for node in routed) or "none"
                note(now, "router", f"{type(router).__name__} leaves {len(routed)} of {len(nodes)}: {left}")
            if not routed:
                raise unavailable(
                    f"{type(router).__name__} lets none of the {len(nodes)} nodes of {self._service} take "
                    f"{call.method.path}; see its rule, and the labels and versions in the registry",
                    {},
                )
            nodes = routed
        permitted: Sequence[Node] = nodes
        if not all(node.permits(call, now) for node in nodes):
            permitted = [node for node in nodes if node.permits(call, now)]
            if note is not None:
                refused = ", ".join(node.address for node in nodes if node not in permitted)
                note(now, "breaker", f"open at {refused}")
            if not permitted:
                raise self._all_open(nodes, call, now)
            nodes = permitted
        if route is not None and route.tried:
            fresh = [node for node in nodes if node.address not in route.tried]
            if note is not None and len(fresh) != len(nodes):
                note(now, "cluster", f"prefers nodes that were not tried yet: {len(fresh)} of {len(nodes)}")
            nodes = fresh or nodes
        balancer = self._balancer
        node: Any = nodes[0] if len(nodes) == 1 else balancer.pick(nodes, call)
        if note is not None:
            what = f"{type(balancer).__name__} of {len(nodes)}" if len(nodes) > 1 else "the only one"
            latency_s = node.statistics.latency_s(now)
            latency = f"latency {latency_s * 1000:.3f} ms" if latency_s else "latency not measured yet"
            note(
                now,
                "balancer",
                f"{node.address}: {what}; {node.in_flight} in flight, {latency}",
            )
        found: Node = node
        return found

    def _all_open(self, nodes: Sequence[Node], call: Call, now: float) -> RpcError:
        times = [
            breaker.retry_at(now)
            for node in nodes
            for breaker in (node.breaker, node.method_breakers.get(call.method))
            if breaker is not None and not breaker.permits(now)
        ]
        wait_s = max(0.0, min(times, default=now) - now)
        return unavailable(
            f"the breakers of all {len(nodes)} nodes of {self._service} are open, as calls failed there lately; "
            f"the first lets calls through again in {wait_s:.1f} s",
            {"retry_after_s": wait_s},
        )


def unavailable(message: str, details: dict[str, Any]) -> RpcError:
    """The error of a call for which there is no node."""
    return RpcError(Code.UNAVAILABLE, message, details, origin=Origin.LOCAL, executed=False)
