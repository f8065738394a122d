"""`rpcfw run` with a registry and probes: when it is listed, what as, and when no longer; one server and workers."""

from __future__ import annotations

import json
import re
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from rpcfw.cli.crew import Crew, Word
from rpcfw.cli.places import shown
from rpcfw.health import Status
from tests.cli.conftest import TIMEOUT_S, Rpcfw, Running, Start

FREE_PORT = ("--listen", "tcp://127.0.0.1:0")


def entries(listed: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in sorted(listed.iterdir()) if path.suffix != ".new"]


def probe(running: Running) -> str:
    """The URL of its probes, without a path."""
    found = re.search(r"probes: (http://\S+)/livez", running.wait_for("probes: "))
    assert found
    return found[1]


def status_of(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one", "workers"])
def test_a_server_is_listed_when_it_serves_and_no_longer_when_it_begins_to_drain(
    listed: Path, start: Start, workers: tuple[str, ...]
) -> None:
    place = ("--register", f"folder://{listed}", "--weight", "40", "--label", "zone=a")
    running = start("run", "shop.py", *FREE_PORT, *place, *workers)
    endpoint, _ = running.serving()
    running.wait_for(f"registered at folder://{listed}")
    (entry,) = entries(listed)
    assert (entry["service"], entry["version"]) == ("shop.Orders", "2.1")
    assert entry["endpoint"] == f"{endpoint}?weight=40&zone=a"
    caller = start("call", "shop.Orders.forever", "--endpoint", endpoint)
    running.wait_for("waiting")
    running.signal(signal.SIGTERM)
    running.wait_for("left the folder")
    assert entries(listed) == []
    assert running.process.poll() is None  # it drains
    running.signal(signal.SIGTERM)
    assert running.code() == 143
    assert caller.code() == 3


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one", "workers"])
def test_a_signal_ends_it_while_a_registry_does_not_answer(
    listed: Path, start: Start, workers: tuple[str, ...]
) -> None:
    silent = listed / "silent"
    silent.mkdir()
    running = start("run", "shop.py", *FREE_PORT, *workers, "--register", f"folder://{silent}")
    running.wait_for("the folder is silent")
    running.signal(signal.SIGTERM)
    assert running.code() == 0
    assert "Traceback" not in running.text


def test_workers_are_listed_once_for_all_as_long_as_they_serve(
    listed: Path, start: Start, rpcfw: Rpcfw
) -> None:
    running = start("run", "shop.py", *FREE_PORT, "--workers", "2", "-r", f"folder://{listed}")
    endpoint, _ = running.serving()
    running.wait_for("registered at")
    (entry,) = entries(listed)
    assert (entry["service"], entry["version"], entry["endpoint"]) == ("shop.Orders", "2.1", endpoint)
    assert rpcfw("call", "shop.Orders.crash", "-e", endpoint).code == 3
    running.wait_for("a new one starts in")
    running.serving()
    assert entries(listed) == [entry]
    running.signal(signal.SIGTERM)
    assert running.code() == 0
    assert running.text.index("SIGTERM: draining") < running.text.index("left the folder")
    assert running.text.count("left the folder") == 1
    assert entries(listed) == []


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one", "workers"])
def test_what_waits_for_a_registry_ends_at_the_first_signal(
    listed: Path, start: Start, workers: tuple[str, ...]
) -> None:
    listed.rmdir()  # so that it cannot be registered
    running = start("run", "shop.py", *FREE_PORT, *workers, "--register", f"folder://{listed}")
    running.wait_for("it cannot be reached; trying on")
    running.signal(signal.SIGTERM)
    assert running.code() == 0
    assert "Traceback" not in running.text


def test_a_registry_that_comes_later_gets_the_registration_then(listed: Path, start: Start) -> None:
    listed.rmdir()
    running = start("run", "shop.py", *FREE_PORT, "--register", f"folder://{listed}")
    running.wait_for("it cannot be reached; trying on")
    listed.mkdir()
    running.wait_for("is registered now")
    assert len(entries(listed)) == 1


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one", "workers"])
def test_a_wildcard_address_is_not_listed_but_what_is_advertised_is(
    listed: Path, start: Start, workers: tuple[str, ...]
) -> None:
    everywhere = ("--listen", "tcp://0.0.0.0:0", "--register", f"folder://{listed}", *workers)
    refused = start("run", "shop.py", *everywhere)
    assert refused.code() == 2
    assert "say where this server is with --advertise tcp://HOST:" in refused.text
    assert "serving" not in refused.text
    running = start("run", "shop.py", *everywhere, "--advertise", "tcp://shop.test:7000?zone=b")
    running.wait_for("registered at")
    assert [entry["endpoint"] for entry in entries(listed)] == ["tcp://shop.test:7000?zone=b"]


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one", "workers"])
def test_a_registry_that_takes_no_registrations_ends_it_with_the_reason(
    start: Start, workers: tuple[str, ...]
) -> None:
    running = start("run", "shop.py", *FREE_PORT, *workers, "--register", "static://127.0.0.1:7000")
    assert running.code() == 1
    assert "--register static://127.0.0.1:7000: tcp://127.0.0.1:" in running.text
    assert "cannot be registered: this list is fixed" in running.text
    assert "serving" not in running.text
    assert "Traceback" not in running.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--register", "nowhere://"], "'nowhere://' is not a registry"),
        (["--register", "tcp://127.0.0.1:7000"], "tcp:// is where one server is"),
        (["--register", "static://127.0.0.1:1", "--label", "zone"], "--label 'zone' is not key=value"),
        (["--register", "static://127.0.0.1:1", "--advertise", "here"], "'here' is not an endpoint"),
        (["--weight", "3"], "--weight is about a place in a registry: say which with --register URL"),
        (["--advertise", "tcp://127.0.0.1:1"], "--advertise is about a place in a registry"),
        (["--label", "zone=a"], "--label is about a place in a registry"),
        (["--probes", "8080"], "--probes '8080' is not a host and a port"),
    ],
)
def test_options_that_cannot_be_used_exit_with_2_before_anything_starts(
    rpcfw: Rpcfw, options: list[str], said: str
) -> None:
    done = rpcfw("run", "nothing.py", *FREE_PORT, *options, "--workers", "2")
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_the_hint_of_a_server_at_all_addresses_is_one_that_works(start: Start, rpcfw: Rpcfw) -> None:
    running = start("run", "shop.py", "--listen", "tcp://0.0.0.0:0")
    hint = running.wait_for("call it: ")
    found = re.search(r"--endpoint (tcp://127\.0\.0\.1:\d+)$", hint)
    assert found, hint
    assert rpcfw("list", "-e", found[1]).code == 0


def test_one_server_refuses_the_same_options(start: Start) -> None:
    running = start("run", "shop.py", *FREE_PORT, "--register", "nowhere://")
    assert running.code() == 2
    assert "'nowhere://' is not a registry" in running.text
    assert "serving" not in running.text


def test_a_password_in_the_url_of_a_registry_is_not_printed() -> None:
    assert shown("redis://ada:secret@10.0.0.5/0") == "redis://ada:***@10.0.0.5/0"
    assert shown("zeroconf://") == "zeroconf://"


def test_probes_tell_of_a_server_that_serves(listed: Path, start: Start) -> None:
    running = start(
        "run", "shop.py", *FREE_PORT, "--probes", "127.0.0.1:0", "--register", f"folder://{listed}"
    )
    url = probe(running)
    running.wait_for("registered at")
    assert status_of(f"{url}/livez") == (200, "ok\n")
    status, text = status_of(f"{url}/readyz?verbose")
    assert status == 200
    assert "[+]service shop.Orders ok\n[+]registered ok\n" in text
    running.signal(signal.SIGTERM)
    assert running.code() == 0


def test_a_taken_port_of_probes_is_told(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        running = start("run", "shop.py", *FREE_PORT, "--probes", f"127.0.0.1:{port}")
        assert running.code() == 1
    said = f"--probes 127.0.0.1:{port}: probes cannot listen on 127.0.0.1:{port}: address already in use"
    assert said in running.text


SICK = """
import rpcfw

@rpcfw.service
class Patient:
    async def fall_ill(self) -> None:
        server.health.set("Patient", rpcfw.health.Status.NOT_SERVING)

@rpcfw.service
class Other:
    async def nothing(self) -> None: ...

def create():
    return [Patient(), Other()]

_init = rpcfw.Server.__init__
def init(self, *args, **kwargs):
    global server
    server = self
    _init(self, *args, **kwargs)
rpcfw.Server.__init__ = init
"""


def test_a_service_of_a_worker_that_does_badly_is_heard_of(folder: Path, start: Start, rpcfw: Rpcfw) -> None:
    (folder / "sick.py").write_text(SICK)
    running = start("run", "sick.py:create", *FREE_PORT, "--workers", "2", "--probes", "127.0.0.1:0")
    url = probe(running)
    endpoint, _ = running.serving()
    running.wait_for("2 workers serve")
    assert status_of(f"{url}/readyz")[0] == 200
    while status_of(f"{url}/readyz")[0] == 200:  # connections are spread by the system: until both have heard
        assert rpcfw("call", "Patient.fall_ill", "-e", endpoint).code == 0
    text = status_of(f"{url}/readyz")[1]
    assert "[-]service Patient failed: NOT_SERVING" in text
    assert "[+]service Other ok" in text


def test_a_crew_does_well_while_one_of_it_does() -> None:
    crew = Crew(["tcp://127.0.0.1:7000"])
    assert not crew.endpoints
    well = Word("", {"Greeter": "1.0", "Stock": "2.0"})
    sick = Word("", well.services, ["Greeter"])
    assert Word.from_line(sick.to_line()) == sick
    crew.heard(1, well)
    crew.heard(2, sick)
    assert [str(endpoint) for endpoint in crew.endpoints] == ["tcp://127.0.0.1:7000"]
    assert [(spec.name, spec.version) for spec in crew.specs] == [("Greeter", "1.0"), ("Stock", "2.0")]
    assert crew.health.status() is Status.SERVING
    crew.lost(1)
    assert crew.health.unhealthy() == ["Greeter"]
    crew.lost(2)
    assert crew.health.unhealthy() == ["Greeter", "Stock"]
    crew.heard(3, well)
    assert crew.health.status() is Status.SERVING


async def test_a_crew_does_what_is_to_be_done_before_a_drain_and_fails_at_none_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    crew, done = Crew([]), []

    async def fail() -> None:
        raise OSError("no registry")

    async def leave() -> None:
        done.append("left")

    crew.before_drain(fail)
    crew.before_drain(leave)
    await crew.part(1.0)
    assert done == ["left"]
    assert "no registry" in caplog.text
