"""What a node tells the outlier detection: of the calls that ended well many at a time, and none twice or too late."""

from __future__ import annotations

import random
from typing import Any, cast

import pytest

import rpcfw
from rpcfw import Endpoint, RpcError
from rpcfw.call import Call
from rpcfw.cluster.node import Node
from rpcfw.cluster.options import ClusterOptions
from rpcfw.cluster.peer import Peer
from rpcfw.cluster.pool import Pool
from rpcfw.detector import Outlier, OutlierRules
from rpcfw.registry import Registration
from tests.calls.virtual import virtual_time
from tests.cluster.fleet import Desk
from tests.cluster.test_walk import MadeUpFleet, MadeUpPeer

WHO = Call(rpcfw.spec_of(Desk).methods["who"], ())
BAD = RpcError(rpcfw.Code.UNAVAILABLE, "so it is", executed=True)


class Listener(Outlier):
    """Keeps what it is told."""

    __slots__ = ("told",)

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[float, Any, int]] = []

    def succeeded(self, node_id: str, now: float, latency_s: float, calls: int = 1) -> None:
        """Keep it."""
        self.told.append((now, pytest.approx(latency_s), calls))
        super().succeeded(node_id, now, latency_s, calls)


def node_with(outlier: Outlier) -> Node:
    options = ClusterOptions(on_event=lambda event: None)
    registration = Registration("tests.Desk", Endpoint("mem", "a"), "1.0")
    peer = cast(Peer, MadeUpPeer("mem://a"))
    node = Node(peer, registration, options, outlier, lambda node, now: None, lambda *told: None)
    call(node, 0.0)  # the first, whose latency does not count
    node.tell_outlier(0.0)
    cast(Any, outlier).told.clear()
    return node


def call(node: Node, begun: float, *, took_s: float = 0.25, error: RpcError | None = None) -> None:
    passed = node.begins(WHO, begun)
    if error is None:
        node.succeeded(begun, begun + took_s, passed)
    else:
        node.failed(begun, error, passed)


@virtual_time
async def test_calls_that_ended_well_are_told_together_and_once() -> None:
    node = node_with(outlier := Listener())
    for begun in (1.0, 2.0, 3.0):
        call(node, begun)
    assert outlier.told == []
    node.tell_outlier(4.0)
    node.tell_outlier(5.0)
    call(node, 6.0)
    node.tell_outlier(7.0)
    assert outlier.told == [(4.0, 0.75, 3), (7.0, 0.25, 1)]


@virtual_time
async def test_of_calls_that_end_while_a_node_is_out_nothing_is_told() -> None:
    node = node_with(outlier := Listener())
    call(node, 1.0)
    node.set_ejected(2.0, True)
    assert outlier.told == [(2.0, 0.25, 1)]
    call(node, 3.0)
    node.tell_outlier(4.0)
    call(node, 5.0)
    node.set_ejected(6.0, False)
    call(node, 7.0, took_s=0.5)
    node.tell_outlier(8.0)
    assert outlier.told == [(2.0, 0.25, 1), (8.0, 0.5, 1)]
    assert node.statistics.peak_s == 0.5, "nothing was known of it when it came back"


@virtual_time
async def test_of_a_run_of_the_server_that_has_ended_nothing_is_told() -> None:
    node = node_with(outlier := Listener())
    call(node, 1.0)
    node.reset()
    node.tell_outlier(2.0)
    assert outlier.told == []


@virtual_time
async def test_calls_of_a_node_that_was_removed_tell_nothing_of_the_next_one_at_its_address() -> None:
    fleet = MadeUpFleet(random.Random(1))
    fleet.options = ClusterOptions(on_event=lambda event: None, outlier=OutlierRules(consecutive=2))
    pool = Pool("tests.Desk", fleet)
    listed = [Registration("tests.Desk", Endpoint("mem", name), "1.0") for name in "ab"]
    pool.update(listed)
    old = pool.nodes["mem://a"]
    calls = [old.begins(WHO, 1.0) for _ in range(3)]
    pool.update(listed[1:])
    pool.update(listed)
    new = pool.nodes["mem://a"]
    assert new is not old
    old.succeeded(1.0, 2.0, calls.pop())
    for passed in calls:
        old.failed(1.0, BAD, passed)
    assert not new.ejected
    call(new, 3.0, error=BAD)
    assert not new.ejected, "it has failed once"
    call(new, 4.0, error=BAD)
    assert new.ejected
