"""Which nodes may take a call: one rule per file."""

from rpcfw.router.policy import Router

__all__ = ["Router"]
