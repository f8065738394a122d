"""Calls on a loop whose tasks begin at once, where they are made: asyncio's eager task factory, of Python 3.12 on.

What a task does before it first waits is then done before whoever made it knows of the task.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextvars import Context
from typing import Any

import pytest
import pytest_asyncio

import rpcfw
from rpcfw import CallKind, Code, RpcError
from tests.calls.conftest import Served
from tests.calls.contract import SUCCESS, Contract, Service, Step, call
from tests.calls.place import Place
from tests.calls.virtual import virtual_time

KIND = pytest.mark.parametrize("kind", list(CallKind), ids=lambda kind: kind.value.replace(" ", "_"))

if sys.version_info >= (3, 12):

    def eager_task(
        loop: asyncio.AbstractEventLoop, run: Any, *, context: Context | None = None, **named: Any
    ) -> asyncio.Task[Any]:
        named.pop("eager_start", None)  # uvloop says it, and Python 3.13.0 does not know it
        return asyncio.eager_task_factory(loop, run, context=context, **named)

    @pytest_asyncio.fixture(autouse=True)
    async def _eager() -> AsyncIterator[None]:
        asyncio.get_running_loop().set_task_factory(eager_task)
        yield
        asyncio.get_running_loop().set_task_factory(None)

    @KIND
    async def test_a_call_of_each_kind_succeeds(served: Served, kind: CallKind) -> None:
        calls = [asyncio.create_task(call(served.stub, kind, Step.SUCCEED)) for _ in range(20)]
        assert await asyncio.gather(*calls) == [SUCCESS[kind]] * 20
        assert served.server.connections == 1  # which all of them have waited for

    @KIND
    async def test_a_cancelled_call_of_each_kind_cancels_its_handler(served: Served, kind: CallKind) -> None:
        calling = asyncio.create_task(call(served.stub, kind, Step.WAIT))
        await served.service.diary.until("waiting")
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await served.service.diary.until("cancelled")

    async def test_a_client_connects_once_its_server_is_there(place: Place) -> None:
        first = await place.serve(Service())
        client = place.connect(first, middleware=[], options=rpcfw.ConnectionOptions(first_backoff_s=0.0))
        where = first.endpoint
        await first.close()
        for _ in range(2):
            with pytest.raises(RpcError, match="cannot connect") as caught:
                await client.stub(Contract).nothing()
            assert (caught.value.code, caught.value.executed) == (Code.UNAVAILABLE, False)
            await asyncio.sleep(0)
        service = Service()
        await place.serve(service, listen=where)
        await client.stub(Contract).nothing()
        assert service.diary.counts["nothing"] == 1

    async def test_many_calls_share_one_refused_attempt_and_none_complains(place: Place) -> None:
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        server = await place.serve(Service())
        client = place.connect(server, middleware=[])
        await server.close()
        stub = client.stub(Contract)
        failed = await asyncio.gather(*(stub.nothing() for _ in range(10)), return_exceptions=True)
        assert {error.code for error in failed if isinstance(error, RpcError)} == {Code.UNAVAILABLE}
        assert len(failed) == 10
        assert complaints == []

    async def test_a_client_may_be_closed_while_it_connects(place: Place) -> None:
        server = await place.serve(Service())
        client = place.connect(server, middleware=[])
        calling = asyncio.create_task(client.stub(Contract).nothing())
        await client.close()
        with pytest.raises(RpcError, match="this client was closed"):
            await calling

    @virtual_time
    async def test_a_refused_connect_that_never_waits_is_over_for_the_next_call() -> None:
        asyncio.get_running_loop().set_task_factory(eager_task)
        place = Place("mem")
        client = rpcfw.connect("mem://later", transports=place.transports, middleware=[])
        place.clients.append(client)
        stub = client.stub(Contract)
        for complaint in ("connection refused", "next attempt in"):
            with pytest.raises(RpcError, match=complaint):
                await stub.nothing()
            await asyncio.sleep(0)
        service = Service()
        await place.serve(service, listen="mem://later")
        await asyncio.sleep(1)
        await stub.nothing()
        assert service.diary.counts["nothing"] == 1
        await place.close()
