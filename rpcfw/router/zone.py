"""Prefer a zone: calls stay near while enough nodes are there, and spread over all nodes otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rpcfw.balancer.policy import Node
from rpcfw.call import Call
from rpcfw.mistakes import check_number, check_text
from rpcfw.router.derived import Derived, weighted


class PreferZone:
    """The nodes of one zone, as long as they are enough for the zone's own calls; all nodes otherwise.

    A router sees the nodes that are available, not those that should be. So "enough" is measured against the other
    zones: the zone has at least `min_share` of what it would have if the available nodes were spread evenly over the
    zones. With three zones of ten nodes and 0.5, calls leave the zone once fewer than half of its nodes are left. Only
    nodes with a registered weight count.

    Args:
        zone: where this client is.
        label: the name of the label that holds a node's zone.
        min_nodes: so many nodes of the zone it takes at least, 1 or more.
        min_share: 0 to 1, see above; 0 where zones are meant to differ in size.
    """

    def __init__(self, zone: str, *, label: str = "zone", min_nodes: int = 1, min_share: float = 0.5) -> None:
        check_text(zone, "zone", 'PreferZone("eu")')
        check_text(label, "label", '"zone"')
        check_number(min_nodes, "min_nodes")
        check_number(min_share, "min_share")
        if not zone:
            raise ValueError("PreferZone needs the name of the zone that this client is in")
        if min_nodes < 1:
            raise ValueError(f"min_nodes={min_nodes!r} must be at least 1")
        if not 0 <= min_share <= 1:
            raise ValueError(f"min_share={min_share!r} must be from 0 to 1")
        self._zone = zone
        self._label = label
        self._min_nodes = min_nodes
        self._min_share = min_share
        self._near = Derived(self._choose)

    def route(self, nodes: Sequence[Node], call: Call) -> Sequence[Node]:
        """The nodes of the zone, or all."""
        near, why_not = self._near.of(nodes)
        if why_not and call.route is not None:
            call.route.note(asyncio.get_running_loop().time(), "router", why_not)
        return near

    def _choose(self, nodes: Sequence[Node]) -> tuple[Sequence[Node], str]:
        """The nodes, and why they are not those of the zone."""
        serving = weighted(nodes)
        zones = {zone for node in serving if (zone := node.labels.get(self._label))}
        near = [node for node in serving if node.labels.get(self._label) == self._zone]
        even = len(serving) / max(1, len(zones))
        enough = len(near) >= self._min_nodes and len(near) >= self._min_share * even
        if not enough:
            few = f"{len(near)} of {len(serving)} nodes are in {self._zone!r}"
            return nodes, f"PreferZone: {few}, too few for its calls, so any node may take it"
        return (near if len(near) < len(nodes) else nodes), ""
