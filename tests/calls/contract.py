"""The interface that the suite of calls is about, and an implementation that tells what it does.

Four methods, one of each kind of call, all play the same `Step`; the others are for one matter each.
"""

from __future__ import annotations

import asyncio
import enum
import os
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol, cast

import rpcfw
from rpcfw import CallKind, Code, RpcError, ServiceError
from tests.calls.place import Diary

KINDS = list(CallKind)


class Step(enum.Enum):
    """What a handler does, after two items where there is a stream."""

    SUCCEED = "succeed"
    DECLARED = "declared"
    UNDECLARED = "undeclared"
    REFUSE = "refuse"
    WAIT = "wait"


class OutOfStock(ServiceError):
    """Declared, with fields."""

    sku: str
    left: int
    price: Decimal = Decimal(0)
    restock: datetime | None = None


class Closed(Exception):
    """Declared, of the plain sort."""


OUT_OF_STOCK = OutOfStock("pen", 2, Decimal("1.50"), datetime(2026, 5, 1, tzinfo=UTC))


@rpcfw.service("tests.Contract", version="1.2")
class Contract(Protocol):
    """Everything a call can be."""

    @rpcfw.method(raises=[OutOfStock, Closed])
    async def one(self, step: Step) -> int: ...

    @rpcfw.method(raises=[OutOfStock, Closed])
    def out(self, step: Step) -> AsyncIterator[int]: ...

    @rpcfw.method(raises=[OutOfStock, Closed])
    async def into(self, step: Step, numbers: AsyncIterator[int]) -> int: ...

    @rpcfw.method(raises=[OutOfStock, Closed])
    def both(self, step: Step, numbers: AsyncIterator[int]) -> AsyncIterator[int]: ...

    async def add(self, a: int, b: int = 10, *, scale: int = 1, label: str | None = None) -> str: ...

    async def nothing(self) -> None: ...

    @rpcfw.method(raises=[Closed])
    async def closed(self, why: str) -> None: ...

    async def wrong(self, what: str) -> list[int]: ...

    def wrong_items(self) -> AsyncIterator[int]: ...

    async def details(self, what: str) -> int: ...

    async def metadata(self, size: int = 0) -> dict[str, str]: ...

    async def blob(self, data: bytes) -> bytes: ...

    def flood(self, size: int) -> AsyncIterator[bytes]: ...

    def blobs(self, sizes: list[int]) -> AsyncIterator[bytes]: ...

    async def swallow(self, taken: int, chunks: AsyncIterator[bytes]) -> int: ...

    async def first(self, count: int, numbers: AsyncIterator[int]) -> list[int]: ...

    async def upload(self, head: bytes, chunks: AsyncIterator[bytes]) -> int: ...

    def mirror(self, blobs: AsyncIterator[bytes]) -> AsyncIterator[bytes]: ...

    async def mend_slowly(self) -> None: ...

    @rpcfw.method(oneway=True)
    async def tell(self, text: str) -> None: ...

    @rpcfw.method(oneway=True)
    async def send(self, data: bytes) -> None: ...

    @rpcfw.method(oneway=True)
    async def tell_slowly(self, text: str) -> None: ...

    @rpcfw.method(offload="thread")
    def in_thread(self, word: str) -> str: ...


class Service(Contract):
    """Plays the steps, and keeps a diary of them.

    Attributes:
        gate: what a waiting handler waits for.
        mending: what a handler waits for that has been cancelled and tidies up.
        thread_gate: what a handler in a thread waits for.
    """

    def __init__(self) -> None:
        self.diary = Diary()
        self.gate = asyncio.Event()
        self.mending = asyncio.Event()
        self.thread_gate = threading.Event()
        self.told: list[str] = []

    async def _play(self, step: Step) -> None:
        self.diary.note("started")
        if step is Step.DECLARED:
            raise OUT_OF_STOCK
        if step is Step.UNDECLARED:
            raise ZeroDivisionError("secret of the server")
        if step is Step.REFUSE:
            raise RpcError(Code.PERMISSION_DENIED, "not you", {"who": "ada", "tries": [1, 2]})
        if step is Step.WAIT:
            await self._wait()

    async def _wait(self) -> None:
        self.diary.note("waiting")
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.diary.note("cancelled")
            raise
        finally:
            self.diary.note("ended")

    async def one(self, step: Step) -> int:
        await self._play(step)
        return 3

    async def out(self, step: Step) -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
            await self._play(step)
            yield 3
        finally:
            self.diary.note("closed")

    async def into(self, step: Step, numbers: AsyncIterator[int]) -> int:
        total = seen = 0
        async for number in numbers:
            total, seen = total + number, seen + 1
            if seen == 2:
                await self._play(step)
        return total

    async def both(self, step: Step, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        seen = 0
        try:
            async for number in numbers:
                yield number * 2
                seen += 1
                if seen == 2:
                    await self._play(step)
        finally:
            self.diary.note("closed")

    async def add(self, a: int, b: int = 10, *, scale: int = 1, label: str | None = None) -> str:
        return f"{label}: {(a + b) * scale}"

    async def nothing(self) -> None:
        self.diary.note("nothing")

    async def closed(self, why: str) -> None:
        raise Closed(why, 7)

    async def wrong(self, what: str) -> list[int]:
        return cast(list[int], {"type": [1, 2, "three"], "travel": [1, object()]}[what])

    async def wrong_items(self) -> AsyncIterator[int]:
        yield 1
        yield cast(Any, "two")

    async def details(self, what: str) -> int:
        odd = {
            "object": object(),
            "number": 1 << 70,
            "date": datetime(2026, 1, 1, tzinfo=UTC),
            "text": "\ud800",
        }
        raise RpcError(Code.NOT_FOUND, "odd details", {"value": odd[what]})

    async def metadata(self, size: int = 0) -> dict[str, str]:
        call = rpcfw.current_call()
        rpcfw.set_reply_metadata({"first": "1", "twice": "no"})
        rpcfw.set_reply_metadata(
            {"twice": "yes", "blob": b"\x00\xff", **({"big": "x" * size} if size else {})}
        )
        return {k: v if isinstance(v, str) else v.hex() for k, v in call.metadata.items()}

    async def blob(self, data: bytes) -> bytes:
        return data

    async def flood(self, size: int) -> AsyncIterator[bytes]:
        try:
            while True:
                self.diary.note("produced")
                yield bytes(size)
                await asyncio.sleep(0)
        finally:
            self.diary.note("closed")

    async def blobs(self, sizes: list[int]) -> AsyncIterator[bytes]:
        for number, size in enumerate(sizes):
            yield bytes([number % 256]) * size

    async def swallow(self, taken: int, chunks: AsyncIterator[bytes]) -> int:
        total = seen = 0
        async for chunk in chunks:
            total, seen = total + len(chunk), seen + 1
            if seen == taken:
                await self._wait()
        return total

    async def first(self, count: int, numbers: AsyncIterator[int]) -> list[int]:
        taken: list[int] = []
        async for number in numbers:
            taken.append(number)
            if len(taken) == count:
                break
        return taken

    async def upload(self, head: bytes, chunks: AsyncIterator[bytes]) -> int:
        total = len(head)
        async for chunk in chunks:
            total += len(chunk)
        return total

    async def mirror(self, blobs: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for blob in blobs:
            yield blob

    async def mend_slowly(self) -> None:
        try:
            await self._wait()
        finally:
            self.diary.note("mending")
            try:
                await self.mending.wait()
                self.diary.note("mended")
            except asyncio.CancelledError:
                self.diary.note("disturbed")
                raise

    async def tell(self, text: str) -> None:
        self.told.append(text)
        self.diary.note("told")

    async def send(self, data: bytes) -> None:
        self.told.append(f"{len(data)} bytes")
        self.diary.note("told")

    async def tell_slowly(self, text: str) -> None:
        self.diary.note("telling")
        await self._wait()
        await self.tell(text)

    def in_thread(self, word: str) -> str:
        self.diary.note("in thread")
        assert self.thread_gate.wait(10)
        who = rpcfw.current_call().metadata.get("who", "nobody")
        return f"{word} {who!s} {threading.current_thread().name}"


@rpcfw.service("tests.Computing")
class Computing:
    """Computes in a process of its own, which makes another of these."""

    def __init__(self) -> None:
        self.here = os.getpid()

    @rpcfw.method(offload="process", raises=[OutOfStock])
    def divide(self, a: int, b: int, *, scale: int = 1) -> tuple[int, int]:
        """The quotient, and the process that computed it."""
        if a < 0:
            raise OUT_OF_STOCK
        return a // b * scale, os.getpid()


async def numbers(*values: int) -> AsyncIterator[int]:
    """A stream of the caller's own."""
    for value in values:
        yield value


async def call(
    stub: Contract,
    kind: CallKind,
    step: Step,
    *values: int,
    source: AsyncIterator[int] | None = None,
    got: list[int] | None = None,
) -> list[int]:
    """Make the call of that kind; all items of the reply, which `got` has also when the call fails."""
    got = [] if got is None else got
    source = source or numbers(*(values or (1, 2, 3)))
    if kind is CallKind.UNARY:
        got.append(await stub.one(step))
    elif kind is CallKind.CLIENT_STREAM:
        got.append(await stub.into(step, source))
    else:
        async for number in stub.out(step) if kind is CallKind.SERVER_STREAM else stub.both(step, source):
            got.append(number)
    return got


SUCCESS = {
    CallKind.UNARY: [3],
    CallKind.SERVER_STREAM: [1, 2, 3],
    CallKind.CLIENT_STREAM: [6],
    CallKind.BIDIRECTIONAL: [2, 4, 6],
}
"""What a call that succeeds gives."""
BEFORE_THE_STEP = {
    CallKind.UNARY: [],
    CallKind.SERVER_STREAM: [1, 2],
    CallKind.CLIENT_STREAM: [],
    CallKind.BIDIRECTIONAL: [2, 4],
}
"""What has come before the handler plays its step."""
