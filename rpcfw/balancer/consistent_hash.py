"""Consistent hashing: calls with the same key go to the same node, and a node that joins or goes moves only its share.

Rendezvous hashing (Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998) rather than a ring:
each node gets a score from its address and the key, and the highest wins. Its shares are exact instead of 160 virtual
nodes' guess, a node that joins takes keys and no other moves, and nothing has to be built but one number per node.
Bounded loads are from Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2018.
"""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable, Sequence
from hashlib import blake2b

from rpcfw.balancer.policy import Node
from rpcfw.call import Call, serving
from rpcfw.chance import new_rng
from rpcfw.mistakes import check_function, check_number, check_text

BOUND = 1.25
FLOOR = 8
_GENERATION = 4096
_MAX_TABLES = 8
_MAX_SEEDS = 1024


class ConsistentHash:
    """The node whose address and the call's key have the highest score; the next highest while that one is overloaded.

    Which node a key belongs to follows from the addresses and registered weights alone: it is the same in every
    process and does not move while nodes warm up. A node is overloaded when it has more than `bound` times its fair
    share of this client's calls in progress (fair by present weights, so a node that warms up has less), and at least
    `floor`. A call without a key goes to the less busy of two nodes by chance.

    Args:
        key: the key of a call: `by_argument("user_id")`, `by_metadata("tenant")`, or a function of your own.
        bound: 1 or more; `math.inf` for none: a key then never leaves its node while that is there.
        floor: so many calls in progress never are an overload, 0 or more.
        rng: the source of chance for calls without a key.
    """

    def __init__(
        self,
        key: Callable[[Call], bytes | None],
        *,
        bound: float = BOUND,
        floor: int = FLOOR,
        rng: random.Random | None = None,
    ) -> None:
        check_function(key, "key", "a call", 'by_argument("user_id")')
        check_number(bound, "bound")
        check_number(floor, "floor")
        if not bound >= 1:
            raise ValueError(f"bound={bound!r} must be 1 or more: below, calls in progress have no place")
        self._key = key
        self._bound = bound
        self._floor = floor if bound != math.inf else math.inf
        self._random = (rng or new_rng()).random
        self._tables: dict[int, _Table] = {}  # by identity of the sequence, which the table keeps alive
        self._seeds: dict[Node, bytes] = {}  # so that a sequence made for one call costs little
        self._left = _GENERATION

    def pick(self, nodes: Sequence[Node], call: Call) -> Node:
        """The node of the call's key."""
        if len(nodes) == 1:
            return nodes[0]
        key = self._key(call)
        table = self._tables.get(id(nodes)) or self._table(nodes)
        self._left -= 1
        if self._left <= 0:  # sequences out of use are forgotten, those in use found again
            self._left = _GENERATION
            self._tables = {id(nodes): table}
            self._seeds.clear()
        if key is None:
            return self._one_of(table.nodes)
        scores = table.scores(int.from_bytes(blake2b(key, digest_size=8).digest(), "little"))
        node = table.nodes[scores.index(max(scores))]
        if node.in_flight < self._floor and node.weight > 0:
            return node
        return self._bounded(table.nodes, scores)

    def _bounded(self, nodes: Sequence[Node], scores: Sequence[float]) -> Node:
        """The node with the highest score that has room for a call. There always is one, as `bound` is at least 1."""
        weights = [node.weight for node in nodes]
        in_flight = [node.in_flight for node in nodes]
        if sum(weights) <= 0:
            weights = [1.0] * len(nodes)
        total, allowed = sum(weights), self._bound * (sum(in_flight) + 1)
        for index in sorted(range(len(nodes)), key=scores.__getitem__, reverse=True):
            weight = weights[index]
            if weight > 0 and (
                in_flight[index] < self._floor or in_flight[index] < math.ceil(allowed * weight / total)
            ):
                return nodes[index]
        return nodes[scores.index(max(scores))]

    def _one_of(self, nodes: Sequence[Node]) -> Node:
        count = len(nodes)
        one, other = nodes[int(self._random() * count)], nodes[int(self._random() * count)]
        if one.weight <= 0 and other.weight <= 0:
            weighted = [node for node in nodes if node.weight > 0]
            return weighted[int(self._random() * len(weighted))] if weighted else one
        if one.weight <= 0:
            return other
        return other if other.in_flight * one.weight < one.in_flight * other.weight else one

    def _table(self, nodes: Sequence[Node]) -> _Table:
        if len(self._tables) >= _MAX_TABLES:
            del self._tables[next(iter(self._tables))]
        if len(self._seeds) > 2 * len(nodes) + _MAX_SEEDS:
            self._seeds.clear()
        table = self._tables[id(nodes)] = _Table(nodes, self._seeds)
        return table


class IpHash:
    """Consistent hashing by the address of the caller, so that all calls made for one caller go to one node.

    The caller is, in this order: whom the metadata ``x-forwarded-for`` names first, that of the call or of the call
    that this process is serving meanwhile; the peer of the call being served, without its port; and where nothing is
    being served, this client itself, as `own` or as a name made by chance. What a peer forwards can be made up: give
    ``forwarded=None`` where peers are not trusted to say for whom they call, or a `bound`.

    Args:
        own: this client's own address or name, when no call is being served.
        forwarded: the name of the metadata, or None to look at none.
        bound: see `ConsistentHash`; none unless given.
        rng: the source of chance.
    """

    def __init__(
        self,
        *,
        own: str | None = None,
        forwarded: str | None = "x-forwarded-for",
        bound: float = math.inf,
        rng: random.Random | None = None,
    ) -> None:
        if own is not None:
            check_text(own, "own", '"10.0.0.7"')
        if forwarded is not None:
            check_text(forwarded, "forwarded", '"x-forwarded-for", or None')
        rng = rng or new_rng()
        self._own = own if own is not None else f"client {rng.getrandbits(64):016x}"
        self._forwarded = forwarded
        self._hash = ConsistentHash(self._caller, bound=bound, rng=rng)

    def pick(self, nodes: Sequence[Node], call: Call) -> Node:
        """The node of the caller."""
        return self._hash.pick(nodes, call)

    def _caller(self, call: Call) -> bytes:
        served = serving()
        if self._forwarded is not None:
            for one in (call, served):
                if one is not None and one.metadata_bytes:
                    value = one.metadata.get(self._forwarded, "")
                    text = value if isinstance(value, str) else value.decode("utf-8", "replace")
                    address = text.partition(",")[0].strip()
                    if address:
                        return address.encode()
        if served is not None and served.peer:
            return _host(served.peer).encode()
        return self._own.encode()


class _Table:
    """The nodes of one sequence that have a registered weight, and a seed for each of them.

    All seeds stand in one integer, 64 bits of every 128, so that a handful of operations of long arithmetic mix the
    key into all of them at once: each lane's product fits its 128 bits and the upper half is then masked away. A loop
    over a hundred nodes would take ten times as long.
    """

    __slots__ = ("_inverse", "_mask", "_ones", "_seeds", "_unpack", "nodes", "source")

    def __init__(self, nodes: Sequence[Node], seeds: dict[Node, bytes]) -> None:
        self.source = nodes
        self.nodes = tuple(node for node in nodes if node.endpoint.weight > 0) or tuple(nodes)
        count = len(self.nodes)
        lanes = b"".join([seeds.get(node) or _seed(node, seeds) for node in self.nodes])
        self._seeds = int.from_bytes(lanes, "little")
        self._ones = int.from_bytes((1).to_bytes(16, "little") * count, "little")
        self._mask = (2**64 - 1) * self._ones
        self._unpack = struct.Struct("<" + "Q8x" * count).unpack
        weights = [node.endpoint.weight for node in self.nodes]
        # equal weights need no logarithm: the order is that of the mixed seeds themselves
        self._inverse = [1.0 / weight for weight in weights] if min(weights) != max(weights) else None

    def scores(self, key: int) -> Sequence[float]:
        """One for each node, the highest of which owns the key: u, or -ln(u) / weight turned about, u being uniform.

        The mixing is that of SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators").
        """
        mask = self._mask
        mixed = self._seeds ^ (key * self._ones)
        mixed = ((mixed ^ ((mixed >> 30) & mask)) * 0xBF58476D1CE4E5B9) & mask
        mixed = ((mixed ^ ((mixed >> 27) & mask)) * 0x94D049BB133111EB) & mask
        mixed ^= (mixed >> 31) & mask
        lanes = self._unpack(mixed.to_bytes(16 * len(self.nodes), "little"))
        inverse = self._inverse
        if inverse is None:
            return lanes
        log = math.log
        return [log((lane + 0.5) / 2**64) * share for lane, share in zip(lanes, inverse, strict=True)]


def _seed(node: Node, seeds: dict[Node, bytes]) -> bytes:
    """The lane of a node that is not among `seeds` yet."""
    hashed = blake2b(node.endpoint.address.encode(), digest_size=8).digest()
    lane = seeds[node] = hashed + bytes(8)
    return lane


def _host(peer: str) -> str:
    """The peer's address without its port, and without the subject of its certificate."""
    address = peer.partition(" (")[0]
    host, colon, port = address.rpartition(":")
    return host if colon and port.isdigit() else address
