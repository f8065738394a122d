"""How a client deals with several nodes: what it may be told, with its defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from rpcfw.breaker import Breaker, Judge, is_failure
from rpcfw.cluster.events import Listener, log_event
from rpcfw.detector import FailureDetector, Misses, OutlierRules
from rpcfw.mistakes import check_function, check_instance, check_maker, check_number, check_objects
from rpcfw.router import Router

_NUMBERS = ("heartbeat_s", "misses", "attempt_s", "max_backoff_s", "wait_s", "linger_s", "warm_up_s")


@dataclasses.dataclass(frozen=True, slots=True)
class ClusterOptions:
    """How nodes are watched and chosen. Times in seconds.

    Attributes:
        routers: narrow the nodes for each call, in this order, before the balancer picks.
        heartbeat_s: each node is pinged so often; servers bear one ping a second.
        misses: so many heartbeats unanswered, and a node is taken for gone; see `detector`.
        detector: makes the failure detector of a node; unless given, `Misses(heartbeat_s, misses)`.
        attempt_s: how long one attempt to connect may take, handshake included.
        max_backoff_s: the longest wait between two such attempts; a node is back at most `attempt_s` and this, with a
            jitter of a fifth, after it can be reached again.
        wait_s: how long a call waits for a node when none can be reached; it fails with UNAVAILABLE then.
        linger_s: how long a node that answers its heartbeats stays although the registry lists it no longer. A
            registry that lost its data thus costs no call; a server that leaves says so itself.
        breaker: makes the circuit breaker of a node; None for none.
        method_breaker: makes the circuit breaker of each method of a node; None for none.
        is_failure: whether the error of a call speaks against its node: True, False, or None where it says nothing.
        outlier: when nodes whose calls go badly are ejected, and for how long; None for no ejection.
        subset: connect to so many nodes of a service only, the same ones each time; None for all.
        warm_up_s: the weight of a server that has just started grows over so many seconds; 0: at once.
        on_event: is told what happens to nodes; logs it unless given.
    """

    routers: Sequence[Router] = ()
    heartbeat_s: float = 3.0
    misses: int = 3
    detector: Callable[[], FailureDetector] | None = None
    attempt_s: float = 1.0
    max_backoff_s: float = 0.75
    wait_s: float = 2.0
    linger_s: float = 10.0
    breaker: Callable[[], Breaker] | None = None
    method_breaker: Callable[[], Breaker] | None = None
    is_failure: Judge = is_failure
    outlier: OutlierRules | None = OutlierRules()  # noqa: RUF009  # it is frozen
    subset: int | None = None
    warm_up_s: float = 0.0
    on_event: Listener = log_event

    def __post_init__(self) -> None:
        check_objects(self.routers, "routers", "route", 'PreferZone("eu")')
        for name in _NUMBERS:
            check_number(getattr(self, name), name)
        for name in ("breaker", "method_breaker"):
            if getattr(self, name) is not None:
                check_maker(getattr(self, name), name, "enter", "ConsecutiveFailures")
        if self.detector is not None:
            check_maker(self.detector, "detector", "heartbeat", "lambda: PhiAccrual(3.0)")
        if self.outlier is not None:
            check_instance(self.outlier, "outlier", OutlierRules, "OutlierRules(), or None")
        if self.subset is not None:
            check_number(self.subset, "subset")
        check_function(self.is_failure, "is_failure", "an error", "a function that gives True, False or None")
        check_function(self.on_event, "on_event", "an event", "a function, such as a list's append")
        for name in ("heartbeat_s", "attempt_s", "max_backoff_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r} must be more than 0 seconds")
        for name in ("wait_s", "linger_s", "warm_up_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)!r} must be 0 seconds or more")
        if self.misses < 1:
            raise ValueError(f"misses={self.misses!r} must be at least 1")
        if self.subset is not None and self.subset < 1:
            raise ValueError(f"subset={self.subset!r} must be at least 1, or None for all nodes")

    def new_detector(self) -> FailureDetector:
        """The failure detector of one node."""
        return self.detector() if self.detector is not None else Misses(self.heartbeat_s, self.misses)
