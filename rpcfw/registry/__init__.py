"""Where clients find servers: one small Protocol, one kind of registry per file, opened by URL or made as objects."""

from rpcfw.registry.policy import Registry
from rpcfw.registry.registration import Registration

__all__ = ["Registration", "Registry"]
