"""Callers that ask the workload's questions for a while, and what came of it: the client side of the demo.

A call that breaks in its middle is asked again by the caller, as an application would, and counted as such; what
rpcfw repeats by itself is counted apart. Processes and tables are elsewhere.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import math
from array import array
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import msgspec

import rpcfw
from examples.search.stubs import SearchStub
from examples.search.workload import Question

TIMEOUT_S = 10.0
TIMES_ASKED = 3
PAUSE_S = 0.02
"""Between two calls of a caller: the servers are busy, and a machine with two cores is not choked by them."""


class Attempts:
    """Middleware that counts how often each method is tried; put it below the retry."""

    def __init__(self) -> None:
        self.by_method: Counter[str] = Counter()

    def __call__(self, handler: rpcfw.Handler) -> rpcfw.Handler:
        def count(call: rpcfw.Call) -> Any:
            self.by_method[call.method.name] += 1
            return handler(call)

        return count


@dataclasses.dataclass(slots=True)
class MethodStatistics:
    """What came of the calls of one method.

    Attributes:
        calls: as the callers see them; repetitions are not counted.
        asked_again: how often a caller had to ask again because a call broke in its middle.
        failed: calls that gave no answer, or a wrong one.
        bytes_out: of the messages sent, as they are encoded.
        bytes_back: of the messages received.
        latencies_ms: of all calls that were answered, repetitions included.
    """

    calls: int = 0
    asked_again: int = 0
    failed: int = 0
    bytes_out: int = 0
    bytes_back: int = 0
    latencies_ms: array[float] = dataclasses.field(default_factory=lambda: array("d"))


@dataclasses.dataclass(slots=True)
class Turn:
    """Who answered the calls that began in one part of the demo, and how quickly.

    Attributes:
        by_node: answers by the name of the server.
        latencies_ms: of these calls.
        seconds: how long the part was; 0 while it goes on.
    """

    by_node: Counter[str] = dataclasses.field(default_factory=Counter)
    latencies_ms: array[float] = dataclasses.field(default_factory=lambda: array("d"))
    seconds: float = 0.0


class Traffic:
    """A number of callers, each of which asks all questions in turn, over and over.

    Attributes:
        by_method: what came of the calls.
        turn: takes note of the calls that begin now; None: nobody does.
        problems: of the calls that failed, in words.
    """

    def __init__(self, stub: SearchStub, questions: Sequence[Question], callers: int) -> None:
        self._stub = stub
        self._questions = questions
        self._callers = callers
        self._stopping = False
        self._recent: deque[tuple[float, str]] = deque()
        self._awaited: list[tuple[str, float, asyncio.Future[None]]] = []
        self.by_method = {question.method.name: MethodStatistics() for question in questions}
        self.turn: Turn | None = None
        self.problems: list[str] = []

    @property
    def calls(self) -> int:
        """All that have ended."""
        return sum(statistics.calls for statistics in self.by_method.values())

    @property
    def asked_again(self) -> int:
        """How often a caller had to ask again."""
        return sum(statistics.asked_again for statistics in self.by_method.values())

    @property
    def failed(self) -> int:
        """Calls that failed."""
        return sum(statistics.failed for statistics in self.by_method.values())

    async def run(self) -> None:
        """Ask until `stop`. Ends when the last call has ended."""
        async with asyncio.TaskGroup() as callers:
            for nth in range(self._callers):
                callers.create_task(self._ask_in_turn(nth * len(self._questions) // self._callers))

    def stop(self) -> None:
        """Begin no more calls."""
        self._stopping = True

    def last_second(self) -> Counter[str]:
        """How many calls each server answered in the last second."""
        recent, since = self._recent, asyncio.get_running_loop().time() - 1.0
        while recent and recent[0][0] < since:
            recent.popleft()
        return Counter(node for _, node in recent)

    async def answer_of(self, node: str) -> None:
        """Wait for a server's first answer to a call that begins from now on."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[None] = loop.create_future()
        self._awaited.append((node, loop.time(), answered))
        await answered

    async def ask(self, question: Question) -> None:
        """Ask once, repeat what broke where that does no harm, and count what came of it."""
        statistics, turn = self.by_method[question.method.name], self.turn
        about: dict[str, str | bytes] = {}
        stub = self._stub.with_options(timeout_s=TIMEOUT_S, reply_metadata=about)
        loop = asyncio.get_running_loop()
        start = loop.time()
        replies = await self._replies(question, stub, statistics)
        took_s = loop.time() - start
        statistics.calls += 1
        if replies is None:
            statistics.failed += 1
            return
        problem = question.problem(replies)
        if problem:
            statistics.failed += 1
            self.problems.append(problem)
        statistics.latencies_ms.append(took_s * 1000)
        statistics.bytes_out += encoded_bytes(question.sent)
        statistics.bytes_back += encoded_bytes(replies)
        node = str(about.get("node", "?"))
        if turn is not None:
            turn.by_node[node] += 1
            turn.latencies_ms.append(took_s * 1000)
        self._answered(node, start)

    async def _ask_in_turn(self, first: int) -> None:
        for question in itertools.islice(itertools.cycle(self._questions), first, None):
            if self._stopping:
                return
            await self.ask(question)
            await asyncio.sleep(PAUSE_S)

    async def _replies(
        self, question: Question, stub: SearchStub, statistics: MethodStatistics
    ) -> list[Any] | None:
        """All messages of the answer; None when the call failed.

        rpcfw has repeated already what it may: idempotent calls before their first item. This caller knows more:
        asking for all hits again, or uploading the same files again, does no harm. It asks elsewhere then.
        """
        tried: list[str] = []
        for left in reversed(range(TIMES_ASKED)):
            replies = []
            try:
                async for reply in question.ask(stub):
                    replies.append(reply)  # noqa: PERF401  a stream that breaks leaves its first items
            except rpcfw.RpcError as error:
                broke_in_its_middle = bool(replies) or question.method.kind.streams_in
                if error.code is rpcfw.Code.UNAVAILABLE and broke_in_its_middle and left:
                    statistics.asked_again += 1
                    tried.append(error.endpoint)
                    route = rpcfw.Route()
                    route.tried += tried
                    stub = stub.with_options(route=route)
                    continue
                self.problems.append(f"{question.method.name}: {error}")
                return None
            return replies
        return None

    def _answered(self, node: str, began: float) -> None:
        self._recent.append((asyncio.get_running_loop().time(), node))
        for awaited, since, answered in self._awaited:
            if awaited == node and began >= since and not answered.done():
                answered.set_result(None)
        self._awaited = [waiting for waiting in self._awaited if not waiting[2].done()]


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile; not a number without any values."""
    ordered = sorted(values)
    return ordered[math.ceil(percent / 100 * len(ordered)) - 1] if ordered else math.nan


def encoded_bytes(messages: Sequence[Any]) -> int:
    """The size of messages as they travel, without the frames around them."""
    return sum(len(msgspec.msgpack.encode(message)) for message in messages)
