"""A server that is offered three times what it can do, with the limit of docs/overload.md that finds itself."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import uvloop

import rpcfw
from benchmarks.drive import WARM_UP_S, keep_in_flight, offer
from benchmarks.ours.contract import Digest
from benchmarks.subject import Sample, Subject, Task, Workload
from rpcfw.limiter.lag import LagMeter
from rpcfw.middleware import AdaptiveLimit

_IN_FLIGHT = 4
_TIMES = 3
_LAG_INTERVAL_S, _MAX_LAG_S = 0.005, 0.01


class Overload(Subject):
    """Handlers that compute on the loop, so that only its lag tells of the load."""

    name = "rpcfw, overloaded"
    packages = ("rpcfw", "uvloop")
    workloads = frozenset({Workload.OVERLOAD})
    setting = (
        f"handlers of some 0.3 ms, AdaptiveLimit(lag=LagMeter({_LAG_INTERVAL_S}), max_lag_s={_MAX_LAG_S})"
    )

    def serve(self, ready: Callable[[str], None]) -> None:
        uvloop.run(_serve(ready))

    def measure(self, address: str, task: Task) -> Sample:
        return uvloop.run(_measure(address, task.seconds))


async def _serve(ready: Callable[[str], None]) -> None:
    lag = LagMeter(_LAG_INTERVAL_S)  # the usual 50 ms would be all that p99 may be
    lag.start()
    limit = AdaptiveLimit(lag=lag, max_lag_s=_MAX_LAG_S)
    async with rpcfw.serve(Digest(), middleware=[limit]) as server:
        ready(str(server.endpoint))
        await server.wait_closed()


async def _measure(address: str, seconds: float) -> Sample:
    async with rpcfw.connect(address, middleware=[]) as client:  # refusals are counted, not repeated
        digest, seeds = client.stub(Digest), itertools.count()
        failed = 0

        async def counted() -> None:
            nonlocal failed
            try:
                await digest.compute(next(seeds))
            except rpcfw.RpcError:  # a machine that stood still for a moment
                failed += 1

        closed = await keep_in_flight(counted, _IN_FLIGHT, seconds / 2)
        peak = (closed.count - min(failed, closed.count - 1)) / closed.elapsed_s
        call = functools.partial(digest.compute, 7)
        await offer(call, peak * _TIMES, WARM_UP_S)
        found = await offer(call, peak * _TIMES, seconds, _code)
    sample = Sample(len(found.latencies_us), found.elapsed_s, sorted(found.latencies_us))
    exhausted = found.failures.get("RESOURCE_EXHAUSTED", 0)
    refused = sorted(found.refused_us) or [0.0]
    sample.figures = {
        "peak_per_s": peak,
        "offered_per_s": peak * _TIMES,
        "goodput_per_s": sample.count / sample.elapsed_s,
        "resource_exhausted": exhausted,
        "other_failures": sum(found.failures.values()) - exhausted,
        "refused_p50_ms": refused[len(refused) // 2] / 1e3,
        "refused_p99_ms": refused[len(refused) * 99 // 100] / 1e3,
    }
    return sample


def _code(error: Exception) -> str:
    return error.code.name if isinstance(error, rpcfw.RpcError) else type(error).__name__


SUBJECT = Overload()
