"""Endpoints from a file that changes, is half written, broken, or gone."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, RpcError
from rpcfw.registry import FileRegistry, Registry, open_registry
from rpcfw.registry.file import MAX_FILE_BYTES
from rpcfw.testing import registry_contract
from rpcfw.testing.registry_contract import Check, Offers, registration
from rpcfw.testing.virtual_clock import VirtualClock

ORDERS = "shop.Orders"
ONE, TWO = "tcp://10.0.0.1:7000", "tcp://10.0.0.2:7000"
LISTS_ONE = f'[services]\n"{ORDERS}" = ["{ONE}"]\n'
LISTS_TWO = f'[services]\n"{ORDERS}" = ["{TWO}"]\n'


def put(path: Path, text: str) -> None:
    """Put a file in place whole, as programs should."""
    new = path.with_name("new")
    new.write_text(text)
    new.rename(path)


class FilePlace:
    """A file that is put in place anew at each change."""

    patience_s = 10.0

    def __init__(self, path: Path, interval_s: float = 1.0) -> None:
        self._path = path
        self._interval_s = interval_s
        self._offered: dict[str, list[str]] = {}

    def open(self) -> Registry:
        return FileRegistry(self._path, interval_s=self._interval_s)

    async def offer(self, service: str, endpoints: Sequence[Endpoint]) -> None:
        self._offered[service] = [str(endpoint) for endpoint in endpoints]
        if self._path.suffix == ".json":
            put(self._path, json.dumps({"services": self._offered}))
        else:
            lines = [f'"{name}" = {json.dumps(urls)}' for name, urls in self._offered.items()]
            put(self._path, "\n".join(["[services]", *lines]))


@pytest.mark.parametrize("suffix", [".toml", ".json"])
@pytest.mark.parametrize("check", registry_contract.WATCHING, ids=registry_contract.name_of)
async def test_contract(
    check: Check[Offers], suffix: str, tmp_path: Path, virtual_clock: VirtualClock
) -> None:
    await check(FilePlace(tmp_path / f"services{suffix}"))


async def test_contract_in_real_time_with_threads(tmp_path: Path) -> None:
    await registry_contract.a_watch_shows_each_change(FilePlace(tmp_path / "services.toml", 0.02))


class Watched:
    """A registry of a file, and what its watch has shown."""

    def __init__(self, path: Path) -> None:
        self.registry = FileRegistry(path)
        self.shown: list[list[str]] = []
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for snapshot in self.registry.watch(ORDERS):
            self.shown.append(sorted(str(entry.endpoint) for entry in snapshot))

    async def close(self) -> None:
        await self.registry.close()
        await self._task


async def test_a_file_written_where_it_lies_is_read_once_it_has_settled(
    tmp_path: Path, virtual_clock: VirtualClock
) -> None:
    path = tmp_path / "services.toml"
    path.write_text(LISTS_ONE)
    watched = Watched(path)
    await asyncio.sleep(0.5)
    assert watched.shown == [[ONE]]
    path.write_text("[services]\n")  # half of it: alone it would say that there is nobody
    await asyncio.sleep(1.0)
    path.write_text(LISTS_TWO + "\n")
    await asyncio.sleep(1.0)
    assert watched.shown == [[ONE]]
    await asyncio.sleep(1.0)
    assert watched.shown == [[ONE], [TWO]]
    assert watched.registry.problem == ""
    await watched.close()


async def test_a_file_put_in_place_is_read_at_the_next_look(
    tmp_path: Path, virtual_clock: VirtualClock
) -> None:
    path = tmp_path / "services.toml"
    put(path, LISTS_ONE)
    watched = Watched(path)
    await asyncio.sleep(0.5)
    put(path, LISTS_TWO)
    await asyncio.sleep(1.0)
    assert watched.shown == [[ONE], [TWO]]
    await watched.close()


async def test_a_link_that_is_turned_to_another_file_is_followed(
    tmp_path: Path, virtual_clock: VirtualClock
) -> None:
    (tmp_path / "one.toml").write_text(LISTS_ONE)
    (tmp_path / "two.toml").write_text(LISTS_TWO)
    path, link = tmp_path / "services.toml", tmp_path / "link"
    path.symlink_to("one.toml")
    watched = Watched(path)
    await asyncio.sleep(0.5)
    link.symlink_to("two.toml")
    link.rename(path)
    await asyncio.sleep(1.0)
    assert watched.shown == [[ONE], [TWO]]
    await watched.close()


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("s.toml", '[services]\n"a" = [\n', "line 3: "),
        ("s.toml", '[services]\n\n"a" = [x]\n', "line 3: Invalid value"),
        ("s.json", '{"services": {\n "a": [}}', "line 2: Expecting value"),
        ("s.toml", "", "line 1: lacks the table 'services'"),
        ("s.json", "[]", "line 1: lacks the table 'services'"),
        ("s.toml", "[services]\n[service]\n", "line 2: 'service' is not known here"),
        (
            "s.toml",
            '[services]\n"a" = []\n"b" = [\n"tcp://x"]',
            "line 4: b: 'tcp://x' lacks a host or a port",
        ),
        ("s.toml", '[services."a"]\nendpoint = []\n', "line 2: a: 'endpoint' is not known here"),
        ("s.toml", '[services."a"]\nversion = 2\n', "line 2: a: version 2 must be a text"),
        ("s.toml", '[services]\n"a" = "tcp://x:1"\n', "line 2: a: 'tcp://x:1' must be a list of URLs"),
        ("s.json", '{"services":' * 50_000, "too many values inside each other"),
        ("s.toml", "\n\nx = '\xff'", "line 3: not UTF-8"),
        ("s.toml", "#" * (MAX_FILE_BYTES + 1), f"is larger than {MAX_FILE_BYTES:,} bytes"),
    ],
)
async def test_a_broken_file_keeps_what_was_known_and_names_the_line(
    name: str,
    text: str,
    problem: str,
    tmp_path: Path,
    virtual_clock: VirtualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / name
    good = json.dumps({"services": {ORDERS: [ONE]}}) if name == "s.json" else LISTS_ONE
    put(path, good)
    watched = Watched(path)
    await asyncio.sleep(0.5)
    path.write_bytes(text.encode("latin-1"))
    await asyncio.sleep(10.0)
    assert str(path) in watched.registry.problem
    assert problem in watched.registry.problem
    assert watched.shown == [[ONE]]
    messages = [record.message for record in caplog.records if record.name == "rpcfw.registry"]
    assert messages == [f"{watched.registry.problem}; what it said before still holds"]  # once
    put(path, good)
    await asyncio.sleep(1.0)
    assert (watched.registry.problem, watched.shown) == ("", [[ONE]])
    await watched.close()


async def test_a_file_may_go_and_come_back(tmp_path: Path, virtual_clock: VirtualClock) -> None:
    path = tmp_path / "services.toml"
    watched = Watched(path)
    await asyncio.sleep(0.5)
    assert watched.registry.problem == f"{path} does not exist"
    assert watched.shown == []
    path.write_text(LISTS_ONE)
    await asyncio.sleep(1.0)
    assert (watched.registry.problem, watched.shown) == ("", [[ONE]])
    path.rename(tmp_path / "away")
    await asyncio.sleep(1.0)
    assert watched.registry.problem == f"{path} does not exist"
    (tmp_path / "away").rename(path)
    await asyncio.sleep(1.0)
    assert (watched.registry.problem, watched.shown) == ("", [[ONE]])
    await watched.close()


async def test_a_folder_or_a_pipe_in_its_place_is_a_problem_and_no_hang(
    tmp_path: Path, virtual_clock: VirtualClock
) -> None:
    path = tmp_path / "services.toml"
    os.mkfifo(path)
    watched = Watched(path)
    await asyncio.sleep(0.5)
    assert watched.registry.problem == f"{path} cannot be read: it is not a file"
    await watched.close()


async def test_an_unchanged_file_is_not_read_again(
    tmp_path: Path, virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    import rpcfw.registry.file as module

    path = tmp_path / "services.toml"
    path.write_text(LISTS_ONE)
    read: list[str] = []
    parse = module._parse
    monkeypatch.setattr(module, "_parse", lambda path, data: read.append(path) or parse(path, data))  # type: ignore[func-returns-value]
    watched = Watched(path)
    await asyncio.sleep(60.0)
    assert len(read) == 1
    await watched.close()


async def test_nobody_watching_means_nobody_looking(tmp_path: Path, virtual_clock: VirtualClock) -> None:
    path = tmp_path / "services.toml"
    path.write_text(LISTS_ONE)
    registry = FileRegistry(path)
    watch = registry.watch(ORDERS)
    await anext(watch)
    await watch.aclose()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    path.write_text(LISTS_TWO + "\n")
    again = registry.watch(ORDERS)
    assert [str(entry.endpoint) for entry in await anext(again)] == [TWO]
    await registry.close()


async def test_a_second_service_is_shown_what_was_read_already(
    tmp_path: Path, virtual_clock: VirtualClock
) -> None:
    path = tmp_path / "services.toml"
    path.write_text('[services."shop.Stock"]\nversion = "2.0"\nendpoints = ["tcp://10.0.0.1:7000"]\n')
    registry = FileRegistry(path)
    orders, stock = registry.watch(ORDERS), registry.watch("shop.Stock")
    assert await anext(orders) == frozenset()
    (entry,) = await anext(stock)
    assert (entry.service, entry.version, str(entry.endpoint)) == ("shop.Stock", "2.0", ONE)
    await registry.close()


async def test_services_are_read_anew_each_time_nobody_watches(
    tmp_path: Path, virtual_clock: VirtualClock
) -> None:
    path = tmp_path / "services.toml"
    registry = FileRegistry(path)
    with pytest.raises(RpcError, match="does not exist") as caught:
        await registry.services()
    assert caught.value.code is Code.UNAVAILABLE
    path.write_text(LISTS_ONE)
    assert await registry.services() == {ORDERS}
    path.write_text('[services]\n"shop.Stock" = ["tcp://10.0.0.1:7000"]\n')
    assert await registry.services() == {"shop.Stock"}
    path.write_text('[services]\n"*" = ["tcp://10.0.0.1:7000"]\n')
    with pytest.raises(RpcError) as caught:
        await registry.services()
    assert caught.value.code is Code.UNIMPLEMENTED
    await registry.close()


async def test_a_refused_registration_names_the_file_and_the_service(tmp_path: Path) -> None:
    with pytest.raises(RpcError) as caught:
        async with FileRegistry(tmp_path / "s.toml").register(registration()):
            pass
    assert f'add it to {tmp_path}/s.toml under "shop.Orders"' in caught.value.message


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file://services.toml", "a file is an absolute path with three slashes"),
        ("file:///etc/services.yaml", "is neither a .toml nor a .json file"),
        ("file:///etc/services.toml?interval_s=0", "interval_s=0.0 must be above 0"),
        ("file:///etc/services.toml?interval_s=soon", "'soon'"),
        ("file:///etc/services.toml?every=1", "'every' is not an option of a file; interval_s is"),
    ],
)
def test_a_wrong_url_is_refused_with_the_mend(url: str, message: str) -> None:
    with pytest.raises(ValueError, match="file://") as caught:
        open_registry(url)
    assert message in str(caught.value)


async def test_a_url_may_hold_any_path(tmp_path: Path, virtual_clock: VirtualClock) -> None:
    path = tmp_path / "the services.toml"
    path.write_text(LISTS_ONE)
    registry = open_registry(f"file://{tmp_path}/the%20services.toml?interval_s=0.1")
    assert await registry.services() == {ORDERS}
