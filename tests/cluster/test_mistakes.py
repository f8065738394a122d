"""What a new user gets wrong when making a client, a server or their policies, and what it says then."""

from __future__ import annotations

import datetime
import functools
import math
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import rpcfw
from rpcfw.balancer import ConsistentHash, PowerOfTwo, RoundRobin, by_argument, by_metadata
from rpcfw.breaker import ConsecutiveFailures
from rpcfw.call import Call, Handler
from rpcfw.detector import Misses, Outlier, OutlierRules, PhiAccrual
from rpcfw.middleware import AdaptiveLimit, RateLimit, Retry
from rpcfw.router import PreferZone
from tests.calls.contract import Service

URL = "tcp://127.0.0.1:7000"
connect: Any = functools.partial(rpcfw.connect, URL)
to_any: Any = rpcfw.connect
options: Any = rpcfw.ClusterOptions
server: Any = functools.partial(rpcfw.Server, listen=[URL])
route: Any = rpcfw.Route


async def _wraps(call: Call) -> None:
    """A handler where a middleware is wanted."""


MISTAKES: list[tuple[Callable[[], Any], str]] = [
    # the balancer, of a client of one endpoint and of several
    (lambda: connect(balancer=RoundRobin), "balancer=<class RoundRobin> is a class: write RoundRobin()"),
    (lambda: to_any(URL, "tcp://127.0.0.1:7001", balancer=PowerOfTwo), "is a class: write PowerOfTwo()"),
    (lambda: connect(balancer=ConsistentHash), "is a class: write ConsistentHash(key)"),
    (lambda: connect(balancer=Retry), "balancer=<class Retry> is a class: write RoundRobin()"),
    (
        lambda: connect(balancer="round_robin"),
        "balancer='round_robin' has no method pick(): write RoundRobin()",
    ),
    # middleware, of clients and of servers
    (
        lambda: connect(middleware=Retry()),
        "middleware=<Retry object> is not a list: write middleware=[Retry(...)]",
    ),
    (lambda: connect(middleware=Retry), "middleware=<class Retry> is not a list: write middleware=[Retry()]"),
    (lambda: connect(middleware=[Retry]), "middleware[0]=<class Retry> is a class: write Retry()"),
    (
        lambda: connect(middleware=[Retry(), RateLimit]),
        "middleware[1]=<class RateLimit> is a class: write RateLimit(ra",
    ),
    (lambda: connect(middleware=[AdaptiveLimit]), "is a class: write AdaptiveLimit()"),
    (lambda: connect(middleware=["retry"]), "middleware[0]='retry' is not a function that takes a handler"),
    (lambda: connect(middleware=[_wraps]), "is a coroutine function: write a plain one"),
    (lambda: server(middleware=AdaptiveLimit()), "is not a list: write middleware=[AdaptiveLimit(...)]"),
    (lambda: server(middleware=[RateLimit]), "is a class: write RateLimit(rate_per_s)"),
    # options
    (lambda: connect(cluster={"heartbeat_s": 1}), "cluster={'heartbeat_s': 1} is not an object of the class"),
    (lambda: connect(cluster={"heartbeat_s": 1}), "write ClusterOptions(heartbeat_s=1)"),
    (
        lambda: connect(cluster=options),
        "cluster=<class ClusterOptions> is not an object of the class ClusterOptions",
    ),
    (
        lambda: connect(options=options()),
        "is not an object of the class ConnectionOptions: write ConnectionOptions()",
    ),
    (lambda: connect(options={}), "options={} is not an object of the class ConnectionOptions"),
    (lambda: connect(transports=["tcp"]), "transports=['tcp'] is not a dict"),
    (lambda: server(limits={"max_running": 5}), "write Limits(max_running=5)"),
    (lambda: server(grace_s="5"), "grace_s='5' is text: write 5"),
    (lambda: rpcfw.Server(listen=URL), f"listen='{URL}' is one endpoint: write listen=['{URL}']"),
    # how nodes are watched and chosen
    (lambda: options(routers=PreferZone("eu")), "is not a list: write routers=[PreferZone(...)]"),
    (
        lambda: options(routers=[PreferZone]),
        "routers[0]=<class PreferZone> is a class: write PreferZone(zone)",
    ),
    (lambda: options(routers="eu"), "routers='eu' is not a list: write routers=[PreferZone(\"eu\")]"),
    (lambda: options(routers=["eu"]), "routers[0]='eu' has no method route()"),
    (
        lambda: options(breaker=ConsecutiveFailures()),
        "each node needs its own: write breaker=lambda: Consec",
    ),
    (
        lambda: options(method_breaker=ConsecutiveFailures(3)),
        "method_breaker=lambda: ConsecutiveFailures(...)",
    ),
    (
        lambda: options(breaker=RoundRobin),
        "makes objects without a method enter(): write breaker=ConsecutiveFailures",
    ),
    (
        lambda: options(breaker=5),
        "breaker=5 is not a function that makes one: write breaker=ConsecutiveFailures",
    ),
    (
        lambda: options(detector=Misses(1.0)),
        "each node needs its own: write detector=lambda: Misses(...)",
    ),
    (lambda: options(detector=PhiAccrual), "write detector=lambda: PhiAccrual(interval_s)"),
    (
        lambda: options(detector=lambda node: Misses(1.0)),
        "is called without arguments (missing a required argument:",
    ),
    (lambda: options(outlier=Outlier), "outlier=<class Outlier> is not an object of the class OutlierRules"),
    (
        lambda: options(outlier=OutlierRules),
        "outlier=<class OutlierRules> is not an object of the class OutlierRules",
    ),
    (lambda: options(outlier=lambda: Outlier(OutlierRules())), "write OutlierRules(), or None"),
    (lambda: options(outlier={"consecutive": 2}), "write OutlierRules(consecutive=2)"),
    (lambda: options(on_event=[]), "on_event=[] is not a function of an event"),
    (lambda: options(is_failure=True), "is_failure=True is not a function of an error"),
    # numbers
    (lambda: connect(timeout_s="5"), "timeout_s='5' is text: write 5"),
    (lambda: connect(timeout_s="5s"), "timeout_s='5s' is text: write 5"),
    (lambda: connect(timeout_s="long"), "timeout_s='long' is text: give a number"),
    (lambda: connect(timeout_s=datetime.timedelta(seconds=2)), "is not a number: write 2"),
    (lambda: connect(timeout_s=True), "timeout_s=True is not a number"),
    (lambda: options(heartbeat_s="3"), "heartbeat_s='3' is text: write 3"),
    (lambda: options(wait_s=None), "wait_s=None is not a number: give a number"),
    (lambda: options(linger_s=math.nan), "linger_s=nan must be 0 seconds or more"),
    (lambda: options(subset="2"), "subset='2' is text: write 2"),
    # servers
    (lambda: to_any(None), "server=None is neither an endpoint nor a registry: write a URL, such as"),
    (lambda: to_any(URL, None), "server=None is neither an endpoint nor a registry"),
    (
        lambda: to_any(7000),
        'server=7000 is neither an endpoint nor a registry: write a URL, such as "tcp://127.0.0.1:7000"',
    ),
    (lambda: to_any({"tcp": 7000}), "server={'tcp': 7000} is neither an endpoint nor a registry"),
    (lambda: to_any(rpcfw.Registry), "is a class: write "),
    (lambda: to_any(object()), "has no method watch(): write open_registry("),
    (lambda: to_any(""), "'' is neither an endpoint nor a registry: start it with one of tcp://, tls://"),
    (lambda: to_any("127.0.0.1:7000"), "; write tcp://127.0.0.1:7000"),
    (lambda: to_any("zerconf://"), "did you mean zeroconf://?"),
    (lambda: to_any("zerconf://"), "dns://, etcd://, file://, redis://"),
    (lambda: to_any("tpc://127.0.0.1:7000"), "did you mean tcp://?"),
    (lambda: to_any("http://127.0.0.1:7000"), "udp:// for a server, or dns://"),
    (lambda: rpcfw.Client(URL), f"source='{URL}' is one endpoint: write connect('{URL}')"),
    # stubs and routes
    (
        lambda: connect().stub("shop.Inventory"),
        "not of its name: write stub(Inventory); without the class, rpcfw.generic",
    ),
    (lambda: route(pinned=7000), "pinned=7000 is not an address"),
]


@pytest.mark.parametrize(("make", "words"), MISTAKES, ids=[words for _, words in MISTAKES])
def test_a_mistake_is_told_where_it_is_made_with_the_value_and_the_mend(
    make: Callable[[], Any], words: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(words)):
        make()


def test_a_route_pinned_to_an_endpoint_is_pinned_to_its_address() -> None:
    endpoint = rpcfw.Endpoint.parse(f"{URL}?weight=3&zone=eu")
    assert rpcfw.Route(pinned=endpoint).pinned == URL
    assert rpcfw.Route(pinned=URL).pinned == URL
    assert rpcfw.Route().pinned is None


class Wrapping:
    """A middleware as a class whose objects are handlers."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    async def __call__(self, call: Call) -> Any:
        return await self.handler(call)


def plain(handler: Handler) -> Handler:
    def pass_on(call: Call) -> Awaitable[Any]:
        return handler(call)

    return pass_on


class Fixed:
    """A balancer that derives from nothing."""

    def pick(self, nodes: Any, call: Call) -> Any:
        return nodes[0]


def test_whatever_is_right_passes() -> None:
    rpcfw.connect(
        URL,
        balancer=Fixed(),
        middleware=(plain, Wrapping, functools.partial(plain), lambda handler: handler, Retry()),
        timeout_s=None,
        cluster=rpcfw.ClusterOptions(
            routers=(PreferZone("eu"),),
            breaker=lambda: ConsecutiveFailures(3),
            method_breaker=ConsecutiveFailures,
            detector=functools.partial(PhiAccrual, 3.0),
            outlier=None,
            linger_s=math.inf,
        ),
    ).stub(Service)
    rpcfw.connect(balancer=ConsistentHash(by_argument("a", "b")), middleware=[], *[URL])  # noqa: B026  # as users do
    ConsistentHash(by_metadata("user"), bound=math.inf)
