"""The items of a stream on their way to whoever iterates over them: handed on in the batches they came in.

An async generator costs about as much per step as decoding a small item, so layers hand on whole batches, and only the
last one, the stub, takes them apart. Layers that know nothing of it may iterate over single items all the same.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol, Self

Batch = Sequence[Any]
"""Some items in order, at least one."""


class Batches(Protocol):
    """An async iterator of batches that can be closed."""

    def __aiter__(self) -> AsyncIterator[Batch]: ...

    def __anext__(self) -> Awaitable[Batch]: ...

    def aclose(self) -> Awaitable[None]:
        """End it."""
        ...


class Items:
    """Items in batches, as an async iterator of single ones that can be closed.

    Args:
        batches: owned by this object. What it does at its end it does when this is exhausted or closed.
    """

    __slots__ = ("_at_hand", "_batches")

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._at_hand: Iterator[Any] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while True:
            for item in self._at_hand or ():
                return item
            self._at_hand = iter(await self._batches.__anext__())

    async def aclose(self) -> None:
        """End the stream; what was not taken is lost."""
        self._at_hand = None
        await self._batches.aclose()

    def batches(self) -> Batches:
        """The items in the batches they came in, beginning with the rest of one that was begun item by item.

        Closing either this object or those ends the stream.
        """
        return self._batches if self._at_hand is None else self._rest()

    async def _rest(self) -> AsyncGenerator[Batch, None]:
        begun = list(self._at_hand or ())
        self._at_hand = None
        try:
            if begun:
                yield begun
            async for batch in self._batches:
                yield batch
        finally:
            await self._batches.aclose()


class _Singles:
    """Not a generator, which would want to be closed where this one is left off."""

    __slots__ = ("_items",)

    def __init__(self, items: Any) -> None:
        self._items: AsyncIterator[Any] = aiter(items)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        return (await self._items.__anext__(),)


def batches_of(items: Any) -> AsyncIterator[Batch]:
    """Any async iterable of items in batches: those they came in, if it knows of them, else of one item each.

    Close the iterable, not what is returned.
    """
    return aiter(items.batches()) if isinstance(items, Items) else _Singles(items)


def through(items: Any, layer: Callable[[Any], Any]) -> Any:
    """Items behind a layer that hands on whatever it is given, be that single items or batches.

    Args:
        items: an async iterable.
        layer: makes an async iterator that can be closed, of one that it is given and closes.
    """
    return Items(layer(items.batches())) if isinstance(items, Items) else layer(items)
