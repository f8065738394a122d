"""Dependencies between transactions as a graph, and the cycles in it that Adya's definitions name.

Only numbers and kinds of edges live here; what the transactions did is `list_append.py`'s. The kinds of cycles are
those of Adya's thesis (1999, section 3.3); components are Tarjan's, with a stack of its own instead of recursion.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

WW = 1
"""The second overwrote what the first wrote."""
WR = 2
"""The second read what the first wrote."""
RW = 4
"""The second overwrote what the first read: the anti-dependency."""
RT = 8
"""The second began after the first had returned."""
ORDER = WW | RT
FLOW = WW | WR | RT


class CycleKind(enum.StrEnum):
    """What a cycle breaks, worst first."""

    G0 = "G0"
    G1C = "G1c"
    G_SINGLE = "G-single"
    G2 = "G2"


@dataclass(frozen=True)
class Cycle:
    """Nodes each of which must come before the next, and the last before the first, by the kind of edge beside it."""

    kind: CycleKind
    nodes: tuple[int, ...]
    edges: tuple[int, ...]


class Graph:
    """A graph of numbered nodes; between two nodes there may be an edge of each kind."""

    def __init__(self, size: int) -> None:
        self.after: list[dict[int, int]] = [{} for _ in range(size)]

    def add(self, first: int, second: int, kind: int) -> None:
        """`first` must come before `second`, another node, by this kind of dependency."""
        self.after[first][second] = self.after[first].get(second, 0) | kind

    def cycles(self) -> Iterator[Cycle]:
        """For each knot of nodes that all reach each other, a short cycle of each kind; of G2 only if of no other."""
        for knot in self._components(range(len(self.after)), FLOW | RW):
            if len(knot) > 1:
                yield from self._in_knot(knot)

    def _in_knot(self, knot: list[int]) -> Iterator[Cycle]:
        found = False
        for kind, mask, needed, allowed in (
            (CycleKind.G0, ORDER, WW, 0),
            (CycleKind.G1C, FLOW, WR, ORDER),
            (CycleKind.G_SINGLE, FLOW, RW, FLOW),
        ):
            cycle = self._shortest(kind, self._closing(knot, mask, needed, allowed), set(knot), mask)
            if cycle is not None:
                found = True
                yield cycle
        if not found:
            edges = self._edges(knot, set(knot), RW, FLOW)
            cycle = self._shortest(CycleKind.G2, edges, set(knot), FLOW | RW)
            if cycle is not None:
                yield cycle

    def _edges(
        self, nodes: Iterable[int], within: set[int], needed: int, unless: int
    ) -> list[tuple[int, int]]:
        """Edges of the needed kind between pairs that no edge of a kind in `unless` joins as well."""
        return [
            (first, second)
            for first in nodes
            for second, kinds in self.after[first].items()
            if kinds & needed and not kinds & unless and second in within
        ]

    def _closing(self, knot: list[int], mask: int, needed: int, unless: int) -> list[tuple[int, int]]:
        """Those edges whose end leads back to their start over edges of `mask`.

        Asked for many edges at a time, one bit for each, in one walk over the components in topological order.
        """
        within = set(knot)
        components = self._components(knot, mask, within)
        place = {node: number for number, component in enumerate(components) for node in component}
        closing: list[tuple[int, int]] = []
        edges = self._edges(knot, within, needed, unless)
        for start in range(0, len(edges), _EDGES_AT_A_TIME):
            batch = edges[start : start + _EDGES_AT_A_TIME]
            reaches = [0] * len(components)
            for bit, (first, _) in enumerate(batch):
                reaches[place[first]] |= 1 << bit
            for number, component in enumerate(components):  # a component's successors stand before it
                for node in component:
                    for second, kinds in self.after[node].items():
                        if kinds & mask and second in within:
                            reaches[number] |= reaches[place[second]]
            closing += [edge for bit, edge in enumerate(batch) if reaches[place[edge[1]]] >> bit & 1]
        return closing

    def _shortest(
        self, kind: CycleKind, edges: list[tuple[int, int]], within: set[int], mask: int
    ) -> Cycle | None:
        """The shortest cycle through one of the edges and back over `mask`, of as many edges as is cheap."""
        best: list[int] | None = None
        for first, second in edges[: max(1, _NODES_WALKED // len(within))]:
            path = self._path(second, first, within, mask)
            if path is not None and (best is None or len(path) < len(best)):
                best = path
        if best is None:
            return None
        nodes = [best[-1], *best[:-1]]  # the edge itself first, then the way back
        needed = {CycleKind.G0: WW, CycleKind.G1C: WR}.get(kind, RW)
        kinds = [self.after[node][nodes[(hop + 1) % len(nodes)]] for hop, node in enumerate(nodes)]
        return Cycle(kind, tuple(nodes), (needed, *map(_strongest, kinds[1:])))

    def _path(self, start: int, goal: int, within: set[int], mask: int) -> list[int] | None:
        came_from = {start: start}
        front = [start]
        while front and goal not in came_from:
            following: list[int] = []
            for node in front:
                for second, kinds in self.after[node].items():
                    if kinds & mask and second in within and second not in came_from:
                        came_from[second] = node
                        following.append(second)
            front = following
        if goal not in came_from:
            return None
        path = [goal]
        while path[-1] != start:
            path.append(came_from[path[-1]])
        return path[::-1]

    def _components(self, nodes: Iterable[int], mask: int, within: set[int] | None = None) -> list[list[int]]:
        """Strongly connected components over edges of `mask`, each before those that lead to it."""
        number: dict[int, int] = {}
        low: dict[int, int] = {}
        open_nodes: list[int] = []
        is_open: set[int] = set()
        components: list[list[int]] = []
        for root in nodes:
            if root in number:
                continue
            walk = [(root, iter(self.after[root].items()))]
            number[root] = low[root] = len(number)
            open_nodes.append(root)
            is_open.add(root)
            while walk:
                node, edges = walk[-1]
                for second, kinds in edges:
                    if not kinds & mask or (within is not None and second not in within):
                        continue
                    if second not in number:
                        number[second] = low[second] = len(number)
                        open_nodes.append(second)
                        is_open.add(second)
                        walk.append((second, iter(self.after[second].items())))
                        break
                    if second in is_open:
                        low[node] = min(low[node], number[second])
                else:
                    walk.pop()
                    if walk:
                        low[walk[-1][0]] = min(low[walk[-1][0]], low[node])
                    if low[node] == number[node]:
                        at = _last_index(open_nodes, node)
                        components.append(open_nodes[at:])
                        is_open.difference_update(open_nodes[at:])
                        del open_nodes[at:]
        return components


_EDGES_AT_A_TIME = 512
_NODES_WALKED = 100_000


def _last_index(nodes: list[int], node: int) -> int:
    at = len(nodes) - 1
    while nodes[at] != node:
        at -= 1
    return at


def _strongest(kinds: int) -> int:
    return next(kind for kind in (WW, WR, RT, RW) if kinds & kind)
