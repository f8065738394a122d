"""What a server serves, how much of it runs, and each call in progress: the data that its connections share."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import sys
from asyncio import Task
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from rpcfw.call import Call, Direct, Handler, Metadata, Middleware, chain, pack_metadata
from rpcfw.connection.method import MethodCodec
from rpcfw.connection.session import Session
from rpcfw.connection.streams import ItemReceiver, ItemSender
from rpcfw.errors import Code, RpcError
from rpcfw.wire.handshake import Hello


class Entry:
    """A method as a server serves it.

    Attributes:
        codec: its messages.
        handler: answers its calls, middleware included.
        function: the coroutine function to call, where nothing but that is to be done.
        is_plain: one message in, one message out, nothing to be seen to on the way.
        guarded: middleware stands before the handler and may refuse a call; `ServerExchange.begun` tells if it did.
    """

    __slots__ = ("codec", "decode_small", "encode", "function", "guarded", "handler", "is_plain", "spec")

    def __init__(self, codec: MethodCodec, handler: Handler, middleware: Sequence[Middleware] = ()) -> None:
        self.codec = codec
        self.guarded = bool(middleware)
        if middleware:
            handler = chain(middleware, _noting_begin(handler))
        self.handler = handler
        self.function = handler.function if isinstance(handler, Direct) else None
        self.is_plain = codec.is_plain
        self.spec = codec.spec
        self.decode_small = codec.arguments.decode_small
        self.encode = codec.result.encode


def _noting_begin(handler: Handler) -> Handler:
    """The handler, noting that it has been reached: what a middleware refuses before has surely never run."""

    def begin(call: Call) -> Awaitable[Any]:
        if isinstance(call.exchange, ServerExchange):
            call.exchange.begun = True
        return handler(call)

    return begin


@dataclasses.dataclass(slots=True)
class Load:
    """What all connections of a server share: what may run, and what runs now."""

    max_running: int
    dev: bool = False
    draining: bool = False
    running: int = 0
    served: int = 0
    refused: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """The methods of a server: by number as the handshake says, and by name for calls without a handshake.

    `plain` has those that are plain, by number.
    """

    entries: Sequence[Entry | None]
    by_name: Mapping[str, Entry]
    hello: Hello
    plain: dict[int, Entry] = dataclasses.field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.plain.update(
            (number, entry)
            for number, entry in enumerate(self.entries)
            if entry is not None and entry.is_plain
        )


class ServerExchange(msgspec.Struct, eq=False):
    """One call in progress, from its request to the end of its handler.

    Attributes:
        task: runs the handler, until it has ended.
        held: bytes taken from the memory budget for this call.
        silent: the client wants no reply any more.
        cancelled: the handler has been cancelled, which is done once.
        ended: the handler has ended.
        begun: the handler was reached; noted where middleware stands before it.
        orphaned: the link to the caller broke; it may come again with the same key.
    """

    session: Session
    codec: MethodCodec
    deadline: float
    task: Task[None] | None = None
    held: int = 0
    silent: bool = False
    cancelled: bool = False
    ended: bool = False
    begun: bool = False
    orphaned: bool = False
    reply_metadata: dict[str, str | bytes] | None = None
    receiver: ItemReceiver | None = None
    sender: ItemSender | None = None

    @property
    def peer(self) -> str:
        """The caller's address."""
        return self.session.peer_name

    def set_reply_metadata(self, metadata: Metadata) -> None:
        """Send these with the reply."""
        merged = {**(self.reply_metadata or {}), **metadata}
        size, limit = len(pack_metadata(merged)), self.session.outbox.limits.max_metadata_bytes
        if size > limit:
            raise RpcError(
                Code.RESOURCE_EXHAUSTED,
                f"reply metadata of {size:,} bytes is over the {limit:,} that the client accepts",
            )
        self.reply_metadata = merged


if sys.version_info >= (3, 12):
    # at once until the handler first waits: no trip through the loop when it never does
    start_task: Callable[..., Task[Any]] = functools.partial(Task, eager_start=True)
else:
    start_task: Callable[..., Task[Any]] = Task
"""Runs a handler: takes the coroutine, `loop` and `name`."""


def end_process(loop: asyncio.AbstractEventLoop, error: BaseException) -> None:
    """Raise what a handler ends the process with from the loop itself.

    An eager task begins within the read that brought its request, where uvloop takes whatever is raised for the end of
    that link alone.
    """
    loop.call_soon(_raise, error)


def _raise(error: BaseException) -> None:
    raise error


def task_starter(loop: asyncio.AbstractEventLoop) -> Callable[..., Task[Any]]:
    """How handlers are started on a loop: `start_task`, unless the loop brings its own way as simulated ones do."""
    starter: Callable[..., Task[Any]] = getattr(loop, "start_task", start_task)
    return starter
