"""Several load generators at once, each in a process of its own: a client in Python keeps one processor busy at most.

They warm up, wait for each other, and begin together. Each sends its tally now and then; this process adds them up. One
whose parent is gone ends by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import multiprocessing
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any

from rpcfw.cli.generator import Generator, Target
from rpcfw.cli.load import Plan, share
from rpcfw.cli.output import CommandError, Exit
from rpcfw.cli.run import loop_factory
from rpcfw.cli.tally import Tally, merged
from rpcfw.errors import Code, RpcError

_SETTLE_S = 5.0
"""How long a process may take to end after it was told to; then it is killed."""
_TELL_EVERY_S = 0.5
"""How often each tells how it goes: summing up takes a millisecond, which delays the calls of that moment."""
_GO, _STOP = "go", "stop"


class Fleet:
    """Generators in processes. Use it as ``with``; whatever happens, no process stays.

    Args:
        target: what they call.
        plan: what they do together.
        warm_up_s: for how long each calls beforehand.
        processes: how many there are.

    Attributes:
        interrupted: whether Ctrl-C ended it.
    """

    def __init__(self, target: Target, plan: Plan, warm_up_s: float, processes: int) -> None:
        self.interrupted = False
        self._tallies: dict[Connection, Tally] = {}
        self._processes: list[SpawnProcess] = []
        context = multiprocessing.get_context("spawn")
        # They inherit that it is ignored: a terminal sends it to all, and this process decides.
        self._handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            for part in share(plan, processes):
                ours, theirs = context.Pipe()
                arguments = (target, part, warm_up_s, theirs)
                process = context.Process(target=_generate, args=arguments, name="rpcfw-bench", daemon=True)
                process.start()
                theirs.close()
                self._processes.append(process)
                self._tallies[ours] = Tally()
        finally:
            signal.signal(signal.SIGINT, self._interrupt)

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._handler)
        for link in self._tallies:
            link.close()
        for process in self._processes:
            process.join(_SETTLE_S)
            process.kill()
            process.join()

    def run(self, tell: Callable[[Tally], None], every_s: float) -> Tally:
        """Wait for all of them. Ctrl-C ends them, and what was measured so far is the result.

        Args:
            tell: is given the sum so far,
            every_s: so often.

        Raises:
            RpcError, CommandError: one of them could not do it.
        """
        waiting, ready, told_s = set(self._tallies), 0, math.inf
        while waiting:
            for link in wait(list(waiting), every_s):
                assert isinstance(link, Connection)
                kind, content = _received(link)
                if kind == "ready":
                    ready += 1
                    if ready == len(self._tallies):
                        told_s = time.monotonic()
                        self._send(_GO)
                elif kind == "failed":
                    raise _error(*content)
                else:
                    self._tallies[link] = content
                    waiting -= {link} if kind == "done" else set()
            now_s = time.monotonic()
            if now_s - told_s >= every_s:
                told_s = now_s
                tell(merged(self._tallies.values()))
        return merged(self._tallies.values())

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        self._send(_STOP)

    def _send(self, word: str) -> None:
        for link in self._tallies:
            with contextlib.suppress(OSError):  # it has ended
                link.send(word)


def _received(link: Connection) -> tuple[str, Any]:
    try:
        kind, content = link.recv()
    except (EOFError, OSError):
        return "failed", ("a process of rpcfw bench ended before its time; was it killed?", None, Exit.FAILED)
    return kind, content


def _error(message: str, code: Code | None, exit_code: Exit) -> Exception:
    return CommandError(message, exit_code) if code is None else RpcError(code, message)


def _generate(target: Target, plan: Plan, warm_up_s: float, link: Connection) -> None:
    """The life of one process."""
    message: tuple[str, Any]
    try:
        with asyncio.Runner(loop_factory=loop_factory(None)) as runner:
            message = ("done", runner.run(_measured(target, plan, warm_up_s, link)))
    except RpcError as error:
        message = ("failed", (error.message, error.code, Exit.FAILED))
    except CommandError as error:
        message = ("failed", (str(error), None, error.code))
    except Exception as error:
        message = ("failed", (f"{type(error).__name__}: {error}", None, Exit.FAILED))
    with contextlib.suppress(OSError):  # the parent is gone
        link.send(message)


async def _measured(target: Target, plan: Plan, warm_up_s: float, link: Connection) -> Tally:
    loop, go = asyncio.get_running_loop(), asyncio.Event()

    async with Generator(target, plan) as generator:

        def heard() -> None:
            try:
                word = link.recv()
            except (EOFError, OSError):
                loop.remove_reader(link.fileno())
                word = _STOP
            if word == _STOP:
                generator.stop()
            go.set()

        def tell(tally: Tally) -> None:
            with contextlib.suppress(OSError):
                link.send(("tally", tally))

        loop.add_reader(link.fileno(), heard)
        try:
            await generator.warm_up(warm_up_s)
            link.send(("ready", None))
            await go.wait()
            return await generator.measure(tell, _TELL_EVERY_S)
        finally:
            loop.remove_reader(link.fileno())
