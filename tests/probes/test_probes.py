"""Liveness and readiness over HTTP: asked with a real client, over loopback."""

from __future__ import annotations

import asyncio
import builtins
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

import rpcfw
from rpcfw.health import Status
from rpcfw.membership import register
from rpcfw.probes import CONNECTION_S, MAX_CONNECTIONS, Probes, _HungUp
from rpcfw.registry import MemoryRegistry, MemoryStore
from tests.calls.place import QUIET, Place, until

ANYWHERE = "127.0.0.1:0"


@rpcfw.service("shop.Orders")
class Orders:
    async def get(self) -> int:
        return 1


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    place = Place("mem")
    yield place
    await place.close()


async def ask(probes: Probes, path: str, method: str = "GET") -> tuple[int, str]:
    async with aiohttp.request(method, f"http://{probes.address}{path}") as response:
        return response.status, await response.text()


@pytest.mark.both_loops
async def test_a_server_that_serves_lives_and_is_ready(place: Place) -> None:
    server = await place.serve(Orders())
    async with Probes(server, ANYWHERE) as probes:
        assert await ask(probes, "/livez") == (200, "ok\n")
        assert await ask(probes, "/readyz") == (200, "ok\n")
        assert await ask(probes, "/healthz?verbose") == (200, "[+]loop ok\nhealthz check passed\n")
        assert await ask(probes, "/readyz?verbose") == (
            200,
            "[+]listening ok\n[+]draining ok\n[+]service shop.Orders ok\nreadyz check passed\n",
        )


async def test_a_service_that_does_badly_makes_it_unready_but_not_dead(place: Place) -> None:
    server = await place.serve(Orders())
    async with Probes(server, ANYWHERE) as probes:
        server.health.set("shop.Orders", Status.NOT_SERVING)
        status, text = await ask(probes, "/readyz")
        assert status == 503
        assert "[-]service shop.Orders failed: NOT_SERVING\nreadyz check failed\n" in text
        assert (await ask(probes, "/livez"))[0] == 200
        server.health.set("shop.Orders", Status.SERVING)
        assert await ask(probes, "/readyz") == (200, "ok\n")


async def test_before_it_listens_and_while_it_drains_it_lives_and_is_not_ready() -> None:
    held, reached = asyncio.Event(), asyncio.Event()

    async def leave() -> None:
        reached.set()
        await held.wait()

    server = rpcfw.serve(Orders(), listen=f"tcp://{ANYWHERE}", limits=QUIET)
    async with Probes(server, ANYWHERE) as probes:
        status, text = await ask(probes, "/readyz")
        assert status == 503
        assert "[-]listening failed: the server does not listen yet" in text
        async with server:
            server.before_drain(leave)
            assert (await ask(probes, "/readyz"))[0] == 200
            draining = asyncio.create_task(server.drain())
            await reached.wait()  # at the very beginning of the drain, before registries have heard
            assert "[-]draining failed: the server is going" in (await ask(probes, "/readyz"))[1]
            assert (await ask(probes, "/livez"))[0] == 200
            held.set()
            await draining
        assert (await ask(probes, "/readyz"))[0] == 503


async def test_a_server_that_is_closed_at_once_is_not_ready_either(place: Place) -> None:
    server = await place.serve(Orders())
    async with Probes(server, ANYWHERE) as probes:
        await server.close()
        assert "[-]draining failed" in (await ask(probes, "/readyz"))[1]


async def test_one_that_is_to_be_registered_is_not_ready_before_it_is() -> None:
    registry = MemoryRegistry(MemoryStore())
    server = rpcfw.serve(Orders(), listen=f"tcp://{ANYWHERE}", limits=QUIET)
    membership = register(server, registry)
    async with Probes(server, ANYWHERE, memberships=[membership]) as probes, server:
        assert await ask(probes, "/readyz") == (
            503,
            "[+]listening ok\n[+]draining ok\n[+]service shop.Orders ok\n"
            "[-]registered failed: 1 of 1 registries do not list the server yet\nreadyz check failed\n",
        )
        async with membership:
            assert await ask(probes, "/readyz") == (200, "ok\n")
    await registry.close()


async def test_a_loop_that_lags_does_not_live_and_the_reason_is_told(place: Place) -> None:
    server = await place.serve(Orders())
    async with Probes(server, ANYWHERE) as probes, Probes(server, ANYWHERE, max_lag_s=None) as patient:
        for asked in (probes, patient):
            asked._lag.stop()
            asked._lag.lag_s = 2.925
        status, text = await ask(probes, "/livez")
        assert status == 503
        assert "[-]loop failed: it lags by 2,925 ms" in text
        assert (await ask(patient, "/livez"))[0] == 200
        probes._lag.lag_s = 1.0
        assert (await ask(probes, "/livez"))[0] == 200


async def test_a_blocked_loop_is_measured_while_the_probes_stand(place: Place) -> None:
    server = await place.serve(Orders())
    async with Probes(server, ANYWHERE) as probes:
        assert probes._lag.measuring
    assert not probes._lag.measuring


async def test_what_else_is_asked_is_refused_in_words(place: Place) -> None:
    server = await place.serve(Orders())
    async with Probes(server, ANYWHERE) as probes:
        assert await ask(probes, "/") == (404, "there is nothing here; ask /livez, /healthz, /readyz\n")
        assert await ask(probes, "/livez", "POST") == (405, "only GET and HEAD are answered\n")
        assert await ask(probes, "/livez", "HEAD") == (200, "")


async def test_a_request_that_is_too_large_is_refused(place: Place) -> None:
    server = await place.serve(Orders())
    async with Probes(server, ANYWHERE) as probes:
        assert (await ask(probes, f"/livez?{'x' * 4000}"))[0] == 400
        async with aiohttp.request(
            "GET", f"http://{probes.address}/livez", headers={"Large": "x" * 4000}
        ) as response:
            assert response.status == 400


@pytest.mark.both_loops
async def test_each_connection_answers_once_and_is_closed(place: Place) -> None:
    server = await place.serve(Orders())
    async with Probes(server, ANYWHERE) as probes:
        reader, writer = await connected(probes)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        said = await reader.read()
        assert said.count(b"HTTP/1.1 200 OK") == 1
        assert b"Connection: close" in said
        writer.close()
        await writer.wait_closed()


async def test_connections_over_the_limit_are_hung_up_on_and_others_are_still_answered(place: Place) -> None:
    server = await place.serve(Orders())
    async with Probes(server, ANYWHERE) as probes:
        silent = [await connected(probes) for _ in range(MAX_CONNECTIONS)]
        assert probes._web is not None
        web = probes._web
        await until(lambda: len(web.connections) == MAX_CONNECTIONS)
        assert isinstance(probes._accept(), _HungUp)
        reader, one_too_many = await connected(probes)
        assert await reader.read() == b""
        one_too_many.close()
        silent.pop()[1].close()
        await until(lambda: len(web.connections) < MAX_CONNECTIONS)
        assert (await ask(probes, "/livez"))[0] == 200
        for _, writer in silent:
            writer.close()


async def test_a_connection_that_says_nothing_is_hung_up_on_after_a_while(place: Place) -> None:
    server = await place.serve(Orders())
    async with Probes(server, ANYWHERE) as probes:
        reader, writer = await connected(probes)
        assert probes._web is not None
        web, now = probes._web, asyncio.get_running_loop().time()
        await until(lambda: web.connections)
        probes._hang_up_on_the_late(now)
        probes._hang_up_on_the_late(now + CONNECTION_S - 0.01)
        assert len(web.connections) == 1
        (handler,) = web.connections
        probes._hang_up_on_the_late(now + CONNECTION_S)
        assert handler.transport is None
        assert await reader.read() == b""
        writer.close()
        await until(lambda: not web.connections)
        probes._hang_up_on_the_late(now + CONNECTION_S)
        assert not probes._since


@pytest.mark.both_loops
async def test_the_end_does_not_wait_for_a_connection_that_says_nothing(place: Place) -> None:
    server = await place.serve(Orders())
    async with Probes(server, ANYWHERE) as probes:
        reader, writer = await connected(probes)
        assert probes._web is not None
        web = probes._web
        await until(lambda: web.connections)
    assert await reader.read() == b""
    writer.close()


async def test_a_taken_port_is_told_with_the_mend(place: Place) -> None:
    server = await place.serve(Orders())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        probes = Probes(server, f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(OSError, match=r"cannot listen on .* address already in use"):
            await probes.__aenter__()


@pytest.mark.parametrize(
    "listen", ["8080", "http://127.0.0.1:8080", "127.0.0.1", "127.0.0.1:http", "", "x:1/y"]
)
async def test_what_is_no_host_and_port_is_refused(place: Place, listen: str) -> None:
    server = await place.serve(Orders())
    with pytest.raises(ValueError, match=r"is not a host and a port: write 127\.0\.0\.1:8080"):
        Probes(server, listen)


async def test_a_limit_of_no_lag_at_all_is_refused(place: Place) -> None:
    server = await place.serve(Orders())
    with pytest.raises(ValueError, match="max_lag_s=0 must be more than 0 seconds"):
        Probes(server, ANYWHERE, max_lag_s=0)


async def test_without_aiohttp_the_error_says_what_to_install(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await place.serve(Orders())
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "aiohttp":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'rpcfw\[http\]'"):
        Probes(server, ANYWHERE)


async def connected(probes: Probes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = probes.address.split(":")
    return await asyncio.open_connection(host, int(port))
