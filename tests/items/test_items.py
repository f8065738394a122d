"""Items in batches: taken apart by whoever wants single ones, handed on whole by whoever does not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from rpcfw.items import Batch, Items, batches_of, through


class Source:
    """Batches, and whether their end has been run."""

    def __init__(self, *batches: Batch, error: Exception | None = None) -> None:
        self.closed = False
        self._batches = batches
        self._error = error

    async def run(self) -> AsyncGenerator[Batch, None]:
        try:
            for batch in self._batches:
                yield batch
            if self._error is not None:
                raise self._error
        finally:
            self.closed = True


async def singles() -> AsyncIterator[int]:
    for number in (1, 2):
        yield number


async def test_batches_are_taken_apart_in_order() -> None:
    source = Source([1, 2], [3], [4, 5])
    assert [item async for item in Items(source.run())] == [1, 2, 3, 4, 5]
    assert source.closed


async def test_batches_are_handed_on_as_they_came() -> None:
    batches: list[Any] = [[1, 2], [3]]
    handed = [batch async for batch in batches_of(Items(Source(*batches).run()))]
    assert all(a is b for a, b in zip(handed, batches, strict=True))


async def test_what_was_begun_item_by_item_goes_on_in_batches() -> None:
    items = Items(Source([1, 2, 3], [4]).run())
    assert await anext(items) == 1
    assert [batch async for batch in batches_of(items)] == [[2, 3], [4]]
    items = Items(Source([1], [4]).run())
    assert await anext(items) == 1
    assert [batch async for batch in batches_of(items)] == [[4]]


async def test_an_error_comes_after_the_items_before_it() -> None:
    items, got = Items(Source([1, 2], error=ValueError("no")).run()), list[int]()
    with pytest.raises(ValueError, match="no"):
        async for item in items:
            got.append(item)
    assert got == [1, 2]


async def test_closing_closes_the_batches() -> None:
    source = Source([1, 2], [3])
    items = Items(source.run())
    assert await anext(items) == 1
    await items.aclose()
    assert source.closed
    assert [item async for item in items] == []


async def test_closing_the_rest_closes_the_batches() -> None:
    source = Source([1, 2], [3])
    items = Items(source.run())
    assert await anext(items) == 1
    rest: Any = items.batches()
    assert await anext(rest) == [2]
    await rest.aclose()
    assert source.closed


async def test_single_items_are_batches_of_one() -> None:
    assert [batch async for batch in batches_of(singles())] == [(1,), (2,)]


async def test_a_layer_sees_batches_where_there_are_some_and_else_single_items() -> None:
    seen: list[Any] = []

    async def layer(given: Any) -> AsyncGenerator[Any, None]:
        async for what in given:
            seen.append(what)
            yield what

    assert [item async for item in through(singles(), layer)] == [1, 2]
    assert [item async for item in through(Items(Source([3, 4]).run()), layer)] == [3, 4]
    assert seen == [1, 2, [3, 4]]
