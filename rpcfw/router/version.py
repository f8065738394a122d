"""By version of the service: only the wanted one, or a share of calls to a new one (a canary)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import accumulate

from rpcfw.balancer.keys import Key
from rpcfw.balancer.policy import Node
from rpcfw.call import Call, Route
from rpcfw.chance import new_rng
from rpcfw.mistakes import check_function, check_mapping, check_number, check_text
from rpcfw.router.derived import Derived, weighted

_MAX_PARTS = 4
"""A version is also found by its beginning, up to so many of its parts."""


class ByVersion:
    """Only nodes whose service has the wanted version: "2.1" itself, or any that begins with it, as "2.1.7" does.

    Args:
        version: what is wanted where a call says nothing else; empty for any.
        metadata: the name of the metadata in which a call may ask for another version; None for no such.
    """

    def __init__(self, version: str = "", *, metadata: str | None = None) -> None:
        check_text(version, "version", 'ByVersion("2")')
        if metadata is not None:
            check_text(metadata, "metadata", '"x-version"')
        if metadata is not None and (not metadata or metadata != metadata.lower()):
            raise ValueError(f"metadata={metadata!r}: names of metadata are lower-case text, not empty")
        if not version and metadata is None:
            raise ValueError('ByVersion() would let every node pass: give it a version, such as "2"')
        self._version = version
        self._metadata = metadata
        self._by_version = Derived(_by_prefix)

    def route(self, nodes: Sequence[Node], call: Call) -> Sequence[Node]:
        """The nodes of the wanted version; none where there are none."""
        wanted = self._version
        if self._metadata is not None and call.metadata_bytes:
            asked = call.metadata.get(self._metadata, "")
            wanted = (asked if isinstance(asked, str) else asked.decode("utf-8", "replace")) or wanted
        return self._by_version.of(nodes).get(wanted, ()) if wanted else nodes


class Canary:
    """A share of the calls to nodes of a new version, the rest to the nodes of all versions that are not named.

    Where the nodes that a call should go to are missing, any node may take it: before the new version is there, and
    when all have it. A node registered with weight 0 counts as missing. With a key, all calls of one key see the same
    version, and those that see the new one keep seeing it while its share grows.

    Args:
        shares: version -> share of calls, from 0 to 1 and at most 1 together: ``{"2.0": 0.05}``. Versions are exact.
        key: what belongs together, such as `by_metadata("user")`; calls without a key are shared out by chance.
        rng: the source of chance.
    """

    def __init__(
        self, shares: Mapping[str, float], *, key: Key | None = None, rng: random.Random | None = None
    ) -> None:
        check_mapping(shares, "shares", 'Canary({"2.0": 0.05})')
        if key is not None:
            check_function(key, "key", "a call", 'by_metadata("user")')
        for version, share in shares.items():
            check_number(share, f"Canary: the share of {version!r}")
            if not 0 <= share <= 1:
                raise ValueError(f"Canary: the share of {version!r} is {share!r}; it must be from 0 to 1")
        if not shares or sum(shares.values()) > 1 + 1e-9:
            raise ValueError(
                f"Canary: the shares {dict(shares)!r} must be at least one and at most 1 together"
            )
        self._shares = dict(shares)
        self._key = key
        self._random = (rng or new_rng()).random
        self._by_version = Derived(self._group)

    def route(self, nodes: Sequence[Node], call: Call) -> Sequence[Node]:
        """The nodes of the version that the call falls to."""
        by_version = self._by_version.of(nodes)
        key = self._key(call) if self._key is not None else None
        rest = self._random() if key is None else _unit(key)
        for version, share in self._shares.items():
            rest -= share
            if rest < 0:
                if version in by_version:
                    return by_version[version]
                if call.route is not None:
                    _note(call.route, f"it falls to version {version}, of which no node is there")
                break
        if call.route is not None and None not in by_version:
            _note(call.route, "no node of another version is there, so any node may take it")
        return by_version.get(None, nodes)

    def _group(self, nodes: Sequence[Node]) -> Mapping[str | None, Sequence[Node]]:
        """By named version; under None those of all others."""
        groups: dict[str | None, list[Node]] = {}
        for node in weighted(nodes):
            groups.setdefault(node.version if node.version in self._shares else None, []).append(node)
        return groups


def _note(route: Route, what: str) -> None:
    route.note(asyncio.get_running_loop().time(), "router", f"Canary: {what}")


def _by_prefix(nodes: Sequence[Node]) -> Mapping[str, Sequence[Node]]:
    """By all that a node's version answers to: "2.1.7" also to "2.1" and "2"."""
    groups: dict[str, list[Node]] = {}
    for node in nodes:
        parts = node.version.split(".", _MAX_PARTS)[:_MAX_PARTS]
        for name in {node.version, *accumulate(parts, "{}.{}".format)}:
            groups.setdefault(name, []).append(node)
    return {name: nodes if len(found) == len(nodes) else found for name, found in groups.items()}


def _unit(key: bytes) -> float:
    """A number from 0 to 1 that follows from the key, and has nothing to do with where hashing would put it."""
    return int.from_bytes(blake2b(key, digest_size=8, person=b"canary").digest(), "little") / 2**64
