"""Mutated frames through the whole of both ends: `python tests/fuzz/frames.py --frames 1000000 --seed 7`.

Real connections with fake links: parsing, handshake, validation, handlers, streams, replies. What counts is what must
never happen: an exception that escapes, a frame that hangs, a handler or a call left over, memory that grows.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import functools
import gc
import logging
import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

if not __package__:
    sys.path.insert(0, str(Path(__file__).parents[2]))

import rpcfw
from rpcfw.call import Call, Handler
from rpcfw.connection.client import ClientConnection
from rpcfw.connection.datagram import DatagramServer
from rpcfw.connection.resources import Resources
from rpcfw.stub import make_stub
from rpcfw.wire.frames import REFUSED
from rpcfw.wire.handshake import Settings
from rpcfw.wire.reader import Budget
from tests.fuzz.mutation import LARGE_BYTES, Conversation, Mutator
from tests.fuzz.services import CALLS, EXPECTED, Streams, Unary
from tests.wire.ends import CLIENT, QUIET, SERVER, Ends, serve
from tests.wire.links import FakeLink, parse, split, turn

HANG_S = 5.0
"""What one frame may take. A bomb that is not refused at once takes longer."""
MEMORY_LIMIT_MB = 50.0
WARM_UP = 0.02
"""The share of the run after which memory is measured: pools and caches have filled by then."""
CLIENT_SHARE, DATAGRAM_SHARE = 0.25, 0.05
TIGHT = dataclasses.replace(
    QUIET,
    max_running=8,
    max_memory_bytes=400_000,
    connection=Settings(
        max_message_bytes=300_000, max_assemblies=2, max_streams=4, max_metadata_bytes=64, window_bytes=500
    ),
)
"""Limits that every conversation runs into."""
_MB = 1 << 20

Recorded = tuple[Mapping[str, Conversation], Mapping[str, Conversation]]
"""The frames of clients and those of servers, by what was called."""


class Hung(BaseException):
    """A frame took longer than `HANG_S`."""


class Findings:
    """What went wrong, each kind once with an example to replay."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.kinds: Counter[str] = Counter()
        self.frames = 0
        self.connection = 0

    def add(self, what: str, error: BaseException | None = None) -> None:
        """One more. Printed in full the first time its kind is seen."""
        kind = what
        if error is not None:
            frames = traceback.extract_tb(error.__traceback__)
            where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
            kind = f"{what}: {type(error).__name__}{where}"
        self.kinds[kind] += 1
        if self.kinds[kind] == 1:
            print(
                f"\nFOUND {kind} (seed {self.seed}, connection {self.connection}, frame {self.frames:,})",
                flush=True,
            )
            if error is not None:
                print("".join(traceback.format_exception(error)[-12:]), flush=True)

    @property
    def total(self) -> int:
        return sum(self.kinds.values())


class ErrorLog(logging.Handler):
    """The services raise nothing unexpected, so a logged error is a fault of rpcfw that surfaced in a handler."""

    def __init__(self, findings: Findings) -> None:
        super().__init__(logging.ERROR)
        self.findings = findings

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.findings.add(
            f"logged: {record.getMessage()[:60]}" if error is None else "raised into a handler", error
        )


class Fuzzer:
    """One run."""

    def __init__(self, frames: int, seed: int, findings: Findings, recorded: Recorded) -> None:
        self.frames = frames
        self.recorded = recorded
        self.findings = findings
        self.rng = random.Random(seed)
        self.servers = [
            serve(Unary(), Streams(), limits=limits, middleware=[self._count]) for limits in (QUIET, TIGHT)
        ]
        self.served = 0
        self.refused = 0
        self.budget = Budget(1 << 29)
        self.resources = Resources(self.budget)
        self.baseline = 0
        self.peak = 0

    async def run(self) -> None:
        """Feed frames until there were enough."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._escaped)
        asked, answered = self.recorded
        to_server, to_client = Mutator(asked, self.rng), Mutator(answered, self.rng)
        for talk in asked.values():
            await self._serve([*talk])
        started, shown = time.perf_counter(), 0
        while self.findings.frames < self.frames:
            self.findings.connection += 1
            road = self.rng.random()
            if road < DATAGRAM_SHARE:
                await self._send(to_server)
            elif road < DATAGRAM_SHARE + CLIENT_SHARE:
                await self._call(to_client)
            else:
                await self._serve(to_server.conversation(), to_server)
            if self.findings.frames >= self.frames * WARM_UP and not self.baseline:
                self.baseline = self.peak = resident_bytes()
            if self.findings.frames - shown >= max(1000, self.frames // 50):
                shown = self.findings.frames
                self._progress(started)
        for server in self.servers:
            await server.close()
        await turn(5)
        gc.collect()
        await turn(2)

    @property
    def growth_mb(self) -> float:
        """How much more memory is resident at most, after collecting, than after the warm-up."""
        return (self.peak - self.baseline) / _MB

    def _progress(self, started: float) -> None:
        gc.collect()
        if self.baseline:
            self.peak = max(self.peak, resident_bytes())
        done, elapsed = self.findings.frames, time.perf_counter() - started
        print(
            f"\r{done:>11,} frames  {self.findings.connection:,} connections  {done / elapsed:,.0f}/s  "
            f"findings {self.findings.total}  memory {self.growth_mb:+.1f} MB   ",
            end="",
            flush=True,
        )

    async def _serve(self, frames: list[bytes], mutator: Mutator | None = None) -> None:
        """One connection of a server, from its HELLO to the end that the server or the frames give it."""
        server = self.rng.choice(self.servers) if mutator is not None else self.servers[0]
        link = FakeLink(server._accept()).open()
        await self._feed(link, frames, mutator)
        await self._end(link)
        self._check(server)
        self.refused += sum(parse(frame)[1] & REFUSED > 0 for frame in split(link.take()))

    def _count(self, handler: Handler) -> Handler:
        """Middleware that counts the calls which get as far as a handler."""

        def count(call: Call) -> Awaitable[Any]:
            self.served += 1
            return handler(call)

        return count

    async def _send(self, mutator: Mutator) -> None:
        """A server's datagrams: each is a frame of its own."""
        server = self.rng.choice(self.servers)
        receiver = DatagramServer(server._table, server._load, server.limits.connection.max_metadata_bytes)
        receiver.connection_made(Datagrams())
        for frame in mutator.conversation()[1:]:
            if len(frame) < LARGE_BYTES:
                self.findings.frames += 1
                self._guard(receiver.datagram_received, mutator.datagram(frame), ("fake", 1))
        for task in receiver.tasks:
            task.cancel()
        await turn(3)
        self._check(server)

    def _check(self, server: rpcfw.Server) -> None:
        """Nothing of a connection that has ended is left; if something is, start anew so that it is counted once."""
        load = server._load
        if load.running:
            self.findings.add("handlers left running")
            load.running = 0
        if server._resources.budget.used:
            self.findings.add("memory of the budget not given back")
            server._resources.budget.used = 0
        if server.connections:
            self.findings.add("connections left")
            server._connections.clear()

    async def _call(self, mutator: Mutator) -> None:
        """One connection of a client with calls in progress."""
        client = ClientConnection("fake", self.resources, Settings(), lambda: None)
        link = FakeLink(client.session).open()
        talk = mutator.conversation()
        await self._feed(link, talk[:1], mutator)
        callers: list[asyncio.Task[Any]] = []
        if client.hello is not None and not client.session.closed:
            caller = Caller(client)
            names = self.rng.choices(list(CALLS), k=self.rng.randrange(1, 8))
            callers = [asyncio.create_task(caller.make(name)) for name in names]
            await turn(2)
            await self._feed(link, talk[1:], mutator)
            for task in callers[: self.rng.randrange(3)]:
                task.cancel()
        await self._end(link)
        await turn(3)
        for task in callers:
            if not task.done():
                self.findings.add("calls left waiting")
                task.cancel()
            elif not task.cancelled() and task.exception() is not None:
                self.findings.add("raised into a call", task.exception())
        await turn(2)
        if client.pending or not client._streams.is_empty():
            self.findings.add("streams left on a client")
        if self.budget.used:
            self.findings.add("memory of a client's budget not given back")
            self.budget.used = 0

    async def _feed(self, link: FakeLink, frames: list[bytes], mutator: Mutator | None) -> None:
        for frame in frames:
            if link.is_closing():
                return
            self.findings.frames += 1
            for piece in mutator.pieces(frame) if mutator is not None else (frame,):
                if not self._guard(link.deliver, piece):
                    link.abort()
            if self.rng.random() < 0.5:
                await asyncio.sleep(0)

    def _guard(self, receive: Callable[..., None], *arguments: Any) -> bool:
        """Hand over what has arrived; False when an exception came out or it took too long."""
        signal.setitimer(signal.ITIMER_REAL, HANG_S)
        try:
            receive(*arguments)
        except (Exception, Hung) as error:
            self.findings.add("escaped from the parser", error)
            return False
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return True

    async def _end(self, link: FakeLink) -> None:
        if not link.is_closing():
            await turn(self.rng.randrange(4))
            link.close()
        await turn(4)

    def _escaped(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.findings.add(f"told to the loop: {context.get('message')}", context.get("exception"))


class Datagrams(asyncio.DatagramTransport):
    """Where a server's answers to datagrams go."""

    def sendto(self, data: Any, addr: Any = None) -> None:
        pass


class Caller:
    """What a stub needs of a client."""

    timeout_s = None

    def __init__(self, client: ClientConnection) -> None:
        self.handler = client.call

    def attach(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def make(self, name: str) -> None:
        """One call; its failure as declared, or with an `RpcError`, is as good as its success."""
        with contextlib.suppress(*EXPECTED):
            await CALLS[name](make_stub(Unary, self), make_stub(Streams, self))


@functools.cache
def recorded() -> Recorded:
    """What a real client and a real server say to each other: by call, all on one connection, and with resets."""
    return asyncio.run(_record())


async def _record() -> Recorded:
    asked: dict[str, Conversation] = {}
    answered: dict[str, Conversation] = {}
    small = [name for name in CALLS if name not in ("large", "huge", "times", "chunks", "upload")]
    for names in [*([name] for name in CALLS), small]:
        server = serve(Unary(), Streams())
        ends = await Ends(server, timeout_s=60.0 if len(names) == 1 else None).open()
        unary, streams = ends.stub(Unary), ends.stub(Streams)
        for name in names:
            with contextlib.suppress(*EXPECTED):
                await CALLS[name](unary, streams)
        waiting = asyncio.create_task(ends.stub(Unary).wait("x"))
        await turn(3)
        ping = asyncio.create_task(ends.client.session.ping())
        await turn(5)
        waiting.cancel()
        await asyncio.wait([waiting, ping])
        for connection in server._connections:
            connection.send_away("enough")
        await turn(5)
        key = "+".join(names)
        asked[key], answered[key] = split(ends.bytes_of(CLIENT)), split(ends.bytes_of(SERVER))
        await ends.close()
        await server.close()
    return asked, answered


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def watching(findings: Findings) -> Iterator[None]:
    """Have everything found that Python itself reports: errors logged, unraisable ones, warnings, hangs."""

    def hung(signum: int, frame: FrameType | None) -> None:
        raise Hung(f"a frame took more than {HANG_S} s")

    logger, log = logging.getLogger("rpcfw"), ErrorLog(findings)
    propagate, unraisable = logger.propagate, sys.unraisablehook
    timer = signal.setitimer(signal.ITIMER_REAL, 0)
    before = signal.signal(signal.SIGALRM, hung)
    logger.addHandler(log)
    logger.propagate = False
    sys.unraisablehook = lambda args: findings.add(f"unraisable: {args.err_msg}", args.exc_value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)
        logger.removeHandler(log)
        logger.propagate = propagate
        sys.unraisablehook = unraisable


async def _fuzz(frames: int, seed: int, findings: Findings) -> Fuzzer:
    fuzzer = Fuzzer(frames, seed, findings, recorded())
    await fuzzer.run()
    return fuzzer


def fuzz(frames: int, seed: int) -> Fuzzer:
    """One run, on a loop of its own."""
    findings = Findings(seed)
    recorded()
    with watching(findings), asyncio.Runner() as runner:
        return runner.run(_fuzz(frames, seed, findings))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=100_000, help="how many frames to feed (100000)")
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(1 << 32), help="replays a run"
    )
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    fuzzer = fuzz(options.frames, options.seed)
    findings, growth_mb = fuzzer.findings, fuzzer.growth_mb
    print(
        f"\n{findings.connection:,} connections, {fuzzer.served:,} calls served, {fuzzer.refused:,} refused"
    )
    for kind, times in findings.kinds.most_common():
        print(f"  {times:>8,} x {kind}")
    print(f"seed {options.seed}")
    print(f"frames {findings.frames:,}, escaped exceptions {findings.total:,}, memory {growth_mb:+.1f} MB")
    return 1 if findings.total or growth_mb > MEMORY_LIMIT_MB else 0


if __name__ == "__main__":
    sys.exit(main())
