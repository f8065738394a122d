"""How much may run at a time, or in a second: one limit per file.

No I/O and no clock: the time is passed in, except to `LagMeter`, whose matter is the running loop itself.
"""

from rpcfw.limiter.budget import RetryBudget
from rpcfw.limiter.concurrency import Concurrency
from rpcfw.limiter.gradient import Gradient
from rpcfw.limiter.lag import LagMeter
from rpcfw.limiter.priority import PRIORITY, Priority, priority_of
from rpcfw.limiter.token_bucket import TokenBucket
from rpcfw.limiter.turns import Turns

__all__ = [
    "PRIORITY",
    "Concurrency",
    "Gradient",
    "LagMeter",
    "Priority",
    "RetryBudget",
    "TokenBucket",
    "Turns",
    "priority_of",
]
