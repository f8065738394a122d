"""One service at one endpoint, as balancers see it: what was registered, how its calls go, and where they are sent.

Statistics and breakers belong to the node, below the balancer, so that no callback travels back up. After Finagle's
failure accrual and Envoy's outlier detection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Self

from rpcfw.balancer.statistics import Statistics
from rpcfw.breaker import Breaker, State
from rpcfw.call import Call, Recover
from rpcfw.cluster.options import ClusterOptions
from rpcfw.cluster.peer import Peer
from rpcfw.detector import Outlier
from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, Origin, RpcError
from rpcfw.interface import CallKind, MethodSpec
from rpcfw.items import through
from rpcfw.registry import Registration

Passed = tuple[tuple[Breaker, int], ...]
"""The breakers that let a call through, each with its ticket."""

_UNARY = CallKind.UNARY
_MAX_METHOD_BREAKERS = 4096
"""A client calls declared methods, so this is a bound for the unforeseen only."""


class Node:
    """A balancer's node.

    Attributes:
        registration: what the registry says of it.
        peer: the endpoint it stands on.
        address: what identifies it.
        channel: where its calls go.
        statistics: of its calls.
        breaker: of the node, if there is one,
        method_breakers: and those of its methods.
        weight: as registered.
        ejected: it gets no calls for a while, as they go badly; see `set_ejected`.
        unlisted_at: when the registry ceased to list it; None while it is listed.
    """

    __slots__ = (
        "_cold",
        "_has_method_breakers",
        "_judge_error",
        "_loop",
        "_losses",
        "_now",
        "_on_breaker",
        "_on_failure",
        "_options",
        "_outlier",
        "_told",
        "_told_s",
        "address",
        "breaker",
        "channel",
        "ejected",
        "method_breakers",
        "peer",
        "registration",
        "statistics",
        "unlisted_at",
        "weight",
    )  # fmt: skip

    weight: float

    def __init__(
        self,
        peer: Peer,
        registration: Registration,
        options: ClusterOptions,
        outlier: Outlier | None,
        on_failure: Callable[[Node, float], None],
        on_breaker: Callable[[Node, str, str], None],
    ) -> None:
        self.peer = peer
        self.address = peer.address
        self.describe(registration)
        self.statistics = Statistics()
        self.ejected = False
        self.unlisted_at: float | None = None
        self._options = options
        self._outlier = outlier
        self._on_failure = on_failure
        self._on_breaker = on_breaker
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        self._has_method_breakers = options.method_breaker is not None
        self.channel = peer.channel
        self._judge_error = options.is_failure
        self._told, self._told_s = 0, 0.0  # of the successes, what the outlier detection knows
        self._losses = -1  # of the peer's losses the one that was counted last
        self.breaker: Breaker | None = None
        self.method_breakers: dict[MethodSpec, Breaker] = {}
        self.reset()

    def __repr__(self) -> str:
        return f"<Node {self.registration.service} at {self.peer.address}>"

    @property
    def endpoint(self) -> Endpoint:
        """Where it is, with the weight and labels that were registered."""
        return self.registration.endpoint

    @property
    def version(self) -> str:
        """Of the service, as registered."""
        return self.registration.version

    @property
    def labels(self) -> Mapping[str, str]:
        """As registered."""
        return self.registration.endpoint.labels

    @property
    def available(self) -> bool:
        """Whether it can be reached and does well, as far as it says itself."""
        return self.peer.up and self.registration.service not in self.peer.unhealthy

    @property
    def in_flight(self) -> int:
        """Calls in progress."""
        return self.statistics.in_flight

    @property
    def reported(self) -> Mapping[str, float]:
        """What its server's last heartbeat said."""
        return self.peer.reported

    def describe(self, registration: Registration) -> None:
        """The registry says this of it now."""
        self.registration = registration
        self.weight = float(registration.endpoint.weight)

    def reset(self) -> None:
        """Know nothing of how calls went: another run of the server is there."""
        self.statistics.forget()
        self._cold = True
        make = self._options.breaker
        self.breaker = make() if make is not None else None
        if self.breaker is not None:
            self._listen(self.breaker, "")
        self.method_breakers.clear()
        if self._outlier is not None:
            self._outlier.add(self.address)
            self._told, self._told_s = self.statistics.successes, self.statistics.total_s

    def tell_outlier(self, now: float) -> None:
        """Let the outlier detection know of the calls that ended well since the last time."""
        statistics, outlier = self.statistics, self._outlier
        calls, took_s = statistics.successes - self._told, statistics.total_s - self._told_s
        if calls and outlier is not None:
            self._told, self._told_s = statistics.successes, statistics.total_s
            if not self.ejected:  # what ended while it was out had begun before
                outlier.succeeded(self.address, now, took_s, calls)

    def set_ejected(self, now: float, ejected: bool) -> None:
        """Give it no calls from now on; or give it calls again, as if nothing were known of it."""
        self.tell_outlier(now)
        self.ejected = ejected
        if not ejected:
            self.statistics.forget()

    def permits(self, call: Call, now: float) -> bool:
        """Whether no breaker would refuse this call."""
        if self.breaker is not None and not self.breaker.permits(now):
            return False
        breaker = self.method_breakers.get(call.method)
        return breaker is None or breaker.permits(now)

    @property
    def guarded(self) -> bool:
        """Whether any of its breakers is not closed."""
        now = self._now()
        if self.breaker is not None and self.breaker.state(now) is not State.CLOSED:
            return True
        return any(breaker.state(now) is not State.CLOSED for breaker in self.method_breakers.values())

    async def handler(self, call: Call, recover: Recover | None = None) -> Any:
        """Make a call here, and remember how it went; what `recover` makes of a failure is the outcome.

        A plain call for which a connection is there does without this: the connection tells the node of it.
        """
        begun, passed = self._now(), None
        try:
            if not self.peer.uses:
                raise self._unlisted()
            passed = self.begins(call, begun)
            result = await self.channel.handler(call)
        except BaseException as error:
            if passed is not None:
                self.failed(begun, error, passed)
            if recover is None or not isinstance(error, RpcError):
                raise
            failure = error
        else:
            if call.method.kind.streams_out:
                stream = _Stream(self, passed, begun)
                return through(result, lambda items: _Items(items, stream, self._judge))
            self.succeeded(begun, self._now(), passed)
            return result
        try:
            return await recover(call, begun, failure)
        finally:
            del failure  # whose traceback has this frame: a circle

    # how its calls go: what each call needs is written out, as every call to a node passes here

    def begins(self, call: Call, now: float) -> Passed:
        """A call is about to be made. Returns the breakers it has passed. Raises RpcError when one refuses it."""
        passed: Passed = ()
        breaker = self.breaker
        if breaker is not None:
            ticket = breaker.enter(now)
            if not ticket:
                raise self._refused(breaker, "", now)
            passed = ((breaker, ticket),)
        if self._has_method_breakers:
            passed = self._enter_method(call, now, passed)
        self.statistics.in_flight += 1
        return passed

    def succeeded(self, begun: float, now: float, passed: Passed) -> None:
        """A call has a result."""
        if self._cold:  # the first call compares interfaces and fills caches: it says nothing of the next
            self._cold, begun = False, now
        statistics = self.statistics
        statistics.in_flight -= 1
        statistics.succeeded(now, now - begun)
        if passed:
            for breaker, ticket in passed:
                breaker.leave(now, ticket, False)

    def failed(self, begun: float, error: BaseException, passed: Passed) -> None:
        """A call has failed, or was cancelled."""
        self._left(passed, begun, self._judge(error))

    def _enter_method(self, call: Call, now: float, passed: Passed) -> Passed:
        """Pass the breaker of the method, once that of the node is passed. Raises RpcError UNAVAILABLE."""
        breaker = self.method_breakers.get(call.method)
        if breaker is None:
            make = self._options.method_breaker
            if make is None or len(self.method_breakers) >= _MAX_METHOD_BREAKERS:
                return passed
            breaker = self.method_breakers[call.method] = make()
            self._listen(breaker, call.method.path)
        ticket = breaker.enter(now)
        if not ticket:
            for other, its in passed:
                other.leave(now, its, None)
            raise self._refused(breaker, call.method.path, now)
        return (*passed, (breaker, ticket))

    def _unlisted(self) -> RpcError:
        """A call that was made while this node was there, and is awaited only now."""
        message = f"{self.address} is used no more: the registry lists it no longer"
        error = RpcError(Code.UNAVAILABLE, message, executed=False)
        error.endpoint = self.address
        return error

    def _refused(self, breaker: Breaker, method: str, now: float) -> RpcError:
        about = f"the breaker of {method}" if method else "its breaker"
        state, wait_s = breaker.state(now), breaker.retry_at(now) - now
        if state is State.OPEN:
            then = f"it lets calls through again in {wait_s:.1f} s"
        else:
            then = "it lets only some calls through, until they succeed"
        message = f"{self.address}: {about} is {state.value}, as calls failed there lately; {then}"
        error = RpcError(Code.UNAVAILABLE, message, {"breaker": state.value}, executed=False)
        error.endpoint = self.address
        return error

    def _listen(self, breaker: Breaker, method: str) -> None:
        def changed(old: State, new: State, why: str) -> None:
            self._on_breaker(self, method, f"{old.value} -> {new.value}, {why}")

        breaker.on_change(changed)

    def _judge(self, error: BaseException) -> bool | None:
        """Whether an error speaks against this node; None where it says nothing. Marks it with the node."""
        if isinstance(error, RpcError):
            if not error.endpoint:
                error.endpoint = self.address
            if error.code is Code.UNAVAILABLE and self.peer.instance:
                error.details.setdefault("instance", self.peer.instance)
            if error.executed is False and error.origin is not Origin.REMOTE:
                return None  # it has not reached the server; that it cannot be reached the peer knows
            if error.code is Code.UNAVAILABLE and error.origin is Origin.CONNECTION and not self.peer.up:
                # a lost connection is one failure, however many calls were in progress
                counted, self._losses = self._losses == self.peer.losses, self.peer.losses
                if counted:
                    return None
        return self._judge_error(error)

    def _left(self, breakers: Passed, begun: float, failed: bool | None) -> None:
        """A call has ended with an error, which speaks against this node, for it, or says nothing."""
        now, statistics = self._now(), self.statistics
        statistics.in_flight -= 1
        for breaker, ticket in breakers:
            breaker.leave(now, ticket, failed)
        if failed:
            self.count_failure(now, now - begun)
        elif failed is False:
            statistics.succeeded(now, now - begun)

    def count_failure(self, now: float, latency_s: float) -> None:
        """A call went in a way that speaks against this node."""
        self.statistics.failed(now, latency_s)
        self._on_failure(self, now)


class WarmingNode(Node):
    """A node whose weight grows while its server warms up."""

    __slots__ = ("_weight",)

    @property
    def weight(self) -> float:
        """As registered, less while the server warms up."""
        return self._weight * self.peer.warmth(self._now())

    @weight.setter
    def weight(self, weight: float) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]  # it can be set
        self._weight = weight


class _Stream:
    """A reply that is a stream, as its node sees it: it counts as in flight until its end.

    That it begins is what a breaker wants to know. How it ends says something of the node, how long it went on nothing.
    """

    def __init__(self, node: Node, breakers: Passed, begun: float) -> None:
        self._node = node
        self._breakers = breakers
        self._begun = begun
        self._latency_s = -1.0  # until the first item

    def began(self, failed: bool | None) -> None:
        """Its first item came, or it ended before."""
        now = self._node._now()
        if failed is False:
            self._latency_s = now - self._begun
        for breaker, ticket in self._breakers:
            breaker.leave(now, ticket, failed)
        self._breakers = ()

    def ended(self, failed: bool | None) -> None:
        """It is over; well also where its caller has had enough of it."""
        if self._latency_s < 0:
            self.began(failed)
        node = self._node
        now, statistics = node._now(), node.statistics
        statistics.in_flight -= 1
        if failed:
            node.count_failure(now, 0.0)
        elif self._latency_s >= 0:
            statistics.succeeded(now, self._latency_s)


class _Items:
    """The items of a reply that is a stream."""

    def __init__(self, items: Any, stream: _Stream, judge: Callable[[BaseException], bool | None]) -> None:
        self._items: AsyncIterator[Any] = items
        self._stream = stream
        self._judge = judge
        self._began = False
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            item = await self._items.__anext__()
        except StopAsyncIteration:
            self._ended(False)
            raise
        except BaseException as error:
            self._ended(self._judge(error))
            raise
        if not self._began:
            self._began = True
            self._stream.began(False)
        return item

    async def aclose(self) -> None:
        """End the call; its caller wants no more."""
        self._ended(None)
        items: Any = self._items
        await items.aclose()

    def __del__(self) -> None:
        """Dropped half read, by a middleware say: it counts as in flight no more."""
        self._ended(None)

    def _ended(self, failed: bool | None) -> None:
        if not self._over:
            self._over = True
            self._stream.ended(failed)
