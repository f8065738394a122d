"""Whether a server lives and whether it is ready, told over HTTP to what starts and stops processes.

What is asked, and in which words it is answered, is Kubernetes' way: ``/livez`` and ``/readyz``, 200 or 503, and a line
for each check with ``?verbose`` or when one fails. HTTP itself is aiohttp's; what the services do is in `health`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self
from urllib.parse import urlsplit

from rpcfw.endpoint import Endpoint
from rpcfw.health import Health, Status
from rpcfw.limiter.lag import LagMeter
from rpcfw.transport import unlistenable

if TYPE_CHECKING:
    from aiohttp import web

MAX_LAG_S = 1.0
"""A loop that lags by more does not live: what asks usually waits no longer for its answer."""
MAX_CONNECTIONS = 64
"""So many askers at a time; others are hung up on."""
CONNECTION_S = 5.0
"""No connection lasts longer, whatever comes over it, or does not."""
_SWEEP_S = 1.0
_LAG_INTERVAL_S = 0.25
_MAX_LINE_BYTES = 2048
_MAX_HEADERS = 64
_ENDING_S = 1.0
_HEADERS = {"Cache-Control": "no-cache, no-store", "X-Content-Type-Options": "nosniff"}


class Served(Protocol):
    """What is asked about: a `Server`, or what stands for several."""

    @property
    def health(self) -> Health:
        """How its services do."""
        ...

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where it listens; none before it does."""
        ...

    def before_drain(self, leave: Callable[[], Awaitable[None]]) -> None:
        """Have something done first when it begins to drain."""
        ...


class Enlisted(Protocol):
    """A place in a registry: what `rpcfw.membership.register` gives."""

    @property
    def registered(self) -> asyncio.Event:
        """Is set as soon as the place is taken."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what.
        problem: what is wrong with it, a sentence; empty when nothing is.
    """

    name: str
    problem: str = ""

    def __str__(self) -> str:
        return f"[-]{self.name} failed: {self.problem}" if self.problem else f"[+]{self.name} ok"


class Probes:
    """Answers ``/livez`` and ``/readyz`` for a server. Use it as ``async with``, best outside that of the server.

        server = rpcfw.serve(Shop())
        async with Probes(server), server:
            await server.wait_closed()

    So it lives while it starts and drains, and is ready in between. ``/livez`` is 200 while the event loop turns in
    time. ``/readyz`` is 200 while the server listens and does not drain, all its services are SERVING, and it is
    registered everywhere it should be. ``/healthz`` is an old name of ``/livez``.

    The answers name services and say what is wrong with them: listen beyond loopback only where all may know.

    Args:
        server: what is asked about.
        listen: host and port; port 0 asks for a free one.
        memberships: the places in registries without which it is not ready.
        max_lag_s: above this average lag of the loop, in seconds, it does not live; None for never.

    Raises:
        ValueError: `listen` is not a host and a port, or `max_lag_s` is not more than 0.
        ImportError: aiohttp is not installed.
    """

    def __init__(
        self,
        server: Served,
        listen: str = "127.0.0.1:8080",
        *,
        memberships: Sequence[Enlisted] = (),
        max_lag_s: float | None = MAX_LAG_S,
    ) -> None:
        if max_lag_s is not None and not max_lag_s > 0:
            raise ValueError(f"max_lag_s={max_lag_s!r} must be more than 0 seconds, or None")
        _need_aiohttp()
        self._served = server
        self._listen = _parsed(listen)
        self._memberships = memberships
        self._max_lag_s = max_lag_s
        self._lag = LagMeter(_LAG_INTERVAL_S)
        self._draining = False
        self._web: web.Server | None = None
        self._sockets: asyncio.Server | None = None
        self._since: dict[web.RequestHandler, float] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        server.before_drain(self._begin_drain)

    @property
    def address(self) -> str:
        """Host and port, the actual one once it listens: ``127.0.0.1:8080``."""
        port = self._sockets.sockets[0].getsockname()[1] if self._sockets is not None else self._listen.port
        return dataclasses.replace(self._listen, port=port).address.removeprefix("tcp://")

    def alive(self) -> list[Check]:
        """What ``/livez`` tells."""
        limit_s, lag_s = self._max_lag_s, self._lag.lag_s
        late = limit_s is not None and lag_s > limit_s
        problem = f"it lags by {lag_s * 1000:,.0f} ms; a handler blocks it, or there is too much to do"
        return [Check("loop", problem if late else "")]

    def ready(self) -> list[Check]:
        """What ``/readyz`` tells."""
        served, health = self._served, self._served.health
        checks = [
            Check("listening", "" if served.endpoints else "the server does not listen yet"),
            Check("draining", "the server is going" if self._draining or health.ended else ""),
        ]
        for name in health.services():
            status = health.status(name)
            checks.append(Check(f"service {name}", "" if status is Status.SERVING else status.value))
        if self._memberships:
            missing = sum(not membership.registered.is_set() for membership in self._memberships)
            problem = f"{missing} of {len(self._memberships)} registries do not list the server yet"
            checks.append(Check("registered", problem if missing else ""))
        return checks

    async def __aenter__(self) -> Self:
        from aiohttp import web

        loop = asyncio.get_running_loop()
        self._web = web.Server(
            self._answer,
            access_log=None,
            keepalive_timeout=CONNECTION_S,
            lingering_time=0.0,
            max_line_size=_MAX_LINE_BYTES,
            max_field_size=_MAX_LINE_BYTES,
            max_headers=_MAX_HEADERS,
        )
        try:
            self._sockets = await loop.create_server(self._accept, self._listen.host, self._listen.port)
        except OSError as error:
            told = unlistenable(self._listen, error)
            message = (told.strerror or str(told)).replace(" tcp://", " ", 1)
            raise OSError(error.errno, f"probes {message}") from error
        self._lag.start()
        self._sweep()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._sockets is not None
        assert self._web is not None
        self._lag.stop()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._sockets.close()
        try:
            self._web.pre_shutdown()
            await self._web.shutdown(_ENDING_S)
            await self._sockets.wait_closed()
        finally:
            self._since.clear()

    async def _begin_drain(self) -> None:
        self._draining = True

    def _accept(self) -> asyncio.Protocol:
        assert self._web is not None
        return self._web() if len(self._web.connections) < MAX_CONNECTIONS else _HungUp()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._hang_up_on_the_late(loop.time())
        self._sweeper = loop.call_later(_SWEEP_S, self._sweep)

    def _hang_up_on_the_late(self, now: float) -> None:
        assert self._web is not None
        self._since = {handler: self._since.get(handler, now) for handler in self._web.connections}
        for handler, since in self._since.items():
            if now - since >= CONNECTION_S:
                handler.force_close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        from aiohttp import web

        probes = {
            "/livez": ("livez", self.alive),
            "/healthz": ("healthz", self.alive),
            "/readyz": ("readyz", self.ready),
        }
        if request.path not in probes:
            status, text = 404, f"there is nothing here; ask {', '.join(probes)}\n"
        elif request.method not in ("GET", "HEAD"):
            status, text = 405, "only GET and HEAD are answered\n"
        else:
            name, look = probes[request.path]
            status, text = _told(name, look(), verbose="verbose" in request.query)
        response = web.Response(status=status, text=text, headers=_HEADERS)
        if status == 405:
            response.headers["Allow"] = "GET, HEAD"
        response.force_close()  # whoever asks again connects again, so that none stays
        return response


class _HungUp(asyncio.Protocol):
    """A connection that was one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _told(name: str, checks: Sequence[Check], *, verbose: bool) -> tuple[int, str]:
    """Status and text of an answer."""
    passed = not any(check.problem for check in checks)
    if passed and not verbose:
        return 200, "ok\n"
    lines = [*map(str, checks), f"{name} check {'passed' if passed else 'failed'}"]
    return 200 if passed else 503, "".join(f"{line}\n" for line in lines)


def _parsed(listen: str) -> Endpoint:
    with contextlib.suppress(ValueError):
        parts = urlsplit(f"tcp://{listen}")
        if parts.netloc == listen:
            return Endpoint.parse(f"tcp://{listen}")
    raise ValueError(f"{listen!r} is not a host and a port: write 127.0.0.1:8080 or [::1]:8080")


def _need_aiohttp() -> None:
    try:
        import aiohttp  # noqa: F401  # asked for at once, so that it is missed at the start and not later
    except ImportError as error:
        raise ImportError("probes need aiohttp: pip install 'rpcfw[http]'", name="aiohttp") from error


__all__ = ["Check", "Probes"]
