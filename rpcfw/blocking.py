"""The client for code that is not asynchronous: scripts, notebooks, synchronous web applications.

A client's event loop runs in a thread of its own; its stubs may be used from any number of threads. Each call waits
for its result there and costs two switches of threads, so asynchronous code should use the asynchronous stubs.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import os
import queue
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from rpcfw.balancer import Balancer
from rpcfw.call import Metadata, Middleware, Route
from rpcfw.client import DEFAULT_TIMEOUT_S, Client
from rpcfw.client import connect as connect_async
from rpcfw.cluster.options import ClusterOptions
from rpcfw.connection.channel import ConnectionOptions
from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, Origin, RpcError
from rpcfw.interface import MethodSpec, ServiceSpec, spec_of
from rpcfw.registry import Registry
from rpcfw.stub import Stub, bind_arguments
from rpcfw.transport import Transport

T = TypeVar("T")

_PREFETCHED_ITEMS = 256


class BlockingClient:
    """A client whose loop runs in a thread of its own, started at the first call. Use it as ``with``.

    Safe for many threads. After a fork, make a new one in the child: threads do not survive a fork.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def stub(self, interface: type) -> Any:
        """A blocking stub of an interface without a generated file. Generate one to have its methods typed."""
        return _stub_class(interface)(self)

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on the client's loop and wait for it. Interrupting the wait (Ctrl-C) cancels it."""
        return self.result(self.start(make))

    def start(self, make: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        """Run a coroutine on the client's loop. Raises RpcError where waiting for it could never end."""
        with self._lock:  # so that it has begun before `close` ends what has
            loop = self._running_loop()
            return asyncio.run_coroutine_threadsafe(make(), loop)

    def result(self, future: Future[T]) -> T:
        """Wait for what `start` has begun. Raises RpcError UNAVAILABLE when the client is closed meanwhile."""
        try:
            return future.result()
        except CancelledError:
            if self._closed:
                raise RpcError(Code.UNAVAILABLE, "this client was closed", origin=Origin.CONNECTION) from None
            raise
        except BaseException:
            future.cancel()
            raise

    def loop(self) -> asyncio.AbstractEventLoop:
        """The client's loop, started if need be. Raises RpcError where waiting for it could never end."""
        with self._lock:
            return self._running_loop()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if os.getpid() != self._pid:
            raise _misused("this client was made before a fork; make one in each process")
        if self._closed:
            raise _misused("this client is closed; make a new one")
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._run_loop, args=(self._loop,), name="rpcfw-client", daemon=True
            )
            self._thread.start()
        if threading.current_thread() is self._thread:
            raise _misused("a blocking call on the client's own loop would wait for itself")
        return self._loop

    def close(self) -> None:
        """Close the connections and end the thread. Calls in progress fail with UNAVAILABLE. May be called again.

        An iterable that blocks while a call reads from it is left alone, in its thread, which ends with the process.
        """
        if threading.current_thread() is self._thread:
            raise _misused("closing a client on its own loop would wait for itself")
        with self._lock:
            loop, thread, self._closed = self._loop, self._thread, True
            self._loop = self._thread = None
        if loop is not None and thread is not None and os.getpid() == self._pid:
            asyncio.run_coroutine_threadsafe(self.client.close(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @staticmethod
    def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()
        while left := asyncio.all_tasks(loop):
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())


class BlockingStub:
    """Base of generated blocking stubs. Cheap to make, safe for many threads at a time."""

    service: ClassVar[ServiceSpec]

    def __init__(self, client: BlockingClient) -> None:
        self._client = client
        self._stub = Stub(client.client)

    def with_options(
        self,
        *,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
        reply_metadata: dict[str, str | bytes] | None = None,
        route: Route | None = None,
    ) -> Self:
        """A copy of this stub whose calls carry these options; see `Stub.with_options`."""
        stub = copy.copy(self)
        stub._stub = self._stub.with_options(
            timeout_s=timeout_s, metadata=metadata, reply_metadata=reply_metadata, route=route
        )
        return stub

    def _call(self, method: MethodSpec, arguments: tuple[Any, ...]) -> T:  # type: ignore[type-var]  # from the context
        """Make a call and wait for its result."""

        async def call() -> Any:
            return await self._stub._call(method, _with_async_stream(method, arguments))

        result: T = self._client.run(call)
        return result

    def _stream(self, method: MethodSpec, arguments: tuple[Any, ...]) -> Iterator[T]:  # pyright: ignore[reportInvalidTypeVarUse]
        """Make a call whose reply is a stream; a few items are fetched ahead of the caller."""
        pipe = _Pipe(self._client.loop())

        async def fill() -> None:
            await pipe.fill(self._stub._stream(method, _with_async_stream(method, arguments)))

        filling = self._client.start(fill)
        filling.add_done_callback(lambda _: pipe.end())
        try:
            yield from pipe.drain()
            self._client.result(filling)
        finally:
            filling.cancel()


class _Pipe:
    """Items on their way from the loop to a waiting thread, a bounded number of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: deque[Any] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._room = asyncio.Event()

    async def fill(self, items: AsyncIterator[Any]) -> None:
        """On the loop: put items in until they end, waiting while there is no room."""
        async for item in items:
            with self._changed:
                self._items.append(item)
                full = len(self._items) >= _PREFETCHED_ITEMS
                self._changed.notify()
            if full:
                self._room.clear()
                await self._room.wait()

    def end(self) -> None:
        """From any thread: nothing more comes."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def drain(self) -> Iterator[Any]:
        """In the thread: take items out until they end."""
        while True:
            with self._changed:
                while not self._items and not self._ended:
                    self._changed.wait()
                items, self._items = self._items, deque()
            if not items:
                return
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for room
                self._loop.call_soon_threadsafe(self._room.set)
            yield from items


def _with_async_stream(method: MethodSpec, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        _iterate(argument) if parameter.is_stream and not hasattr(argument, "__aiter__") else argument
        for parameter, argument in zip(method.parameters, arguments, strict=True)
    )


async def _iterate(items: Iterable[Any]) -> AsyncIterator[Any]:
    """A plain iterable as an async one, read in a thread of its own, since it may block."""
    loop, end = asyncio.get_running_loop(), object()
    wanted: queue.SimpleQueue[asyncio.Future[Any] | None] = queue.SimpleQueue()
    reader = threading.Thread(
        target=_read, args=(iter(items), end, wanted, loop), name="rpcfw-items", daemon=True
    )
    reader.start()
    try:
        while True:
            asked = loop.create_future()
            wanted.put(asked)
            item = await asked
            if item is end:
                return
            yield item
    finally:
        wanted.put(None)


def _read(
    items: Iterator[Any],
    end: object,
    wanted: queue.SimpleQueue[asyncio.Future[Any] | None],
    loop: asyncio.AbstractEventLoop,
) -> None:
    """In the thread: an item each time one is wanted. A daemon, so that an item that never comes holds nobody up."""
    while (asked := wanted.get()) is not None:
        item, error = end, None
        try:
            item = next(items, end)
        except BaseException as raised:
            error = raised
        try:
            loop.call_soon_threadsafe(_settle, asked, item, error)
        except RuntimeError:  # the loop is closed
            return


def _settle(asked: asyncio.Future[Any], item: Any, error: BaseException | None) -> None:
    if asked.done():
        return
    if error is None:
        asked.set_result(item)
    else:
        asked.set_exception(error)


def _misused(message: str) -> RpcError:
    return RpcError(Code.FAILED_PRECONDITION, message, executed=False)


@functools.lru_cache(maxsize=1024)
def _stub_class(interface: type) -> type[BlockingStub]:
    spec = spec_of(interface)
    methods = {method.attribute: _method(method) for method in spec.methods.values()}
    return type(
        f"{interface.__name__}BlockingStub",
        (BlockingStub,),
        {"service": spec, "__doc__": spec.doc, **methods},
    )


def _method(method: MethodSpec) -> Callable[..., Any]:
    make = BlockingStub._stream if method.kind.streams_out else BlockingStub._call

    def call(self: BlockingStub, *arguments: Any, **named: Any) -> Any:
        return make(self, method, bind_arguments(method, arguments, named))

    call.__name__ = method.attribute
    call.__doc__ = method.doc
    return call


def connect(
    *servers: str | Endpoint | Registry,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
    balancer: Balancer | None = None,
    middleware: Sequence[Middleware] | None = None,
    options: ConnectionOptions | None = None,
    transports: Mapping[str, Transport] | None = None,
    cluster: ClusterOptions | None = None,
) -> BlockingClient:
    """A blocking client of the given servers; the arguments are those of `rpcfw.connect`.

    with rpcfw.blocking.connect("tcp://127.0.0.1:7000") as client:
        orders = OrdersBlockingStub(client)
    """
    return BlockingClient(
        connect_async(
            *servers,
            timeout_s=timeout_s,
            balancer=balancer,
            middleware=middleware,
            options=options,
            transports=transports,
            cluster=cluster,
        )
    )
