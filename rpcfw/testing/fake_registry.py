"""A registry for tests: every process, or simulated host, asks for its own view of one store in memory.

The store is the running loop's, so that tests played with many seeds share nothing. What it keeps, and how it fails, is
`rpcfw.registry.memory`'s.
"""

from __future__ import annotations

import asyncio
import weakref

from rpcfw.registry import MemoryRegistry, MemoryStore


class FakeRegistry:
    """Gives registries in memory that see each other; call it where a server or client needs one.

        registry = rpcfw_registry()
        async with rpcfw.connect(registry) as client: ...

    Args:
        lease_s: how long a registration outlives its server, in seconds.
    """

    def __init__(self, *, lease_s: float = 10.0) -> None:
        self._lease_s = lease_s
        self._stores: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, MemoryStore] = (
            weakref.WeakKeyDictionary()
        )

    def __call__(self) -> MemoryRegistry:
        """One more view of the store."""
        return MemoryRegistry(self.store)

    @property
    def store(self) -> MemoryStore:
        """What they share on the running loop; `stop` and `start` make its outages."""
        loop = asyncio.get_running_loop()
        if loop not in self._stores:
            self._stores[loop] = MemoryStore(lease_s=self._lease_s)
        return self._stores[loop]
