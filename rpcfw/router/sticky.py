"""Sticky: calls of one key stay at the node that took the first of them, for servers that keep state in memory.

Unlike hashing, which puts a key where its hash says, a key moves only when its node is gone, never because another
joined. What it remembers lives in this client: another client may keep the same key elsewhere.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from rpcfw.balancer.keys import Key
from rpcfw.balancer.policy import Node
from rpcfw.call import Call
from rpcfw.chance import new_rng
from rpcfw.mistakes import check_function, check_number
from rpcfw.router.derived import Derived

MAX_KEYS = 10_000


class Sticky:
    """Each key at its node while that is there. A new key, or one whose node is gone, goes to the less busy of two.

    A call without a key may go anywhere. So may the next attempt of a call that its node has failed; the key stays.

    Args:
        key: what belongs together: `by_metadata("session")`, `by_argument("user_id")`, or a function of your own.
        max_keys: so many keys are remembered, the ones used last.
        rng: the source of chance.
    """

    def __init__(self, key: Key, *, max_keys: int = MAX_KEYS, rng: random.Random | None = None) -> None:
        check_function(key, "key", "a call", 'by_metadata("session")')
        check_number(max_keys, "max_keys")
        if max_keys < 1:
            raise ValueError(f"max_keys={max_keys!r} must be at least 1")
        self._key = key
        self._max_keys = max_keys
        self._random = (rng or new_rng()).random
        self._places: dict[
            tuple[str, bytes], str
        ] = {}  # service and key -> address, the one used last at the end
        self._alone = Derived(_each_alone)

    def route(self, nodes: Sequence[Node], call: Call) -> Sequence[Node]:
        """The key's node alone."""
        key = self._key(call)
        if key is None or not nodes:
            return nodes
        alone = self._alone.of(nodes)
        name = (call.method.service, blake2b(key, digest_size=16).digest())  # however long the key is
        address = self._places.pop(name, "")
        if address not in alone:
            address = self._choose(nodes).endpoint.address
            if len(self._places) >= self._max_keys:
                del self._places[next(iter(self._places))]
        self._places[name] = address
        if call.route is not None and address in call.route.tried:
            return nodes
        return alone[address]

    def _choose(self, nodes: Sequence[Node]) -> Node:
        serving = [node for node in nodes if node.weight > 0] or nodes
        one, other = (serving[int(self._random() * len(serving))] for _ in range(2))
        return other if other.in_flight * one.weight < one.in_flight * other.weight else one


def _each_alone(nodes: Sequence[Node]) -> Mapping[str, Sequence[Node]]:
    return {node.endpoint.address: (node,) for node in nodes}
