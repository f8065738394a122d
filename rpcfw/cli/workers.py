"""`rpcfw run --workers N`: a supervisor of fresh processes that share one port.

It imports nothing of the user's: it holds the port, starts workers, starts again those that crash, passes signals on,
and sees to registries and probes for all of them. After the pre-fork servers (nginx, gunicorn), without the fork: no
state is copied, and the kernel spreads the connections over the workers (SO_REUSEPORT).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import json
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from typing import Any

from rpcfw.cli.crew import Crew, Word
from rpcfw.cli.notation import DEFAULT_ENDPOINT
from rpcfw.cli.output import CommandError, Exit, say
from rpcfw.cli.places import PlaceOptions, Places
from rpcfw.cli.run import GRACE_S, LATE_S, LOG_FORMAT, RunOptions
from rpcfw.endpoint import Endpoint
from rpcfw.transport import unlistenable

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 10.0
STEADY_S = 30.0
"""A worker that lived this long did not crash at its start: the next delay is the first one again."""


def run_workers(options: RunOptions, count: int) -> None:
    """Supervise `count` workers until told to stop. Exits with the code of what went wrong, if anything did."""
    endpoints = [Endpoint.parse(url) for url in options.listen or [DEFAULT_ENDPOINT]]
    with contextlib.ExitStack() as held:
        reserved = [str(_reserve(endpoint, held)) for endpoint in endpoints]
        grace_s = GRACE_S if options.grace_s is None else options.grace_s
        fixed = dataclasses.replace(options, listen=reserved, grace_s=grace_s, place=None)
        place = options.place or PlaceOptions()
        if place.register:
            logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)  # how the registries do
        code = asyncio.run(Supervisor(fixed, grace_s, count, place).run())
    if code:
        raise SystemExit(code)


@dataclasses.dataclass(eq=False)
class _Worker:
    number: int
    process: Process
    link: socket.socket
    rest: bytes = b""

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def __str__(self) -> str:
        return f"worker {self.number} (pid {self.process.pid})"


class Supervisor:
    """Keeps a number of workers running.

    Args:
        options: for every worker; all ports in them are fixed.
        grace_s: how long a worker may take to drain.
        count: how many workers.
        place: registries and probes of all of them.
    """

    def __init__(self, options: RunOptions, grace_s: float, count: int, place: PlaceOptions) -> None:
        self._options = options
        self._grace_s = grace_s
        self._count = count
        self._workers: set[_Worker] = set()
        self._served: set[int] = set()
        self._code = 0
        self._stopping = asyncio.Event()
        self._place = place
        self._crew = Crew(options.listen)
        self._all_serve = asyncio.Event()
        self._failure: BaseException | None = None
        self._leaving: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Until a signal, or until the workers turn out not to be able to start. Returns the exit code.

        Raises what registries and probes are refused for.
        """
        crew: Any = self._crew  # to a place what a Server is
        placing = Places(crew, self._place)
        placing.check(self._options.listen)
        async with placing as places:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._signalled, number)
            keepers = [loop.create_task(self._keep(number)) for number in range(1, self._count + 1)]
            others = [loop.create_task(self._kill_the_late()), loop.create_task(self._take(places))]
            try:
                await asyncio.gather(*keepers)
            finally:
                for task in (*others, *keepers):
                    task.cancel()
                for worker in self._workers:
                    worker.signal(signal.SIGKILL)
        if self._failure is not None:
            raise self._failure
        return self._code

    async def _take(self, places: Places) -> None:
        """Take the places once all workers serve; stop if that cannot be."""
        await self._all_serve.wait()
        try:
            await places.take()
        except Exception as error:
            self._failure = error
            self._stop()

    async def _keep(self, number: int) -> None:
        """One worker, and its successors."""
        loop = asyncio.get_running_loop()
        crashes = 0
        while not self._stopping.is_set():
            started_at = loop.time()
            worker = await self._start(number)
            ready = await self._hear(worker)
            following = loop.create_task(self._follow(worker))
            try:
                code = await worker.process.wait()
            finally:
                following.cancel()
                self._crew.lost(number)
            await asyncio.wait([following])
            self._workers.discard(worker)
            worker.link.close()
            if self._stopping.is_set():
                self._ended(worker, code)
                return
            if not ready and len(self._served) < self._count:
                say(f"{worker} {_how(code)} before it served; stopping")
                self._code = code if code > 0 else Exit.FAILED
                self._stop()
                return
            crashes = 1 if loop.time() - started_at >= STEADY_S else crashes + 1
            delay_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** (crashes - 1))
            say(f"{worker} {_how(code)}; a new one starts in {delay_s:g} s")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._stopping.wait()

    async def _start(self, number: int) -> _Worker:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "rpcfw.cli.worker", str(theirs.fileno())),
                json.dumps(dataclasses.asdict(self._options)),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,  # Ctrl-C in a terminal reaches the supervisor alone, which passes it on once
            )
        worker = _Worker(number, process, ours)
        self._workers.add(worker)
        if self._stopping.is_set():
            worker.signal(signal.SIGTERM)
        return worker

    async def _hear(self, worker: _Worker) -> bool:
        """Wait until the worker serves. False when it ended before."""
        line = await _line_of(worker)
        if line is None:
            return False
        word = Word.from_line(line)
        self._crew.heard(worker.number, word)
        if worker.number not in self._served:
            self._served.add(worker.number)
            if len(self._served) == self._count:
                said = f"{self._count} workers serve (supervisor pid {os.getpid()})"
                say(f"{said}\ncall them: {word.hint}" if word.hint else said)
                self._all_serve.set()
        return True

    async def _follow(self, worker: _Worker) -> None:
        """Hear how the services of a worker do."""
        while (line := await _line_of(worker)) is not None:
            self._crew.heard(worker.number, Word.from_line(line))

    def _signalled(self, number: signal.Signals) -> None:
        if self._stopping.is_set() or self._leaving is not None:
            say(f"{number.name} again: ending {len(self._workers)} workers at once")
            self._code = 128 + number
            self._stopping.set()
            for worker in self._workers:
                worker.signal(signal.SIGKILL)
            return
        draining = f"draining {len(self._workers)} workers, up to {self._grace_s:g} s"
        say(f"{number.name}: {draining}; again to end at once")
        self._leaving = asyncio.get_running_loop().create_task(self._leave())

    async def _leave(self) -> None:
        """Give the places back, and then stop."""
        await self._crew.part(self._grace_s)
        self._crew.health.end()
        self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        for worker in self._workers:
            worker.signal(signal.SIGTERM)

    def _ended(self, worker: _Worker, code: int) -> None:
        """A worker that was told to stop has. One that had not begun to serve ends by the signal itself."""
        if code not in (0, -signal.SIGTERM) and not self._code:
            say(f"{worker} {_how(code)} while it drained")
            self._code = Exit.FAILED

    async def _kill_the_late(self) -> None:
        await self._stopping.wait()
        await asyncio.sleep(self._grace_s + LATE_S)
        for worker in self._workers:
            say(f"{worker} is still there after the grace; killing it")
            worker.signal(signal.SIGKILL)


async def _line_of(worker: _Worker) -> bytes | None:
    """The next line that a worker sends; None when it has ended."""
    loop = asyncio.get_running_loop()
    while b"\n" not in worker.rest:
        with contextlib.suppress(ConnectionError):
            part = await loop.sock_recv(worker.link, 4096)
            if part:
                worker.rest += part
                continue
        return None
    line, _, worker.rest = worker.rest.partition(b"\n")
    return line


def _reserve(endpoint: Endpoint, held: contextlib.ExitStack) -> Endpoint:
    """Take a port without listening on it, so that it stays ours while workers come and go. Returns it with its number.

    Raises:
        OSError: the port is taken.
        CommandError: this sort of endpoint cannot be shared by processes.
    """
    if endpoint.scheme not in ("tcp", "tls"):
        raise CommandError(
            f"{endpoint} cannot be shared by several processes; listen at tcp:// or tls://, or leave out --workers",
            Exit.USAGE,
        )
    try:
        port = endpoint.port
        for family, address in _addresses(endpoint):
            holder = held.enter_context(_socket(family))
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                if port:
                    # Another supervisor would share its port without a word; what does not share shows it is there.
                    with _socket(family) as probe:
                        probe.bind((address, port))
                holder.bind((address, port))
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL and port:
                    continue  # "localhost" names ::1 also on hosts without IPv6
                raise
            port = holder.getsockname()[1]
    except OSError as error:
        raise unlistenable(endpoint, error) from error
    return dataclasses.replace(endpoint, port=port)


def _socket(family: socket.AddressFamily) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return made


def _addresses(endpoint: Endpoint) -> list[tuple[socket.AddressFamily, str]]:
    """All addresses of the host, IPv4 first, as the transports have it."""
    found = socket.getaddrinfo(endpoint.host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = [(family, str(address[0])) for family, *_, address in found]
    return sorted(addresses, key=lambda entry: entry[0] != socket.AF_INET)


def _how(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
