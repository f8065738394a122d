"""The client for synchronous code, against a server whose loop runs in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import rpcfw
import rpcfw.blocking


class Empty(rpcfw.ServiceError):
    shelf: int


@rpcfw.service("tests.Shelf")
class Shelf:
    def __init__(self) -> None:
        self.made = 0
        self.closed = threading.Event()
        self.waiting = threading.Event()
        self.cancelled = threading.Event()

    async def add(self, left: int, right: int = 1) -> int:
        return left + right

    @rpcfw.method(raises=[Empty])
    async def take(self, shelf: int) -> str:
        raise Empty(shelf)

    async def count(self, upto: int) -> AsyncIterator[int]:
        try:
            for number in range(upto):
                self.made = number + 1
                yield number
        finally:
            self.closed.set()

    async def total(self, numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])

    async def first(self, numbers: AsyncIterator[int]) -> int:
        return await anext(numbers)

    async def double(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        async for number in numbers:
            yield number * 2

    async def who(self) -> str:
        rpcfw.set_reply_metadata({"shelf": "left"})
        return str(rpcfw.current_call().metadata.get("user", ""))

    async def wait(self) -> None:
        self.waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def endpoint(shelf: Shelf) -> Iterator[str]:
    ready = threading.Event()
    found: dict[str, Any] = {}

    async def serve() -> None:
        stop = asyncio.Event()
        async with rpcfw.serve(shelf) as server:
            found.update(loop=asyncio.get_running_loop(), stop=stop, endpoint=str(server.endpoint))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    yield found["endpoint"]
    found["loop"].call_soon_threadsafe(found["stop"].set)
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture
def client(endpoint: str) -> Iterator[rpcfw.BlockingClient]:
    with rpcfw.blocking.connect(endpoint) as client:
        yield client


def test_a_call_gives_its_result(client: rpcfw.BlockingClient) -> None:
    stub = client.stub(Shelf)
    assert stub.add(1, right=5) == 6
    assert stub.add(1) == 2


def test_declared_errors_arrive_as_themselves(client: rpcfw.BlockingClient) -> None:
    with pytest.raises(Empty) as caught:
        client.stub(Shelf).take(3)
    assert caught.value.shelf == 3


def test_all_kinds_of_streams_work_with_plain_iterables(client: rpcfw.BlockingClient) -> None:
    stub = client.stub(Shelf)
    assert list(stub.count(5000)) == list(range(5000))
    assert stub.total(range(300)) == sum(range(300))
    assert list(stub.double(range(300))) == [2 * number for number in range(300)]


def test_an_error_in_the_callers_own_stream_reaches_the_caller(client: rpcfw.BlockingClient) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        client.stub(Shelf).total(broken())


def test_a_stream_left_early_is_closed_on_the_server_too(client: rpcfw.BlockingClient, shelf: Shelf) -> None:
    stream = client.stub(Shelf).count(10**9)
    assert [next(stream), next(stream)] == [0, 1]
    stream.close()
    assert shelf.closed.wait(10)


def test_a_slow_reader_stops_the_producer(client: rpcfw.BlockingClient, shelf: Shelf) -> None:
    stream = client.stub(Shelf).count(10**9)
    next(stream)
    seen = -1
    while seen != shelf.made:  # until the producer has come to a stand
        seen = shelf.made
        client.stub(Shelf).add(1)
    assert shelf.made < 100_000
    stream.close()


def test_metadata_travels_both_ways(client: rpcfw.BlockingClient) -> None:
    received: dict[str, str | bytes] = {}
    stub = client.stub(Shelf).with_options(metadata={"user": "ada"}, reply_metadata=received)
    assert stub.who() == "ada"
    assert received == {"shelf": "left"}


def test_many_threads_share_one_client(client: rpcfw.BlockingClient) -> None:
    stub = client.stub(Shelf)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(stub.add, range(500))) == [number + 1 for number in range(500)]


def test_closing_fails_calls_in_progress(endpoint: str, shelf: Shelf) -> None:
    client = rpcfw.blocking.connect(endpoint)
    stub = client.stub(Shelf)
    assert stub.add(1) == 2
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(stub.with_options(timeout_s=60).wait)
        assert shelf.waiting.wait(10)
        client.close()
        with pytest.raises(rpcfw.RpcError) as caught:
            waiting.result(10)
    assert caught.value.code is rpcfw.Code.UNAVAILABLE
    assert shelf.cancelled.wait(10)
    with pytest.raises(rpcfw.RpcError, match="this client is closed"):
        stub.add(1)


class Stdin:
    """Gives one line, and none for a long time."""

    def __init__(self) -> None:
        self.asked, self.typed, self.read = threading.Event(), threading.Event(), 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.read += 1
        if self.read > 1:
            self.asked.set()
            self.typed.wait(30)
        return self.read


def test_closing_does_not_wait_for_an_iterable_that_blocks(endpoint: str) -> None:
    client = rpcfw.blocking.connect(endpoint)
    stdin = Stdin()
    with ThreadPoolExecutor(1) as pool:
        total = pool.submit(client.stub(Shelf).total, stdin)
        assert stdin.asked.wait(10)
        (reader,) = [thread for thread in threading.enumerate() if thread.name == "rpcfw-items"]
        assert reader.daemon  # so neither does the end of the process
        closing = threading.Thread(target=client.close)
        closing.start()
        closing.join(10)
        try:
            assert not closing.is_alive()
            with pytest.raises(rpcfw.RpcError) as caught:
                total.result(10)
            assert caught.value.code is rpcfw.Code.UNAVAILABLE
        finally:
            stdin.typed.set()
            closing.join(10)
            reader.join(10)
    assert not reader.is_alive()


def test_an_iterable_is_read_no_further_than_the_call_wants(client: rpcfw.BlockingClient) -> None:
    stdin = Stdin()
    assert client.stub(Shelf).first(stdin) == 1
    readers = [thread for thread in threading.enumerate() if thread.name == "rpcfw-items"]
    stdin.typed.set()
    for reader in readers:
        reader.join(10)
        assert not reader.is_alive()
    assert stdin.read <= 2


def test_closing_amid_the_start_of_a_call_does_not_leave_it_waiting(endpoint: str) -> None:
    client = rpcfw.blocking.connect(endpoint)
    client.stub(Shelf).add(1)
    starting, go_on = threading.Event(), threading.Event()

    async def never() -> None:
        await asyncio.Event().wait()

    def make() -> Coroutine[Any, Any, None]:
        starting.set()
        go_on.wait(10)
        return never()

    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(client.run, make)
        assert starting.wait(10)
        closing = pool.submit(client.close)
        with pytest.raises(TimeoutError):
            closing.result(0.05)  # it waits until the call has begun, however long that takes
        go_on.set()
        closing.result(10)
        with pytest.raises(rpcfw.RpcError, match="this client was closed") as caught:
            running.result(10)
    assert (caught.value.code, caught.value.executed) == (rpcfw.Code.UNAVAILABLE, None)


def test_a_stream_whose_client_is_closed_ends_with_an_error(endpoint: str) -> None:
    client = rpcfw.blocking.connect(endpoint)
    stream = client.stub(Shelf).count(10**9)
    assert next(stream) == 0
    client.close()
    with pytest.raises(rpcfw.RpcError) as caught:
        list(stream)
    assert caught.value.code is rpcfw.Code.UNAVAILABLE


def test_closing_a_client_on_its_own_loop_says_that_it_would_wait_for_itself(
    client: rpcfw.BlockingClient,
) -> None:
    async def close() -> None:
        client.close()

    with pytest.raises(rpcfw.RpcError, match="would wait for itself"):
        client.run(close)
    assert client.stub(Shelf).add(1) == 2


def test_an_interrupted_wait_cancels_the_call(client: rpcfw.BlockingClient, shelf: Shelf) -> None:
    async def call_and_be_interrupted() -> None:
        task = asyncio.ensure_future(client.client.stub(Shelf).wait())
        await asyncio.to_thread(shelf.waiting.wait, 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    client.run(call_and_be_interrupted)
    assert shelf.cancelled.wait(10)


def test_a_client_on_its_own_loop_says_that_it_would_wait_for_itself(client: rpcfw.BlockingClient) -> None:
    async def call() -> None:
        client.stub(Shelf).add(1)

    with pytest.raises(rpcfw.RpcError, match="would wait for itself"):
        client.run(call)


def test_after_a_fork_a_client_says_so_instead_of_hanging(client: rpcfw.BlockingClient) -> None:
    client.stub(Shelf).add(1)
    client._pid = os.getpid() + 1  # what a forked child sees
    try:
        with pytest.raises(rpcfw.RpcError, match="made before a fork"):
            client.stub(Shelf).add(1)
    finally:
        client._pid = os.getpid()


def test_unknown_arguments_are_told_by_name(client: rpcfw.BlockingClient) -> None:
    with pytest.raises(TypeError, match="has no parameter 'rihgt'"):
        client.stub(Shelf).add(1, rihgt=2)
