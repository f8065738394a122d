"""Behaviours that wrap a handler: one per file, none knows another."""

from rpcfw.middleware.broadcast import Broadcast
from rpcfw.middleware.dedupe import Dedupe, DedupeMemory, DedupeStore
from rpcfw.middleware.dedupe_keys import DedupeKeys
from rpcfw.middleware.failback import Failback
from rpcfw.middleware.failsafe import Failsafe
from rpcfw.middleware.fallback import Fallback
from rpcfw.middleware.forking import Forking
from rpcfw.middleware.hedge import Hedge
from rpcfw.middleware.retry import Retry

__all__ = [
    "Broadcast",
    "Dedupe",
    "DedupeKeys",
    "DedupeMemory",
    "DedupeStore",
    "Failback",
    "Failsafe",
    "Fallback",
    "Forking",
    "Hedge",
    "Retry",
]
