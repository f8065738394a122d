"""CarryPriority: calls say how much they matter, and what is called on their behalf says the same."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import msgspec

from rpcfw.call import Call, Handler, pack_metadata, serving
from rpcfw.limiter.priority import PRIORITY, Priority, stated_priority
from rpcfw.mistakes import check_instance


class CarryPriority:
    """Client middleware that marks each call with a priority for the limits of servers to go by.

    A call keeps the one it was given with ``rpcfw.with_options(stub, metadata=Priority.CRITICAL.metadata)``. Else it
    inherits that of the call that is being served, so that it holds from hop to hop; else it gets `default`.

    Args:
        default: of calls that begin here; None sends nothing, which servers take for `Priority.NORMAL`.
    """

    def __init__(self, default: Priority | None = None) -> None:
        if default is not None:
            check_instance(default, "default", Priority, "Priority.CRITICAL")
        self._default = default

    def __call__(self, handler: Handler) -> Handler:
        """Wrap a handler."""
        default = self._default
        packed = {priority: pack_metadata(priority.metadata) for priority in Priority}

        def carry(call: Call) -> Awaitable[Any]:
            origin, priority = serving(), default
            if origin is not None and origin.metadata_bytes:
                inherited = stated_priority(origin)
                priority = default if inherited is None else inherited
            if priority is None or (call.metadata_bytes and stated_priority(call) is not None):
                return handler(call)
            data = packed[priority]
            if call.metadata_bytes:
                data = pack_metadata({**call.metadata, PRIORITY: priority.name.lower()})
            return handler(msgspec.structs.replace(call, metadata_bytes=data))

        return carry
