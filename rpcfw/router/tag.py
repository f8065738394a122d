"""By tag: calls that carry a tag go to the nodes that carry it, and no others do. After Dubbo's tag router."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rpcfw.balancer.policy import Node
from rpcfw.call import Call
from rpcfw.mistakes import check_text
from rpcfw.router.derived import Derived, weighted


class ByTag:
    """Tagged calls to the nodes with that tag, all others to the nodes without one.

    So a tagged node is apart: it gets what is meant for it and nothing else. A node registered with weight 0 counts as
    absent.

    Args:
        metadata: the name of the metadata that holds the tag of a call.
        label: the name of the label that holds the tag of a node.
        fallback: send a call to the untagged nodes where none has its tag; otherwise no node may take it.
    """

    def __init__(self, metadata: str = "tag", *, label: str = "tag", fallback: bool = True) -> None:
        check_text(metadata, "metadata", 'ByTag("tag")')
        check_text(label, "label", '"tag"')
        if not metadata or metadata != metadata.lower():
            raise ValueError(f"metadata={metadata!r}: names of metadata are lower-case text, not empty")
        self._metadata = metadata
        self._label = label
        self._fallback = fallback
        self._by_tag = Derived(self._group)

    def route(self, nodes: Sequence[Node], call: Call) -> Sequence[Node]:
        """The nodes with the call's tag."""
        by_tag = self._by_tag.of(nodes)
        tag = call.metadata.get(self._metadata, "") if call.metadata_bytes else ""
        if isinstance(tag, bytes):
            tag = tag.decode("utf-8", "replace")
        tagged = by_tag.get(tag, ())
        return tagged if tagged or not self._fallback else by_tag.get("", ())

    def _group(self, nodes: Sequence[Node]) -> Mapping[str, Sequence[Node]]:
        groups: dict[str, list[Node]] = {}
        for node in weighted(nodes):
            groups.setdefault(node.labels.get(self._label, ""), []).append(node)
        return {"": nodes} if len(groups.get("", ())) == len(nodes) else groups
