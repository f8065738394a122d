"""Bulkhead: no service takes the whole server. The name is that of the walls that keep a ship with a leak afloat."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rpcfw.call import Call, Handler
from rpcfw.items import through
from rpcfw.limiter.concurrency import Concurrency
from rpcfw.limiter.held import HeldItems
from rpcfw.limiter.priority import Priority, priority_of
from rpcfw.limiter.refusal import refusal
from rpcfw.mistakes import check_mapping, check_number

DEFAULT_SHARE = 0.5
_NORMAL = Priority.NORMAL


class Bulkhead:
    """Middleware that lets each service have a share of `max_running` at a time, and no more.

    So whatever one service does, the rest of `max_running` is left to the others; the shares together may be more
    than 1, since not all are busy at once. What is over its share is refused with RESOURCE_EXHAUSTED and
    ``executed=False``. A call that streams its reply counts until the stream is over. Priorities count as in
    `ConcurrencyLimit`, within each share.

    Args:
        max_running: what is divided, at least 1: what the server can do at a time.
        share: of each service, more than 0 and at most 1; rounded up to whole calls.
        shares: of single services by name, such as ``{"shop.Reports": 0.1}``.
    """

    def __init__(
        self,
        max_running: int,
        *,
        share: float = DEFAULT_SHARE,
        shares: Mapping[str, float] | None = None,
    ) -> None:
        check_number(max_running, "max_running")
        if shares is not None:
            check_mapping(shares, "shares", '{"shop.Reports": 0.1}')
        if max_running < 1:
            raise ValueError(f"max_running={max_running!r} must be at least 1 call")
        for name, value in {"share": share, **(shares or {})}.items():
            check_number(value, name)
            if not 0 < value <= 1:
                raise ValueError(f"{name}: {value!r} must be a share of more than 0 and at most 1")
        self._max_running = max_running
        self._share = share
        self._shares = dict(shares or {})
        self._slots: dict[str, Concurrency] = {}

    def running(self, service: str) -> int:
        """Calls of that service that run now."""
        slots = self._slots.get(service)
        return 0 if slots is None else slots.running

    def __call__(self, handler: Handler) -> Handler:
        """Wrap a handler; all methods of a service share its slots."""
        known = self._slots

        async def limited(call: Call) -> Any:
            service = call.method.service
            slots = known.get(service)
            if slots is None:
                share = self._shares.get(service, self._share)
                slots = known[service] = Concurrency(math.ceil(self._max_running * share))
            priority = priority_of(call) if call.metadata_bytes else _NORMAL
            if not slots.enter(priority):
                raise refusal(
                    call,
                    f"{slots.running:,} calls of {service} run, and its share of {self._max_running:,} is "
                    f"{slots.limit:,}; try again later or another server, or raise its share",
                )
            try:
                result = await handler(call)
            except BaseException:
                slots.leave()
                raise
            if call.method.kind.streams_out:
                return through(result, lambda items: HeldItems(items, slots.leave))
            slots.leave()
            return result

        return limited
