"""How much a call matters: what is refused first when not everything can be done.

The class travels in the metadata of a call and is handed on from hop to hop. After the criticality of requests in
Google's "Site Reliability Engineering" (chapter 21, "Handling Overload").
"""

from __future__ import annotations

import enum

from rpcfw.call import Call, Metadata, unpack_metadata
from rpcfw.errors import RpcError

PRIORITY = ":priority"
"""The name of the metadata entry that carries it: ``critical``, ``normal`` or ``sheddable``."""

_NAME = PRIORITY.encode()


class Priority(enum.IntEnum):
    """From what is refused last to what is refused first."""

    CRITICAL = 0
    """A user notices at once when it fails."""
    NORMAL = 1
    """What a call is that does not say."""
    SHEDDABLE = 2
    """It may fail now and then, such as a batch job that will try again."""

    @property
    def metadata(self) -> Metadata:
        """What marks a call: ``rpcfw.with_options(stub, metadata=Priority.CRITICAL.metadata)``."""
        return {PRIORITY: self.name.lower()}


_BY_NAME: dict[str | bytes, Priority] = {priority.name.lower(): priority for priority in Priority}


def stated_priority(call: Call) -> Priority | None:
    """What a call says, None where it says nothing or nothing that is known here."""
    data = call.metadata_bytes
    if not data or _NAME not in data:  # seldom worth decoding
        return None
    try:
        return _BY_NAME.get(unpack_metadata(data).get(PRIORITY, ""))
    except RpcError:
        return None  # whoever needs the metadata will say that they cannot be read


def priority_of(call: Call) -> Priority:
    """What a call says, or `Priority.NORMAL`."""
    if not call.metadata_bytes:
        return Priority.NORMAL
    stated = stated_priority(call)
    return Priority.NORMAL if stated is None else stated
