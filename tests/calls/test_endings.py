"""Real processes that end: told to, killed, restarted, forked; and peers that never were rpcfw servers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

import rpcfw
from rpcfw import Code, ConnectionOptions, Origin, RpcError
from tests.calls.contract import Contract, Service
from tests.calls.place import Place, in_flight
from tests.calls.server_process import GRACE_S, Parting

ROOT = Path(__file__).parents[2]
CALLS = 1000
PATIENCE_S = 15.0


@contextlib.asynccontextmanager
async def server_process(url: str = "tcp://127.0.0.1:0") -> AsyncIterator[tuple[Process, str]]:
    """A server and where it listens; killed at the end, if it still runs."""
    arguments = ("-m", "tests.calls.server_process", url)
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT, stdout=PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = await process.stdout.readline()
        yield process, line.decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def last_words(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(GRACE_S + PATIENCE_S):
        return (await process.stdout.read()).decode()


async def numbers(go_on: asyncio.Event) -> AsyncIterator[int]:
    yield 1
    await go_on.wait()
    yield 2


async def in_progress(stub: Parting, go_on: asyncio.Event, others: int = 0) -> list[asyncio.Task[object]]:
    """A thousand calls of three kinds, each with its handler waiting, as those of `others` do."""

    async def whole(number: int) -> list[int]:
        return [item async for item in stub.stream(number)]

    async def total(number: int) -> int:
        return await stub.total(numbers(go_on))

    makers: Iterator[Callable[[int], Awaitable[object]]] = itertools.cycle((stub.wait, whole, total))
    tasks: list[asyncio.Task[object]] = [
        asyncio.ensure_future(make(number)) for number, make in zip(range(CALLS), makers, strict=False)
    ]
    async with asyncio.timeout(PATIENCE_S):
        assert await stub.ready(CALLS + others) == CALLS + others
    return tasks


async def test_sigterm_with_a_thousand_calls_in_flight_loses_none() -> None:
    async with server_process() as (process, url), rpcfw.connect(url, timeout_s=None) as client:
        stub, go_on = client.stub(Parting), asyncio.Event()
        for number in range(50):
            await stub.tell(number)
        tasks = await in_progress(stub, go_on, others=50)
        assert not any(task.done() for task in tasks)
        process.send_signal(signal.SIGTERM)
        go_on.set()
        async with asyncio.timeout(PATIENCE_S):
            results = await asyncio.gather(*tasks)
        for number, result in enumerate(results):
            assert result == (number, [number] * 101, 3)[number % 3]
        assert await last_words(process) == "told 50, running 0\n"
        assert await process.wait() == 0
        with pytest.raises(RpcError) as caught:
            await stub.wait(1)
        assert (caught.value.code, caught.value.executed) == (Code.UNAVAILABLE, False)


async def test_when_the_server_is_killed_every_pending_call_fails_at_once() -> None:
    async with server_process() as (process, url), rpcfw.connect(url, timeout_s=None) as client:
        stub = client.stub(Parting)
        tasks = await in_progress(stub, asyncio.Event())
        process.kill()
        async with asyncio.timeout(PATIENCE_S):
            errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert len(errors) == CALLS
        for error in errors:
            assert isinstance(error, RpcError)
            assert (error.code, error.origin, error.executed) == (Code.UNAVAILABLE, Origin.CONNECTION, None)
            assert f"the connection to {url} was lost" in error.message
        assert in_flight(client) == 0


async def test_a_client_finds_its_server_again_after_a_restart() -> None:
    options = ConnectionOptions(first_backoff_s=0.001, max_backoff_s=0.01)
    async with server_process() as (process, url), rpcfw.connect(url, options=options) as client:
        stub = client.stub(Parting)
        assert await stub.ready(0) == 0
        process.kill()
        await process.wait()
        with pytest.raises(RpcError):
            await stub.ready(0)
        async with server_process(url), asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(RpcError):
                    assert await stub.ready(0) == 0
                    break


FORKING = """
import asyncio, os, sys
import rpcfw
from tests.calls.server_process import Parting

async def use(client):
    return await client.stub(Parting).ready(0)

async def main(url):
    client = rpcfw.connect(url)
    print(await use(client), flush=True)
    return client

client = asyncio.run(main(sys.argv[1]))
if os.fork() == 0:
    try:
        asyncio.run(use(client))
    except rpcfw.RpcError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
"""


async def test_a_client_used_after_a_fork_says_so() -> None:
    async with server_process() as (_, url):
        arguments = ("-c", FORKING, url)
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT, stdout=PIPE)
        output = await last_words(process)
        await process.wait()
    first, second = output.splitlines()
    assert first == "0"
    assert second.startswith(
        "FAILED_PRECONDITION: this client belongs to another event loop, or was made before"
    )


async def test_a_client_of_another_loop_says_so(here: Place) -> None:
    client = here.connect(await here.serve(Service()))
    stub = client.stub(Contract)
    await stub.nothing()

    def elsewhere() -> str:
        async def use() -> None:
            await stub.nothing()

        with pytest.raises(RpcError) as caught:
            asyncio.run(use())
        assert (caught.value.code, caught.value.executed) == (Code.FAILED_PRECONDITION, False)
        return caught.value.message

    assert "another event loop" in await asyncio.to_thread(elsewhere)
    await stub.nothing()


# ---------------------------------------------------------------------------------------------- strangers


async def test_an_http_server_is_told_from_an_rpcfw_server() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with rpcfw.connect(f"tcp://127.0.0.1:{port}", middleware=[]) as client, asyncio.timeout(PATIENCE_S):
        with pytest.raises(
            RpcError, match=r"does not speak rpcfw: its first bytes are b'HTTP/1.1 400 Bad'"
        ) as caught:
            await client.stub(Contract).nothing()
    assert (caught.value.code, caught.value.executed) == (Code.UNAVAILABLE, False)
    server.close()
    await server.wait_closed()


async def test_a_silent_listener_is_given_up_after_the_timeout_of_the_handshake() -> None:
    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    options = ConnectionOptions(handshake_timeout_s=0.05)
    client = rpcfw.connect(f"tcp://127.0.0.1:{port}", middleware=[], options=options)
    async with client, asyncio.timeout(PATIENCE_S):
        with pytest.raises(
            RpcError, match=r"did not answer the handshake within 0.05 s; is it an rpcfw server\?"
        ):
            await client.stub(Contract).nothing()
    server.close()
    await server.wait_closed()


async def test_a_listener_that_hangs_up_is_told_at_once() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    url = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with rpcfw.connect(url, middleware=[]) as client, asyncio.timeout(PATIENCE_S):
        with pytest.raises(RpcError, match=f"no connection to {re.escape(url)}") as caught:
            await client.stub(Contract).nothing()
    assert (caught.value.code, caught.value.executed) == (Code.UNAVAILABLE, False)
    server.close()
    await server.wait_closed()


HTTP_REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
TLS_HANDSHAKE = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50)


@pytest.mark.parametrize("says", [HTTP_REQUEST, TLS_HANDSHAKE], ids=["http", "tls"])
async def test_a_server_tells_another_protocol_at_its_first_bytes(here: Place, says: bytes) -> None:
    server = await here.serve(Service())
    reader, writer = await asyncio.open_connection(server.endpoint.host, server.endpoint.port)
    writer.write(says)
    async with asyncio.timeout(PATIENCE_S):
        heard = await reader.read()
    assert b"does not speak rpcfw" in heard
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
