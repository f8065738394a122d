"""The items of a stream on their way to whoever iterates over them: handed on in the batches they came in.

An async generator costs about as much per step as decoding a small item, so layers hand on whole batches, and only the
last one, the stub, takes them apart. Layers that know nothing of it may iterate over single items all the same.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from typing import Any

Batch = Sequence[Any]
"""Some items in order, at least one."""


class Items:
    """Items in batches, as an async iterator of single ones that can be closed.

    Args:
        batches: owned by this object. What it does at its end it does when this is exhausted or closed.
    """

    __slots__ = ("_at_hand", "_batches")

    def __init__(self, batches: AsyncGenerator[Batch, None]) -> None:
        self._batches = batches
        self._at_hand: Iterator[Any] | None = None

    def __aiter__(self) -> Items:
        return self

    async def __anext__(self) -> Any:
        while True:
            for item in self._at_hand or ():
                return item
            self._at_hand = iter(await anext(self._batches))

    async def aclose(self) -> None:
        """End the stream; what was not taken is lost."""
        self._at_hand = None
        await self._batches.aclose()

    def batches(self) -> AsyncIterator[Batch]:
        """The items in the batches they came in; closing this object closes them. Begins with the rest of one that was
        begun item by item.
        """
        return self._batches if self._at_hand is None else self._rest()

    async def _rest(self) -> AsyncIterator[Batch]:
        begun = list(self._at_hand or ())
        self._at_hand = None
        if begun:
            yield begun
        async for batch in self._batches:
            yield batch


class _Singles:
    """Not a generator, which would want to be closed where this one is left off."""

    __slots__ = ("_items",)

    def __init__(self, items: Any) -> None:
        self._items: AsyncIterator[Any] = aiter(items)

    def __aiter__(self) -> _Singles:
        return self

    async def __anext__(self) -> Batch:
        return (await self._items.__anext__(),)


def batches_of(items: Any) -> AsyncIterator[Batch]:
    """Any async iterable of items in batches: those they came in, if it knows of them, else of one item each."""
    return items.batches() if isinstance(items, Items) else _Singles(items)
