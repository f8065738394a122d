"""Methods in other processes: whatever they raise, and however they die, the next call works."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, cast

import pytest
import pytest_asyncio

import rpcfw
from rpcfw import Code, RpcError
from tests.server.computing import Choosy, Computing, OutOfStock

LIMITS = rpcfw.Limits(processes=1, block_threshold_s=None)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[rpcfw.Server]:
    async with rpcfw.serve(Computing(), Choosy(3), limits=LIMITS) as server:
        yield server


@pytest_asyncio.fixture
async def client(server: rpcfw.Server) -> AsyncIterator[rpcfw.Client]:
    async with rpcfw.connect(server.endpoint, middleware=[], timeout_s=30) as client:
        yield client


@pytest.fixture
def stub(client: rpcfw.Client) -> Any:
    return client.stub(Computing)


async def failure(call: Any) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await call
    return caught.value


async def test_a_declared_error_arrives_as_itself_and_the_process_lives_on(stub: Any) -> None:
    pid = await stub.pid()
    assert pid != os.getpid()
    with pytest.raises(OutOfStock) as caught:
        await stub.take("pen", left=3)
    assert (caught.value.sku, caught.value.left) == ("pen", 3)
    assert await stub.pid(plus=1) == pid + 1


async def test_nothing_that_a_method_raises_ends_its_process(
    stub: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pid = await stub.pid()
    assert "Unpicklable" in (await failure(stub.fail("unpicklable"))).message
    (logged,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "tests.Computing/fail failed: Unpicklable: pen: broken" in logged.getMessage()
    assert logged.exc_info is not None
    assert "computing.py" in str(cast(Any, logged.exc_info[1]).__cause__)  # where, in the other process
    assert "Mute" in (await failure(stub.fail("mute"))).message
    assert "SystemExit" in (await failure(stub.fail("exit"))).message
    for wrong in "object", "text":
        error = await failure(stub.fail(wrong))
        assert error.code is Code.INTERNAL
        assert "tests.Computing/fail: the result cannot travel: [0]: " in error.message
    rpc = await failure(stub.fail("rpc"))
    assert (rpc.code, rpc.message, rpc.details) == (Code.NOT_FOUND, "no pen", {"left": [1, 2]})
    assert await stub.pid() == pid


async def test_a_class_that_cannot_be_made_without_arguments_is_told_so(
    client: rpcfw.Client, caplog: pytest.LogCaptureFixture
) -> None:
    error = await failure(client.stub(Choosy).pid())  # type: ignore[arg-type,unused-ignore]  # a plain def
    assert error.code is Code.UNKNOWN
    assert "TypeError" in error.message
    assert "missing 1 required positional argument: 'size'" in caplog.text


async def test_a_process_that_dies_fails_its_call_and_the_next_call_gets_a_new_one(stub: Any) -> None:
    pid = await stub.pid()
    error = await failure(stub.die())
    assert (error.code, error.executed) == (Code.UNAVAILABLE, True)
    assert "tests.Computing/die: the process that ran it" in error.message
    assert await stub.pid() not in (pid, os.getpid())


class Broken(Executor):
    """What is left of processes that died while none of them had work."""

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        raise BrokenProcessPool("a child process terminated abruptly")


async def test_processes_that_died_idle_cost_no_call(server: rpcfw.Server, stub: Any) -> None:
    server._executors._processes = Broken()
    assert await stub.pid() != os.getpid()
