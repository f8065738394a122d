"""Circuit breakers: one policy per file. No I/O, no clock."""

from rpcfw.breaker.policy import Breaker, State

__all__ = ["Breaker", "State"]
