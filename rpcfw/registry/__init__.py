"""Where clients find servers: one small Protocol, one kind of registry per file, opened by URL or made as objects."""

from rpcfw.registry.file import FileRegistry
from rpcfw.registry.memory import MemoryRegistry, MemoryStore
from rpcfw.registry.opening import is_registry_url, open_registry
from rpcfw.registry.policy import Registry
from rpcfw.registry.registration import Registration
from rpcfw.registry.static import StaticRegistry

__all__ = [
    "FileRegistry",
    "MemoryRegistry",
    "MemoryStore",
    "Registration",
    "Registry",
    "StaticRegistry",
    "is_registry_url",
    "open_registry",
]
