"""`rpcfw services`: who provides what, and how they do."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import rpcfw as package
from rpcfw.cli.census import Answer, Entry, LiveCensus, census, entry_of
from rpcfw.cli.services import _fit, _row, _table
from rpcfw.endpoint import Endpoint
from rpcfw.health import Status
from rpcfw.membership import register
from rpcfw.registry import MemoryRegistry, MemoryStore, Registration, StaticRegistry
from tests.calls.place import QUIET
from tests.cli.conftest import Rpcfw, Start
from tests.cli.test_reach import NOBODY, enlist


@package.service("shop.Orders", version="2.1")
class Orders:
    async def get(self) -> int:
        return 1

    async def forever(self) -> None:
        await asyncio.Event().wait()


@package.service("shop.Stock")
class Stock:
    async def left(self) -> int:
        return 3


@pytest.fixture
async def registry() -> AsyncIterator[MemoryRegistry]:
    registry = MemoryRegistry(MemoryStore())
    yield registry
    await registry.close()


def serve(*services: Any) -> package.Server:
    return package.serve(*services, listen="tcp://127.0.0.1:0", limits=QUIET)


async def test_each_service_at_each_server_is_told_with_how_it_does(registry: MemoryRegistry) -> None:
    async with (
        serve(Orders(), Stock()) as both,
        serve(Orders()) as one,
        register(both, registry, weight=40, labels={"zone": "a"}),
        register(one, registry),
    ):
        both.health.set("shop.Stock", Status.NOT_SERVING)
        found = {
            (e.registration.service, e.registration.endpoint.address): e
            for e in await census(registry, (), 5.0, "here")
        }
        assert {key: entry.health for key, entry in found.items()} == {
            ("shop.Orders", both.endpoint.address): "SERVING",
            ("shop.Stock", both.endpoint.address): "NOT_SERVING",
            ("shop.Orders", one.endpoint.address): "SERVING",
        }
        told = found["shop.Orders", both.endpoint.address].document()
        assert (told["version"], told["weight"], told["labels"]) == ("2.1", 40, {"zone": "a"})
        assert told["instance"] == both.instance
        assert told["started_at"].endswith("+00:00")
        assert (told["running"], told["reason"]) == (0, "")
        assert told["lag_ms"] >= 0
        only = await census(registry, ["shop.Stock"], 5.0, "here")
        assert [entry.registration.service for entry in only] == ["shop.Stock"]


async def test_a_server_that_runs_calls_or_drains_is_told_as_such(registry: MemoryRegistry) -> None:
    async with serve(Orders()) as server, package.connect(server.endpoint, timeout_s=None) as client:
        registration = Registration("shop.Orders", server.endpoint)
        call = asyncio.create_task(client.stub(Orders).forever())
        while not server.running:
            await asyncio.sleep(0)
        async with registry.register(registration):
            (entry,) = await census(registry, (), 5.0, "here")
        assert (entry.running, entry.health) == (1, "SERVING")
        call.cancel()
        await asyncio.wait([call])
    draining = entry_of(registration, Answer({"draining": True}, frozenset({"shop.Orders"})))
    assert (draining.health, draining.reason) == ("DRAINING", "the server is going")


async def test_what_cannot_be_asked_is_told_with_the_reason(registry: MemoryRegistry) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with serve(Stock()) as other, await asyncio.start_server(silent, "127.0.0.1", 0) as mute:
        urls = [
            NOBODY,
            f"tcp://127.0.0.1:{mute.sockets[0].getsockname()[1]}",
            "udp://127.0.0.1:9",
            other.endpoint.address,
        ]
        listed = StaticRegistry({"shop.Orders": urls})
        entries = {e.registration.endpoint.address: e for e in await census(listed, (), 0.2, "here")}
        told = {url: (entries[url].health, entries[url].reason) for url in urls}
        await listed.close()
    assert told[urls[0]][0] == told[urls[1]][0] == "UNREACHABLE"
    assert "refused" in told[urls[0]][1]
    assert "0.2 s" in told[urls[1]][1]
    assert told[urls[2]] == ("UNKNOWN", "datagrams say nothing of their server")
    assert told[urls[3]] == ("NOT_SERVING", "the server has no shop.Orders; it serves " + served(other))


def served(server: package.Server) -> str:
    return ", ".join(sorted([*(spec.name for spec in server.specs), "rpcfw.Health", "rpcfw.Reflection"]))


async def test_a_live_census_hears_of_servers_that_come_go_and_fall_ill(registry: MemoryRegistry) -> None:
    def states(entries: list[Entry]) -> list[str]:
        return [entry.health for entry in entries]

    async with LiveCensus(registry, ["shop.Orders"], 5.0, "here") as live:
        items = aiter(live)
        async with asyncio.timeout(10):
            assert await anext(items) == []
            async with serve(Orders()) as server:
                async with register(server, registry):
                    while states(await anext(items)) != ["SERVING"]:
                        pass
                    server.health.set("shop.Orders", Status.NOT_SERVING)
                    while states(await anext(items)) != ["NOT_SERVING"]:
                        pass
                while await anext(items):
                    pass
                assert not live._asking
                assert not live._answers
                assert not live._askers._clients
        await items.aclose()  # type: ignore[attr-defined]  # a generator


async def test_a_live_census_follows_services_that_come_and_says_why_when_it_cannot_ask(
    registry: MemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpcfw.cli.census.NAMES_S", 0.0)
    monkeypatch.setattr("rpcfw.cli.census.POLL_S", 1000.0)  # what has changed is told at once
    store = registry.store
    async with LiveCensus(registry, (), 5.0, "here") as live, asyncio.timeout(10):
        items = aiter(live)
        assert await anext(items) == []
        async with registry.register(Registration("shop.Tea", Endpoint.parse(NOBODY))):
            while not (entries := await anext(items)):
                pass
            assert [entry.registration.service for entry in entries] == ["shop.Tea"]
            while entries[0].health != "UNREACHABLE":
                entries = await anext(items)
        monkeypatch.setattr(store, "services", away)
        while not live.problem:
            await asyncio.sleep(0)
        assert live.problem == "it is away"
        await items.aclose()  # type: ignore[attr-defined]  # a generator
    async with LiveCensus(registry, (), 5.0, "here") as live:
        assert live.problem == "it is away"


def away() -> frozenset[str]:
    raise package.RpcError(package.Code.UNAVAILABLE, "it is away")


def test_numbers_of_a_wrong_kind_are_not_believed() -> None:
    registration = Registration("shop.Orders", Endpoint.parse("tcp://127.0.0.1:1"), started_at=1e300)
    entry = entry_of(registration, Answer({"running": "many", "lag_s": [], "unhealthy": "shop.Orders"}))
    assert (entry.running, entry.lag_ms, entry.health) == (None, None, "SERVING")
    assert entry.document()["started_at"] is None
    assert "-" in _row(entry)


def test_what_strangers_say_is_one_line_without_control_characters() -> None:
    assert _fit("\x1b[2Jclear\nline", 60) == "\ufffd[2Jclear\ufffdline"
    assert _fit("x" * 100, 10) == "x" * 7 + "..."


def test_a_narrow_terminal_gets_fewer_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Entry(Registration("shop.Orders", Endpoint.parse("tcp://127.0.0.1:7000"), "2.1", "f00", 1.0))
    entry = dataclasses.replace(entry, reason="x" * 100)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    headers, rows = _table([entry])
    assert headers == ["SERVICE", "ADDRESS", "HEALTH", "RUNNING", "LAG", "NOTE"]
    assert rows[0][:2] == ["shop.Orders", "tcp://127.0.0.1:7000"]
    monkeypatch.setenv("COLUMNS", "300")
    assert len(_table([entry])[0]) == 11


def test_the_table_is_aligned_and_readable_without_colours(rpcfw: Rpcfw, shop: str, listed: Path) -> None:
    enlist(listed, shop)
    enlist(listed, NOBODY)
    done = rpcfw("services", "--registry", f"folder://{listed}")
    assert (done.code, done.err) == (0, "")
    assert "\x1b" not in done.out
    heads, _, *rows = done.out.splitlines()
    lost, served = rows
    for head, cells in (
        ("ADDRESS", (NOBODY, shop)),
        ("HEALTH", ("UNREACHABLE", "SERVING")),
        ("VERSION", ("2.1", "2.1")),
    ):
        assert heads.index(head) == lost.index(cells[0]) == served.index(cells[1])
    assert "refused" in lost[heads.index("NOTE") :]


def test_json_is_one_document(rpcfw: Rpcfw, shop: str, listed: Path) -> None:
    enlist(listed, shop)
    done = rpcfw("services", "--json", RPCFW_REGISTRY=f"folder://{listed}")
    (entry,) = json.loads(done.out)
    assert (entry["service"], entry["address"], entry["health"]) == ("shop.Orders", shop, "SERVING")
    assert done.out.count("\n") == 1


def test_nothing_registered_is_no_error(rpcfw: Rpcfw, listed: Path) -> None:
    done = rpcfw("services", "-r", f"folder://{listed}")
    assert (done.code, done.out) == (0, "")
    assert done.err == f"no service is registered at folder://{listed}\n"
    assert rpcfw("services", "-r", f"folder://{listed}", "--json").out == "[]\n"
    named = rpcfw("services", "shop.Tea", "-r", f"folder://{listed}")
    assert "no server of shop.Tea is registered" in named.err


def test_a_registry_that_cannot_be_asked_is_told(rpcfw: Rpcfw, shop: str, listed: Path) -> None:
    listed.rmdir()
    away = rpcfw("services", "-r", f"folder://{listed}")
    assert away.code == 3
    assert "there is no folder" in away.err
    unnamed = rpcfw("services", "-r", f"static://{shop.removeprefix('tcp://')}")
    assert unnamed.code == 2
    assert "name those you mean: rpcfw services SERVICE --registry URL" in unnamed.err
    named = rpcfw("services", "shop.Orders", "-r", f"static://{shop.removeprefix('tcp://')}")
    assert "SERVING" in named.out
    assert rpcfw("services", "-r", "tcp://127.0.0.1:7000").code == 2


def test_a_watch_of_a_registry_that_is_away_says_so_and_not_that_nobody_is_there(start: Start) -> None:
    for names in ([], ["shop.Orders"]):
        running = start("services", *names, "--registry", "rpcfw://127.0.0.1:1", "--watch")
        line = running.wait_for("cannot be asked: ")
        assert "the registry rpcfw://127.0.0.1:1 cannot be reached: connection refused; is rpcfw" in line
        assert "is registered" not in running.text


def test_a_watch_prints_anew_what_has_changed(start: Start, shop: str, listed: Path) -> None:
    running = start("services", "shop.Orders", "--registry", f"folder://{listed}", "--watch")
    running.wait_for("no server of shop.Orders is registered")
    enlist(listed, shop, "shop.Orders")
    assert shop in running.wait_for(" SERVING ")
    (listed / "0").unlink()
    running.wait_for("no server of shop.Orders is registered")


def test_a_watch_for_programs_is_a_document_a_line(start: Start, shop: str, listed: Path) -> None:
    enlist(listed, shop)
    running = start("services", "shop.Orders", "--registry", f"folder://{listed}", "--watch", "--json")
    (entry,) = json.loads(running.wait_for('"SERVING"'))
    assert entry["address"] == shop
