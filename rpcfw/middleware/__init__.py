"""Behaviours that wrap a handler: one per file, none knows another."""

from rpcfw.middleware.retry import Retry

__all__ = ["Retry"]
