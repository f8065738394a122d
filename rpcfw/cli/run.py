"""`rpcfw run`: one process that serves a target until it is told to stop, then drains.

The first SIGTERM or SIGINT drains within the grace, a second one ends the process at once. A worker of
`rpcfw.cli.workers` runs the same code, with a link to its supervisor.
"""

from __future__ import annotations

import asyncio
import atexit
import dataclasses
import gc
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import rpcfw
from rpcfw.cli.notation import DEFAULT_ENDPOINT, sample_call
from rpcfw.cli.output import CommandError, Exit, put, say
from rpcfw.cli.places import PlaceOptions, Places, reached
from rpcfw.cli.target import implementations_of, load
from rpcfw.interface import service_schema
from rpcfw.transport import TcpTransport, TlsTransport, Transport, default_transports

GRACE_S = 10.0
"""How long a drain waits for calls in progress, unless told otherwise."""
STUCK_S = 1.0
"""How long the interpreter waits for threads once the server has ended; then a handler's thread is stuck."""
LATE_S = 5.0
"""A worker that is still there so long after the grace is killed."""
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s [%(process)d] %(message)s"


@dataclasses.dataclass(frozen=True, slots=True)
class RunOptions:
    """What to serve, and how. All plain values, so that they can be handed to another process.

    Attributes:
        target: see `rpcfw.cli.target`.
        listen: endpoints; none means the default, or those of a target that is a server already.
        grace_s: how long a drain waits for calls in progress, in seconds; None for the default, or the server's own.
        dev: send tracebacks to callers.
        uvloop: True and False are orders, None takes it where it is installed.
        debug: tell errors with their traceback.
        place: registries and probes; None where another process sees to them.
    """

    target: str
    listen: Sequence[str] = ()
    grace_s: float | None = None
    dev: bool = False
    uvloop: bool | None = None
    debug: bool = False
    place: PlaceOptions | None = None


OnServing = Callable[[rpcfw.Server, str], None]
"""Is told, on the loop, that a server takes calls, with a command line to try; empty where it serves nothing."""


def run(options: RunOptions) -> None:
    """Serve in this process until it is told to stop."""

    def tell(server: rpcfw.Server, hint: str) -> None:
        if hint:
            say(f"call it: {hint}")

    serve(options, tell)


def serve(options: RunOptions, on_serving: OnServing, *, as_worker: bool = False) -> None:
    """Serve on a loop of this thread until the process is told to stop.

    Args:
        options: what to serve.
        on_serving: called once calls are taken.
        as_worker: share the port with other processes, and leave it to the supervisor to speak of the end.
    """
    factory = loop_factory(options.uvloop)
    thing = load(options.target)  # before there is a loop: a module may run one while it is imported
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve_thing(thing, options, on_serving, as_worker))
    end_in_time()


def loop_factory(wanted: bool | None) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the event loop: uvloop's where it is installed, unless told otherwise."""
    if wanted is False:
        return asyncio.new_event_loop
    try:
        import uvloop
    except ImportError:
        if wanted:
            raise CommandError("uvloop is not installed; pip install uvloop, or leave out --uvloop") from None
        return asyncio.new_event_loop
    return uvloop.new_event_loop


async def serve_thing(thing: Any, options: RunOptions, on_serving: OnServing, as_worker: bool) -> None:
    """Serve what was loaded, until the process is told to stop and the server has drained."""
    server = await _server(thing, options, as_worker)
    gc.collect()
    gc.freeze()  # what is loaded by now stays; the collector need not walk it again under load
    placing = Places(server, options.place or PlaceOptions())
    placing.check(options.listen)
    async with placing as places:
        try:
            await server.start()
        except ValueError as error:  # an endpoint that cannot serve, such as TLS without a certificate
            raise CommandError(str(error), Exit.USAGE) from error
        stop = _Stop(server, options.grace_s, silent if as_worker else say)
        names = ", ".join(f"{spec.name} {spec.version}" for spec in server.specs) or "nothing"
        for endpoint in server.endpoints:
            put(f"serving {names} at {endpoint.address} (pid {os.getpid()})")
        address = reached(server.endpoint)
        on_serving(server, sample_call(service_schema(server.specs[0]), address) if server.specs else "")
        try:
            await places.take()
        except BaseException:
            await server.close()
            raise
        await server.wait_closed()
        await stop.finished()


async def _server(thing: Any, options: RunOptions, as_worker: bool) -> rpcfw.Server:
    found = await implementations_of(thing)
    if isinstance(found, rpcfw.Server):
        refused = (
            "--workers" if as_worker else "--listen" if options.listen else "--dev" if options.dev else ""
        )
        if refused:
            message = (
                f"{options.target} is a Server, which has its own endpoints and options; leave out {refused}"
            )
            raise CommandError(f"{message}, or name something that gives implementations", Exit.USAGE)
        return found
    listen = options.listen or [DEFAULT_ENDPOINT]
    grace_s = GRACE_S if options.grace_s is None else options.grace_s
    transports = _shared_port_transports() if as_worker else None
    try:
        return rpcfw.serve(*found, listen=listen, grace_s=grace_s, dev=options.dev, transports=transports)
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE) from error


def _shared_port_transports() -> dict[str, Transport]:
    """Transports with which several processes listen on one port."""
    shared: dict[str, Transport] = {
        "tcp": TcpTransport(reuse_port=True),
        "tls": TlsTransport(reuse_port=True),
    }
    return {**default_transports(), **shared}


class _Stop:
    """Signals to the end of a server: the first drains it, the second ends the process."""

    def __init__(self, server: rpcfw.Server, grace_s: float | None, tell: Callable[[str], None]) -> None:
        self._server = server
        self._grace_s = server.grace_s if grace_s is None else grace_s
        self._tell = tell
        self._draining: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)

    async def finished(self) -> None:
        if self._draining is not None:
            await self._draining

    def _signalled(self, number: signal.Signals) -> None:
        running = self._server.running
        calls = f"{running:,} call{'' if running == 1 else 's'}"
        if self._draining is not None:
            self._tell(f"{number.name} again: ending at once, {calls} cut off")
            end_now(128 + number)
        self._tell(f"{number.name}: draining {calls}, for up to {self._grace_s:g} s; again to end at once")
        self._draining = asyncio.get_running_loop().create_task(self._server.drain(self._grace_s))


def silent(line: str) -> None:
    """Say nothing."""


def end_now(code: int) -> NoReturn:
    """End this process and those it started to compute, whatever they are doing."""
    for child in multiprocessing.active_children():
        child.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def end_in_time() -> None:
    """Let the interpreter end, but not wait for a handler that blocks its thread beyond the grace."""
    joined = threading.Event()
    atexit.register(joined.set)  # called once all threads are joined, before what was registered earlier

    def end_if_stuck() -> None:
        if not joined.wait(STUCK_S):
            say("a handler blocks its thread beyond the grace: ending without it")
            end_now(0)

    threading.Thread(target=end_if_stuck, name="rpcfw-end", daemon=True).start()
