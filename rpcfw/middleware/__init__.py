"""Behaviours that wrap a handler: one per file, none knows another."""

from rpcfw.middleware.adaptive import AdaptiveLimit
from rpcfw.middleware.broadcast import Broadcast
from rpcfw.middleware.bulkhead import Bulkhead
from rpcfw.middleware.concurrency import ConcurrencyLimit
from rpcfw.middleware.dedupe import Dedupe, DedupeMemory, DedupeStore
from rpcfw.middleware.dedupe_keys import DedupeKeys
from rpcfw.middleware.failback import Failback
from rpcfw.middleware.failsafe import Failsafe
from rpcfw.middleware.fallback import Fallback
from rpcfw.middleware.forking import Forking
from rpcfw.middleware.hedge import Hedge
from rpcfw.middleware.priority import CarryPriority
from rpcfw.middleware.rate import RateLimit, per_caller, per_method, per_service
from rpcfw.middleware.retry import Retry
from rpcfw.middleware.shed import Shed

__all__ = [
    "AdaptiveLimit",
    "Broadcast",
    "Bulkhead",
    "CarryPriority",
    "ConcurrencyLimit",
    "Dedupe",
    "DedupeKeys",
    "DedupeMemory",
    "DedupeStore",
    "Failback",
    "Failsafe",
    "Fallback",
    "Forking",
    "Hedge",
    "RateLimit",
    "Retry",
    "Shed",
    "per_caller",
    "per_method",
    "per_service",
]
