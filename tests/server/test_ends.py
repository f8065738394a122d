"""The end of a server, reached whoever is cancelled on the way, and the end of clients that do not leave."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
import trustme

import rpcfw
from rpcfw import Code, RpcError, TlsConfig
from rpcfw.transport import TlsTransport
from rpcfw.wire.frames import GOAWAY
from rpcfw.wire.handshake import Hello, Settings
from tests.calls.contract import Contract, Service, Step
from tests.calls.place import Place, connection_of, limits
from tests.calls.virtual import now, virtual_time


@rpcfw.service("tests.Ending")
class Ending:
    """Ends the server that serves it."""

    server: rpcfw.Server

    @rpcfw.method(offload="thread")
    def thread(self) -> str:
        return threading.current_thread().name

    async def close(self) -> None:
        await self.server.close()


def assert_ended(server: rpcfw.Server) -> None:
    assert server.running == 0
    assert server.connections == 0
    assert server._watchdog is not None
    assert server._watchdog._thread is not None
    assert not server._watchdog._thread.is_alive()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        server._executors.threads().submit(int)


async def test_a_handler_that_closes_its_server_does_not_stop_the_end_half_way() -> None:
    ending = Ending()
    ending.server = server = await rpcfw.serve(ending).start()
    async with rpcfw.connect(server.endpoint, middleware=[]) as client:
        stub: Any = client.stub(Ending)
        assert (await stub.thread()).startswith("rpcfw-handler")
        with pytest.raises(RpcError) as caught:
            await stub.close()
        assert caught.value.code is Code.UNAVAILABLE
        async with asyncio.timeout(10):
            await server.wait_closed()
        assert_ended(server)


async def test_any_number_of_cancelled_drains_reach_the_end() -> None:
    place = Place("tcp")
    service = Service()
    server = await place.serve(service, limits=rpcfw.Limits())
    stub = place.connect(server, middleware=[]).stub(Contract)
    service.thread_gate.set()
    in_thread: Any = stub.in_thread  # a plain def; the stub is async
    await in_thread("x")
    waiting = asyncio.create_task(stub.one(Step.WAIT))
    await service.diary.until("waiting")
    drains = [asyncio.create_task(server.drain(60)) for _ in range(3)]
    await asyncio.sleep(0)
    for drain in drains:
        drain.cancel()
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await server.wait_closed()
    assert all(drain.cancelled() for drain in drains)
    assert_ended(server)
    await asyncio.wait([waiting])
    await place.close()


@virtual_time
async def test_a_drain_that_another_has_cut_short_ends_without_an_error() -> None:
    place = Place("mem")
    service = Service()
    server = await place.serve(service)
    waiting = asyncio.create_task(place.connect(server, timeout_s=None).stub(Contract).one(Step.WAIT))
    await service.diary.until("waiting")
    first, second = (asyncio.create_task(server.drain(60)) for _ in range(2))
    await asyncio.sleep(1)
    first.cancel()
    await second
    assert now() == pytest.approx(1, abs=0.1)
    await asyncio.wait([waiting])
    await place.close()


@virtual_time
async def test_closing_amid_a_drain_closes_at_once() -> None:
    place = Place("mem")
    service = Service()
    server = await place.serve(service)
    waiting = asyncio.create_task(place.connect(server, timeout_s=None).stub(Contract).one(Step.WAIT))
    await service.diary.until("waiting")
    draining = asyncio.create_task(server.drain(60))
    await asyncio.sleep(7)
    await server.close()
    await draining
    assert now() == pytest.approx(7, abs=0.1)
    with pytest.raises(RpcError):
        await waiting
    await place.close()


async def test_a_client_amid_its_tls_handshake_is_not_served_once_the_server_has_ended(
    tmp_path: Path,
) -> None:
    authority = trustme.CA()
    certificate = tmp_path / "certificate.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    transports = {"tls": TlsTransport(TlsConfig(certificate=certificate))}
    server = rpcfw.serve(Service(), listen="tls://127.0.0.1:0", transports=transports)
    accepted, accept = asyncio.Event(), server._accept

    def note_and_accept() -> asyncio.BufferedProtocol:
        accepted.set()
        return accept()

    server._accept = note_and_accept  # type: ignore[method-assign]  # the same, telling when
    await server.start()
    reader, writer = await asyncio.open_connection(server.endpoint.host, server.endpoint.port)
    await accepted.wait()
    await server.close()
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            await writer.start_tls(trusting, server_hostname="127.0.0.1")
            writer.write(Hello(Settings()).pack())
            assert await reader.read() == b""
    assert server.connections == 0
    writer.transport.abort()


@pytest.mark.parametrize("reason", ["idle", "age"])
def test_a_client_that_was_asked_to_go_and_stays_is_cut_off_when_its_last_call_has_ended(reason: str) -> None:
    @virtual_time
    async def scenario() -> None:
        place = Place("mem")
        service = Service()
        most = limits(idle_s=50) if reason == "idle" else limits(max_age_s=50)
        server = await place.serve(service, limits=most)
        client = place.connect(server, timeout_s=None, options=rpcfw.ConnectionOptions(idle_s=None))
        stub = client.stub(Contract)
        await stub.nothing()
        session = connection_of(client).session
        session._handlers[GOAWAY] = lambda *frame: None  # type: ignore[index]  # deaf to it
        await asyncio.sleep(52)
        assert server.connections == 1
        waiting = asyncio.create_task(stub.one(Step.WAIT))
        await asyncio.sleep(60)
        assert server.connections == 1
        assert not waiting.done()
        service.gate.set()
        assert await waiting == 3
        await asyncio.sleep(2)
        assert server.connections == 0
        assert not server._leaving
        await place.close()

    scenario()
