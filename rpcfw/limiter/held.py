"""A stream that holds something until it is over: a slot of a limit is free again when its last item is through.

Not an async generator, because one that is closed before its first item never runs its own end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any


class HeldItems:
    """The items of a stream, and something to be done once when it ends, fails, is closed or is forgotten.

    Args:
        items: an async iterable. Where it is none, `release` is called and the TypeError of `aiter` raised.
        release: called exactly once.
    """

    __slots__ = ("_held", "_iterator", "_release")

    def __init__(self, items: Any, release: Callable[[], None]) -> None:
        self._release = release
        self._held = True
        try:
            self._iterator: AsyncIterator[Any] = aiter(items)
        except BaseException:
            self._let_go()
            raise

    def __aiter__(self) -> HeldItems:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._iterator.__anext__()
        except (
            BaseException
        ):  # the end, a failure, or a cancelled consumer, after which a generator is over too
            self._let_go()
            raise

    async def aclose(self) -> None:
        """Close the stream beneath, then let go."""
        try:
            close = getattr(self._iterator, "aclose", None)
            if close is not None:
                await close()
        finally:
            self._let_go()

    def __del__(self) -> None:
        self._let_go()  # a middleware outside dropped it without closing it

    def _let_go(self) -> None:
        if self._held:
            self._held = False
            self._release()
