"""Forking: a call is made at several nodes at once, and the first success counts.

It buys latency with load: each call costs several. `Hedge` is the frugal way; this is Dubbo's cluster strategy of the
same name.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from rpcfw.call import Call, Handler, Route
from rpcfw.errors import RpcError
from rpcfw.interface import CallKind
from rpcfw.mistakes import check_number


class Forking:
    """Middleware of clients that makes each call several times, at nodes that differ as far as there are enough.

    The first attempt that succeeds wins, and the others are cancelled and their servers told. When all fail, an answer
    (a declared error) is raised rather than an `RpcError`, else what failed first. Only unary calls, and of these only
    methods that are declared idempotent unless told; all others pass untouched, as do calls that are pinned to one node
    or meant for all of them.

    Args:
        forks: attempts of each call, at least 2.
        only_idempotent: False makes copies of every unary call.
    """

    def __init__(self, forks: int = 2, *, only_idempotent: bool = True) -> None:
        check_number(forks, "forks")
        if forks < 2:
            raise ValueError(f"forks={forks} must be at least 2")
        self._forks = forks
        self._only_idempotent = only_idempotent
        self._ending: set[asyncio.Task[Any]] = set()

    def __call__(self, handler: Handler) -> Handler:
        """Wrap a handler."""

        async def fork(call: Call) -> Any:
            method, route = call.method, call.route
            if method.kind is not CallKind.UNARY or (self._only_idempotent and not method.idempotent):
                return await handler(call)
            if route is None:
                call = msgspec.structs.replace(call, route=Route())  # shared, so that each goes elsewhere
            elif route.every or route.pinned is not None:
                return await handler(call)
            attempts = [self._start(handler, call) for _ in range(self._forks)]
            try:
                return await _first(attempts, call)
            finally:
                for task, _ in attempts:
                    task.cancel()
                attempts.clear()  # errors hold the frames they have passed, which hold this list

        return fork

    def _start(self, handler: Handler, call: Call) -> _Fork:
        metadata: dict[str, str | bytes] | None = None
        if call.reply_metadata is not None:  # only the winner's is to be seen
            metadata = {}
            call = msgspec.structs.replace(call, reply_metadata=metadata)
        task = asyncio.get_running_loop().create_task(_attempt(handler, call))
        self._ending.add(task)  # losers end by themselves, but somebody has to hold them
        task.add_done_callback(self._ended)
        return task, metadata

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._ending.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be waiting for it any more


_Fork = tuple["asyncio.Task[Any]", dict[str, str | bytes] | None]


async def _first(attempts: list[_Fork], call: Call) -> Any:
    """The result of the first that succeeds; when all fail, the error that says most."""
    running = {task for task, _ in attempts}
    while running:
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task, metadata in attempts:
            if task in done and not task.cancelled() and task.exception() is None:
                if call.reply_metadata is not None and metadata is not None:
                    call.reply_metadata.update(metadata)
                return task.result()
    return _most_telling(attempts).result()


def _most_telling(attempts: list[_Fork]) -> asyncio.Task[Any]:
    for task, _ in attempts:
        if not task.cancelled() and not isinstance(task.exception(), RpcError):
            return task
    return attempts[0][0]


async def _attempt(handler: Handler, call: Call) -> Any:
    return await handler(call)
