"""The error of a call that is refused for load: one shape for all limits, so that `Retry` knows what to do."""

from __future__ import annotations

import math
from typing import Any

from rpcfw.call import Call
from rpcfw.errors import Code, RpcError


def refusal(call: Call, why: str, retry_after_s: float = math.nan) -> RpcError:
    """RESOURCE_EXHAUSTED, with ``executed=False``: the call may be made again, here later or elsewhere at once.

    Args:
        call: what is refused.
        why: the figures, and the mend.
        retry_after_s: how long the same would fail again, where that is known: sent in the details.
    """
    details: dict[str, Any] = {"retry_after_s": retry_after_s} if math.isfinite(retry_after_s) else {}
    return RpcError(Code.RESOURCE_EXHAUSTED, f"{call.method.path}: {why}", details, executed=False)
