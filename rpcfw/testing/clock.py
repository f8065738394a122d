"""Whose time it is: the host that the running code belongs to, and how hosts read the one true time.

The host travels in a context variable, so that tasks, timers and callbacks inherit it from the code that made them.
No loop and no network here: `SimLoop` reads the host from here, and hosts put themselves here.
"""

from __future__ import annotations

import contextvars
from typing import Protocol

START_S = 1_000.0
"""Where true time begins. Not zero: zero hides who forgets to ask for the time."""
OUTSIDE = "outside"
"""What the network calls the place of code that runs on no host, as the scenario itself may."""


class SimHost(Protocol):
    """What the loop needs to know of a simulated host; compared and hashed by identity."""

    @property
    def name(self) -> str:
        """Its name on the network."""
        ...

    @property
    def dead(self) -> bool:
        """Whether its power is gone: nothing that belongs to it runs any more."""
        ...

    def local(self, true_s: float, /) -> float:
        """What this host's clock shows at a true time. Never less for a later time."""
        ...

    def true(self, local_s: float, /) -> float:
        """When this host's clock shows that time, as far as floats can tell."""
        ...


_HOST: contextvars.ContextVar[SimHost | None] = contextvars.ContextVar("rpcfw_sim_host", default=None)


def current_host() -> SimHost | None:
    """The host that the running code belongs to; None outside of all hosts."""
    return _HOST.get()


def host_of(context: contextvars.Context) -> SimHost | None:
    """The host that code run in this context belongs to."""
    return context.get(_HOST)


def host_name() -> str:
    """The current host's name for the network, `OUTSIDE` where there is none."""
    host = _HOST.get()
    return OUTSIDE if host is None else host.name


def context_on(host: SimHost | None) -> contextvars.Context:
    """A copy of the current context in which code belongs to that host, for ``create_task(..., context=...)``."""
    context = contextvars.copy_context()
    context.run(_HOST.set, host)
    return context


def settle(context: contextvars.Context) -> None:
    """Let code of a context made empty, such as the one rpcfw's client connects in, belong to the current host."""
    host = current_host()
    if host is not None and _HOST not in context:
        context.run(_HOST.set, host)


def true_time_of(host: SimHost, local_s: float) -> float:
    """The first true time at which a host's clock shows `local_s`, or at most a few roundings after it.

    Never before it: a timer that fires while its own clock shows less would be set for that instant again and again.
    """
    true_s = host.true(local_s)
    step_s = max(abs(true_s), 1.0) * 2.0**-52
    while host.local(true_s) < local_s:
        true_s += step_s
        step_s *= 2.0
    return true_s
