"""Circuit breakers: one policy per file. No I/O, no clock."""

from rpcfw.breaker.adaptive import Adaptive
from rpcfw.breaker.circuit import Recovery
from rpcfw.breaker.consecutive_failures import ConsecutiveFailures
from rpcfw.breaker.failure import FAILURE_CODES, Judge, failure_codes, is_failure, is_failure_or_overload
from rpcfw.breaker.failure_ratio import FailureRatio
from rpcfw.breaker.policy import Breaker, Listener, State

__all__ = [
    "FAILURE_CODES",
    "Adaptive",
    "Breaker",
    "ConsecutiveFailures",
    "FailureRatio",
    "Judge",
    "Listener",
    "Recovery",
    "State",
    "failure_codes",
    "is_failure",
    "is_failure_or_overload",
]
