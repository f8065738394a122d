"""Failsafe: a call that fails gives a stand-in instead of an error, for what one can do without, such as an audit log.

The failure is logged. For answers that depend on the arguments there is `Fallback`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

from rpcfw.call import Call, Handler
from rpcfw.errors import RpcError

logger = logging.getLogger("rpcfw")

_EACH_S = 1.0
"""An outage is told of once in this time, with the number of calls that failed since."""


class Failsafe:
    """Middleware of clients under which no call raises `RpcError`.

    Declared errors are answers and arrive. A stream that breaks just ends. The log has a warning a second at the most,
    with the last error and how many there were. Put it first, so that what is below, such as `Retry`, has its chance.

    Args:
        result: what a failed call gives, or a function of the call and the error that gives it.
    """

    def __init__(self, result: Any | Callable[[Call, RpcError], Any] = None) -> None:
        self._result = result
        self._told_at = -math.inf
        self._untold = 0

    def __call__(self, handler: Handler) -> Handler:
        """Wrap a handler."""

        async def failsafe(call: Call) -> Any:
            streams_out = call.method.kind.streams_out
            try:
                result = await handler(call)
            except RpcError as error:
                self._tell(call, error)
                if streams_out:
                    return _nothing()
                return self._result(call, error) if callable(self._result) else self._result
            return self._items(call, result) if streams_out else result

        return failsafe

    async def _items(self, call: Call, items: Any) -> AsyncIterator[Any]:
        try:
            async for item in items:
                yield item
        except RpcError as error:
            self._tell(call, error)
        finally:
            await items.aclose()

    def _tell(self, call: Call, error: RpcError) -> None:
        now = asyncio.get_running_loop().time()
        self._untold += 1
        if now < self._told_at + _EACH_S:
            return
        others = f" (and {self._untold - 1} more since the last such line)" if self._untold > 1 else ""
        logger.warning("%s failed, and is done without: %s%s", call.method.path, error, others)
        self._told_at, self._untold = now, 0


async def _nothing() -> AsyncIterator[Any]:
    for item in list[Any]():
        yield item
