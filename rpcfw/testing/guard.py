"""What code on a simulated loop may not do behind the loop's back: wait for real, open sockets, start threads.

While a simulated loop runs, the functions of the standard library that do so are replaced by ones that raise
`Unsimulated` in the thread of that loop, and do what they always did in every other thread. After BlockHound and
blockbuster, which find blocking calls on real loops. Files are left alone; the loop's own methods are in `refusals`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import FrameType
from typing import Any, NamedTuple

from rpcfw.testing.refusals import Unsimulated

_SLEEP = "use asyncio.sleep, which takes virtual time"
_STREAMS = "use asyncio's streams, transports and datagram endpoints, which reach the simulated network"
_NAMES = "ask the loop, as asyncio.get_running_loop().getaddrinfo does, for names of simulated hosts"
_PROCESSES = "run the other program's part as a simulated host, or a double of it"
_THREADS = "use asyncio.to_thread, which the loop runs in line"
_LOCKS = "only another thread could end this, and there is none: use asyncio's Event, Queue or Lock"

_UNGUARDED: ContextVar[bool] = ContextVar("rpcfw_sim_unguarded", default=False)
_OBSERVERS = ("pydevd", "_pydev", "debugpy", "logging")
"""Who may: a debugger waits for its user, and a log may go to another process. Neither is part of what is simulated."""
_NEAR_FRAMES = 8
"""How far up the stack one of them is looked for."""


class _Call(NamedTuple):
    """A function of a module, or a method of a class, and when a call of it does no harm."""

    owner: Any
    name: str
    instead: str
    harmless: Callable[..., bool] = lambda *args, **options: False

    @property
    def label(self) -> str:
        """How a reader knows it."""
        if not isinstance(self.owner, type):
            return f"{self.owner.__name__}.{self.name}"
        of = f"{self.owner.__module__}.{self.owner.__name__}"
        return of if self.name == "__init__" else f"{of}.{self.name}"


def _no_wait(timeout_s: float | None) -> bool:
    return timeout_s is not None and timeout_s <= 0


_SOCKET_METHODS = (
    "accept bind connect connect_ex listen recv recv_into recvfrom recvfrom_into recvmsg recvmsg_into send sendall "
    "sendfile sendmsg sendto"
)
_SOCKET_NAMES = "getaddrinfo getfqdn gethostbyaddr gethostbyname gethostbyname_ex getnameinfo"

CALLS = (
    _Call(time, "sleep", _SLEEP, _no_wait),
    *(
        _Call(socket.socket, name, _STREAMS)
        for name in _SOCKET_METHODS.split()
        if hasattr(socket.socket, name)
    ),
    *(_Call(socket, name, _STREAMS) for name in ("create_connection", "create_server", "socketpair")),
    *(_Call(socket, name, _NAMES) for name in _SOCKET_NAMES.split()),
    _Call(select, "select", _STREAMS, lambda r, w, x, timeout=None: _no_wait(timeout)),
    _Call(subprocess.Popen, "__init__", _PROCESSES),
    _Call(os, "system", _PROCESSES),
    _Call(threading.Thread, "start", _THREADS),
    _Call(
        threading.Thread,
        "join",
        _THREADS,
        lambda thread, timeout=None: not thread.is_alive() or _no_wait(timeout),
    ),
    _Call(threading.Event, "wait", _LOCKS, lambda event, timeout=None: event.is_set() or _no_wait(timeout)),
    _Call(threading.Condition, "wait", _LOCKS, lambda condition, timeout=None: _no_wait(timeout)),
)
"""Whatever is refused. Locks themselves are not: they are C's, and no code here could be told apart from the loop's."""


class _Guard:
    """Puts the replacements in place while any simulated loop runs in the process, and takes them away after it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: Counter[int] = Counter()
        self._before: list[tuple[Any, str, Any]] = []

    def watches(self) -> bool:
        """Whether this thread runs a simulated loop."""
        return threading.get_ident() in self._threads

    def enter(self) -> None:
        with self._lock:
            if not self._threads:
                for call in CALLS:
                    self._before.append((call.owner, call.name, vars(call.owner).get(call.name)))
                    setattr(call.owner, call.name, _refusing(call, getattr(call.owner, call.name)))
            self._threads[threading.get_ident()] += 1

    def leave(self) -> None:
        with self._lock:
            thread = threading.get_ident()
            self._threads[thread] -= 1
            if not self._threads[thread]:
                del self._threads[thread]
            if not self._threads:
                while self._before:
                    owner, name, own = self._before.pop()
                    if own is None:
                        delattr(owner, name)  # a class that inherits it
                    else:
                        setattr(owner, name, own)


_GUARD = _Guard()
"""The one state of a process here: what is replaced, is replaced for all."""


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Refuse what blocks or leaves the simulation, in this thread."""
    _GUARD.enter()
    try:
        yield
    finally:
        _GUARD.leave()


@contextlib.contextmanager
def unguarded() -> Iterator[None]:
    """Let this code block and reach the real world all the same. That takes real time, and no seed repeats it."""
    token = _UNGUARDED.set(True)
    try:
        yield
    finally:
        _UNGUARDED.reset(token)


def _refusing(call: _Call, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def refuse(*args: Any, **options: Any) -> Any:
        if _GUARD.watches() and not (_UNGUARDED.get() or call.harmless(*args, **options) or _observing()):
            raise Unsimulated(call.label, call.instead)
        return original(*args, **options)

    return refuse


def _observing() -> bool:
    """Whether it is a debugger, or a log, that asks."""
    frame: FrameType | None = sys._getframe(2)
    for _ in range(_NEAR_FRAMES):
        if frame is None:
            break
        if str(frame.f_globals.get("__name__")).startswith(_OBSERVERS):
            return True
        frame = frame.f_back
    return False
