from __future__ import annotations

from collections.abc import Sequence

from benchmarks.compare import changes, table
from benchmarks.results import AWAITED, RPCFW, Results
from benchmarks.subject import Workload
from tests.benchmarks.results import made_up

CALL = Workload.GET_ORDER


def run(ours: Sequence[float], limit: Sequence[float] = (100, 100, 100), depth: int = 64) -> Results:
    return made_up({(CALL, depth, RPCFW): ours, (CALL, depth, AWAITED): limit})


def test_machine_of_half_the_speed_changes_nothing() -> None:
    (change,) = changes(run([80, 81, 80]), run([40, 40, 40.5], [50, 50, 50]))
    assert abs(change.better) < 0.01
    assert not change.slower


def test_slower_by_more_than_the_rounds_are_apart_is_named() -> None:
    (change,) = changes(run([80, 81, 80]), run([70, 70, 71]))
    assert change.slower
    assert f"{RPCFW}: get order, 64 in flight" in table([change]).text()
    assert "SLOWER" in table([change]).text()


def test_slower_by_less_than_the_rounds_are_apart_is_not() -> None:
    (change,) = changes(run([60, 80, 100]), run([60, 70, 80]))
    assert not change.slower
    assert "0 slower" in table([change]).text()


def test_small_change_of_a_still_machine_is_not_named() -> None:
    (change,) = changes(run([100, 100, 100]), run([97, 97, 97]))
    assert not change.slower


def test_single_round_tells_large_changes_alone() -> None:
    (small,) = changes(run([100], [100]), run([80], [100]))
    (large,) = changes(run([100], [100]), run([60], [100]))
    assert (small.slower, large.slower) == (False, True)


def test_longer_latency_is_slower_and_shorter_is_faster() -> None:
    (slower,) = changes(run([50, 50, 50], depth=1), run([80, 80, 80], depth=1))
    (faster,) = changes(run([80, 80, 80], depth=1), run([50, 50, 50], depth=1))
    assert slower.slower
    assert faster.faster


def test_peers_and_limits_are_not_compared_nor_what_one_run_lacks() -> None:
    old = made_up({(CALL, 64, "grpc.aio"): [50], (CALL, 64, AWAITED): [100]})
    new = made_up({(CALL, 64, "grpc.aio"): [10], (CALL, 64, AWAITED): [100], (CALL, 64, RPCFW): [90]})
    assert changes(old, new) == []


def test_worst_comes_first() -> None:
    cells = {(CALL, 64, AWAITED): [100], (CALL, 64, RPCFW): [90], (CALL, 64, "rpcfw, TLS"): [80]}
    worse = {**cells, (CALL, 64, RPCFW): [70], (CALL, 64, "rpcfw, TLS"): [20]}
    assert [change.subject for change in changes(made_up(cells), made_up(worse))] == ["rpcfw, TLS", RPCFW]
