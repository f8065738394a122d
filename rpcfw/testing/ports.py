"""The ports of one simulated host: who has which, and the next free one.

One table for TCP and one for UDP. Knows nothing of what listens there.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
ANY_ADDRESS = "0.0.0.0"
_FIRST_FREE, _LAST_FREE = 32_768, 60_999  # Linux's


class Ports(Generic[T]):
    """Addresses and ports, each with its owner; several owners where all of them share."""

    def __init__(self) -> None:
        self._owners: dict[int, list[tuple[str, T, bool]]] = {}
        self._next = _FIRST_FREE

    def bind(self, address: str, port: int, owner: T, *, share: bool = False) -> int:
        """Take a port, any free one for 0; returns it. Raises OSError EADDRINUSE."""
        if port == 0:
            port = self.free_port()
        for other, _, shared in self._owners.get(port, ()):
            if (other == address or ANY_ADDRESS in (other, address)) and not (share and shared):
                raise OSError(errno.EADDRINUSE, f"{os.strerror(errno.EADDRINUSE)}: {address}:{port}")
        self._owners.setdefault(port, []).append((address, owner, share))
        return port

    def free_port(self, fits: Callable[[int], bool] = lambda port: True) -> int:
        """The next port that nobody has and that fits. Raises OSError when there is none left."""
        for _ in range(_FIRST_FREE, _LAST_FREE + 1):
            port = self._next
            self._next = _FIRST_FREE if port == _LAST_FREE else port + 1
            if port not in self._owners and fits(port):
                return port
        raise OSError(errno.EADDRNOTAVAIL, "every port of the simulated host is in use: close some links")

    def release(self, port: int, owner: T) -> None:
        """Give a port back; nothing happens when the owner has it no more."""
        left = [entry for entry in self._owners.get(port, ()) if entry[1] != owner]
        if left:
            self._owners[port] = left
        else:
            self._owners.pop(port, None)

    def find(self, address: str, port: int) -> list[T]:
        """Who is at that address and port: those bound to the very address first, or else to any."""
        entries = self._owners.get(port, ())
        exact = [owner for bound, owner, _ in entries if bound == address]
        return exact or [owner for bound, owner, _ in entries if bound == ANY_ADDRESS]

    def clear(self) -> None:
        """Take all ports from their owners; the next free one goes on from where it was."""
        self._owners.clear()

    def __len__(self) -> int:
        return sum(map(len, self._owners.values()))
