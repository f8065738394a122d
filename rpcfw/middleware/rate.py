"""RateLimit: so many calls a second, of all together or of each caller, service or method."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from rpcfw.call import Call, Handler
from rpcfw.limiter.refusal import refusal
from rpcfw.limiter.token_bucket import TokenBucket
from rpcfw.mistakes import check_function, check_number

MAX_KEYS = 10_000


class RateLimit:
    """Middleware that lets `rate_per_s` calls begin a second, and `burst` at once after a pause.

    The rest is refused with RESOURCE_EXHAUSTED and ``executed=False``; the error says in its details, as
    `retry_after_s`, when there is room again, which `Retry` heeds.

    Args:
        rate_per_s: calls a second, more than 0.
        burst: how many at once; what one second gives unless said otherwise, and at least one.
        key: calls with the same key share a limit: `per_caller`, `per_service`, `per_method` or a function of yours;
            all calls share one unless given.
        max_keys: how many keys are remembered; of more, the one unused for longest is forgotten, and begins anew.
    """

    def __init__(
        self,
        rate_per_s: float,
        burst: float | None = None,
        *,
        key: Callable[[Call], Hashable] | None = None,
        max_keys: int = MAX_KEYS,
    ) -> None:
        check_number(rate_per_s, "rate_per_s")
        if burst is not None:
            check_number(burst, "burst")
        if key is not None:
            check_function(key, "key", "a call", "per_caller")
        check_number(max_keys, "max_keys")
        if max_keys < 1:
            raise ValueError(f"max_keys={max_keys!r} must be at least 1 key")
        self._all = TokenBucket(rate_per_s, burst)
        self._key = key
        self._max_keys = max_keys
        self._buckets: OrderedDict[Hashable, TokenBucket] = OrderedDict()

    def __call__(self, handler: Handler) -> Handler:
        """Wrap a handler; the limits are shared by all it wraps."""
        key, bucket_of, shared = self._key, self._bucket, self._all

        async def limited(call: Call) -> Any:
            bucket = shared if key is None else bucket_of(key(call))
            now = asyncio.get_running_loop().time()
            if not bucket.take(now):
                wait_s = bucket.wait_s(now)
                raise refusal(
                    call,
                    f"more than {bucket.rate_per_s:g} calls a second came, and {bucket.burst:g} at once"
                    f"{'' if key is None else f' with the key {key(call)!r}'}; try again in {wait_s:.3g} s",
                    wait_s,
                )
            return await handler(call)

        return limited

    @property
    def keys(self) -> int:
        """How many keys are remembered."""
        return len(self._buckets)

    def _bucket(self, key: Hashable) -> TokenBucket:
        buckets = self._buckets
        bucket = buckets.get(key)
        if bucket is not None:
            buckets.move_to_end(key)
            return bucket
        if len(buckets) >= self._max_keys:
            buckets.popitem(last=False)
        bucket = buckets[key] = TokenBucket(self._all.rate_per_s, self._all.burst)
        return bucket


def per_caller(call: Call) -> str:
    """A key: the subject of the caller's certificate where there is one, else its host, over all its connections."""
    peer = call.peer
    if peer.endswith(")") and " (" in peer:
        return peer[peer.index(" (") + 2 : -1]
    return peer.rpartition(":")[0] or peer


def per_service(call: Call) -> str:
    """A key: the service."""
    return call.method.service


def per_method(call: Call) -> str:
    """A key: the method."""
    return call.method.path
