"""`rpcfw bench` against servers of other processes: what it reports is what they saw. Never how fast they were."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rpcfw.cli.bench import _so_far
from rpcfw.cli.generator import Target
from rpcfw.cli.load import Plan
from rpcfw.cli.report import Report
from rpcfw.cli.tally import Tally
from tests.cli.conftest import Done, Rpcfw, Start, processes

COUNTER = """
import asyncio, dataclasses
from collections.abc import AsyncIterator
import rpcfw

@dataclasses.dataclass
class Sale:
    sku: str
    count: int = 1

class SoldOut(rpcfw.ServiceError):
    sku: str

@rpcfw.service("shop.Counter", version="1.0")
class Counter:
    def __init__(self) -> None:
        self.calls = 0
        self.metadata = set()

    async def add(self, first: int, second: int = 0) -> int:
        self.calls += 1
        self.metadata.add(rpcfw.current_call().metadata.get("run", ""))
        return first + second

    async def made(self) -> int:
        return self.calls

    async def runs(self) -> list[str]:
        return sorted(self.metadata)

    @rpcfw.method(raises=[SoldOut])
    async def sell(self, sale: Sale, every: int = 4) -> Sale:
        self.calls += 1
        assert type(sale) is Sale
        if self.calls % every == 0:
            raise SoldOut(sale.sku)
        if self.calls % every == 1:
            raise rpcfw.RpcError(rpcfw.Code.NOT_FOUND, f"no {sale.sku} here")
        return sale

    async def numbers(self, upto: int) -> AsyncIterator[int]:
        self.calls += 1
        for number in range(upto):
            yield number

    async def total(self, numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])

    @rpcfw.method(oneway=True)
    async def tell(self, what: str) -> None:
        pass

    @rpcfw.idempotent
    async def away(self) -> None:
        self.calls += 1
        raise rpcfw.RpcError(rpcfw.Code.UNAVAILABLE, "try again")

    async def wait(self) -> None:
        self.calls += 1
        print("waiting", self.calls, flush=True)
        await asyncio.Event().wait()
"""

SCHEMA: dict[str, type | tuple[type, ...]] = {
    "target": str,
    "method": str,
    "loop": str,
    "in_flight": int,
    "rate": (float, type(None)),
    "connections": int,
    "processes": int,
    "typed": bool,
    "warm_up_s": float,
    "interrupted": bool,
    "duration_s": float,
    "calls": int,
    "succeeded": int,
    "failed": int,
    "not_started": int,
    "unfinished": int,
    "calls_per_s": float,
    "succeeded_per_s": float,
    "items": int,
    "items_per_s": float,
    "latency_us": (dict, type(None)),
    "start_delay_us": (dict, type(None)),
    "errors": list,
    "nodes": dict,
    "client_cpu": float,
    "client_was_the_limit": bool,
    "python": str,
    "rpcfw": str,
}
LATENCIES = ["min", "mean", "p50", "p90", "p99", "p99.9", "max"]


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The endpoint of a server of counter.py that runs during the tests of this module, and its folder."""
    place = tmp_path_factory.mktemp("counter")
    (place / "counter.py").write_text(COUNTER)
    with processes(place) as begin:
        yield begin("run", "counter.py:Counter", "--listen", "tcp://127.0.0.1:0").serving()[0], place


@dataclasses.dataclass
class Bench:
    """Runs `rpcfw bench` at an endpoint, and asks the server what it saw."""

    rpcfw: Rpcfw
    endpoint: str

    def __call__(self, *arguments: str) -> Done:
        return self.rpcfw("bench", self.endpoint, *arguments)

    def told(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        done = self("--json", *arguments)
        assert done.code == code, done.err
        told: dict[str, Any] = json.loads(done.out)
        assert [key for key in told if not isinstance(told[key], SCHEMA[key])] == []
        assert list(told) == list(SCHEMA)
        for latencies in filter(None, (told["latency_us"], told["start_delay_us"])):
            assert list(latencies) == LATENCIES
            mean = latencies.pop("mean")
            assert list(latencies.values()) == sorted(latencies.values())
            assert latencies["min"] <= mean <= latencies["max"]
        assert told["calls"] == told["succeeded"] + told["failed"]
        assert sum(error["count"] for error in told["errors"]) == told["failed"]
        return told

    def made(self) -> int:
        return int(self.rpcfw("call", "shop.Counter.made", "-e", self.endpoint).out)


@pytest.fixture
def bench(rpcfw: Rpcfw, counter: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.chdir(counter[1])
    monkeypatch.syspath_prepend(str(counter[1]))
    return Bench(rpcfw, counter[0])


@pytest.mark.parametrize(
    "options",
    [
        ["--in-flight", "8"],
        ["--in-flight", "500"],
        ["--in-flight", "8", "--connections", "3"],
        ["--in-flight", "9", "--processes", "2"],
        ["--rate", "5000"],
        ["--rate", "5000", "--processes", "2"],
        ["--interface", "counter:Counter"],
        ["--interface", "counter:Counter", "--processes", "2"],
    ],
)
def test_it_makes_exactly_the_calls_that_it_reports(bench: Bench, options: list[str]) -> None:
    before = bench.made()
    told = bench.told("shop.Counter.add", "first=1", "--calls", "333", *options)
    assert told["calls"] == told["succeeded"] == bench.made() - before == 333
    assert (told["not_started"], told["unfinished"], told["errors"]) == (0, 0, [])
    assert told["latency_us"]["min"] > 0
    assert told["loop"] == ("open" if "--rate" in options else "closed")
    assert (told["start_delay_us"] is not None) == ("--rate" in options)
    assert told["typed"] == ("--interface" in options)
    assert (told["method"], told["target"]) == ("shop.Counter/add", bench.endpoint)
    assert told["calls_per_s"] == pytest.approx(333 / told["duration_s"], rel=0.01)


@pytest.mark.parametrize("options", [[], ["--processes", "2"]])
def test_the_warm_up_is_not_counted(bench: Bench, options: list[str]) -> None:
    before = bench.made()
    told = bench.told("shop.Counter.add", "first=1", "--calls", "50", "--warm-up", "0.05", *options)
    assert told["calls"] == 50
    assert bench.made() - before > 50


def test_an_open_loop_makes_rate_times_seconds_calls(bench: Bench) -> None:
    before = bench.made()
    told = bench.told(
        *("shop.Counter.add", "first=1", "--rate", "400", "--seconds", "0.25", "--warm-up", "0"),
    )
    assert told["calls"] == bench.made() - before == 100
    assert told["rate"] == 400


@pytest.mark.parametrize(
    "arguments",
    [
        ["first=3", "second=4"],
        ["[3, 4]"],
        ['{"first": 3, "second": 4}'],
        ["--args", '{"first": 3}', "second=4"],
    ],
)
def test_arguments_are_written_as_those_of_call(bench: Bench, rpcfw: Rpcfw, arguments: list[str]) -> None:
    assert bench.told("shop.Counter/add", *arguments, "--calls", "1")["succeeded"] == 1
    called = rpcfw("call", "shop.Counter/add", *arguments, "-e", bench.endpoint)
    assert called.out == "7\n"


@pytest.mark.parametrize("typed", [[], ["--interface", "counter:Counter"]])
def test_metadata_goes_with_each_call(bench: Bench, rpcfw: Rpcfw, typed: list[str]) -> None:
    run = f"run-{len(typed)}"
    assert bench.told("shop.Counter.add", "[1]", "--calls", "3", "-m", f"run={run}", *typed)["succeeded"] == 3
    assert run in rpcfw("call", "shop.Counter.runs", "-e", bench.endpoint).out


@pytest.mark.parametrize("typed", [[], ["--interface", "counter:Counter"]])
def test_errors_are_told_by_code_with_an_example_and_do_not_fail_the_command(
    bench: Bench, typed: list[str]
) -> None:
    told = bench.told("shop.Counter.sell", '[{"sku": "tea"}]', "--calls", "80", *typed)
    assert (told["succeeded"], told["failed"]) == (40, 40)
    errors = {error["error"]: (error["count"], error["example"]) for error in told["errors"]}
    assert errors == {"NOT_FOUND": (20, "no tea here"), "SoldOut": (20, "sku='tea'")}
    done = bench("shop.Counter.sell", '[{"sku": "tea"}]', "--calls", "80", *typed)
    assert done.code == 0
    assert re.search(r"\nfailed +40  50\.0 %\n", done.out)
    assert re.search(r"\nSoldOut +20 +25\.0 % +[\d.]+ (us|ms) +sku='tea'\n", f"{done.out}\n")


def test_it_exits_with_1_when_no_call_succeeded(bench: Bench) -> None:
    told = bench.told("shop.Counter.wait", "--calls", "5", "--timeout", "0.05", code=1)
    assert (told["succeeded"], told["failed"], told["latency_us"]) == (0, 5, None)
    assert [error["error"] for error in told["errors"]] == ["DEADLINE_EXCEEDED"]
    assert "latency" not in bench("shop.Counter.wait", "--calls", "5", "--timeout", "0.05").out


def test_nothing_is_tried_again(bench: Bench) -> None:
    before = bench.made()
    assert bench.told("shop.Counter.away", "--calls", "20", code=1)["failed"] == 20
    assert bench.made() - before == 20


def test_what_an_open_loop_could_not_start_is_told(bench: Bench) -> None:
    options = ("--rate", "1000", "--calls", "20", "--in-flight", "4", "--timeout", "0.5")
    told = bench.told("shop.Counter.wait", *options, code=1)
    assert told["calls"] + told["not_started"] == 20
    assert 4 <= told["calls"] < 20
    done = bench("shop.Counter.wait", *options)
    assert re.search(r"\d+ calls were not started, as 4 were in flight", done.out)


def test_a_stream_is_read_to_its_end_and_its_items_counted(bench: Bench) -> None:
    before = bench.made()
    told = bench.told("shop.Counter.numbers", "upto=70", "--calls", "6", "-n", "2")
    assert (told["calls"], told["items"]) == (bench.made() - before, 6 * 70)
    assert told["items_per_s"] == pytest.approx(420 / told["duration_s"], rel=0.01)
    out = bench("shop.Counter.numbers", "upto=70", "--calls", "6", "--interface", "counter:Counter").out
    assert re.search(r"\nitems +420\nitems/s +[\d,]+\n", out)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_the_calls_are_shared_among_the_servers_of_a_registry(
    bench: Bench, rpcfw: Rpcfw, start: Start, counter: tuple[str, Path], folder: Path, processes: str
) -> None:
    (folder / "counter.py").write_text(COUNTER)
    other = start("run", "counter.py:Counter", "--listen", "tcp://127.0.0.1:0").serving()[0]
    (folder / "services.toml").write_text(f'[services]\n"shop.Counter" = ["{bench.endpoint}", "{other}"]\n')
    here, there = bench, Bench(rpcfw, other)
    both = Bench(rpcfw, f"file://{folder}/services.toml")
    before = here.made()
    told = both.told("shop.Counter.add", "[1]", "--calls", "400", "-n", "16", "--processes", processes)
    assert told["nodes"] == {here.endpoint: here.made() - before, other: there.made()}
    assert sum(told["nodes"].values()) == told["calls"] == 400
    warmed = both.told(
        "shop.Counter.add", "[1]", "--calls", "400", "--warm-up", "0.05", "--processes", processes
    )
    assert sum(warmed["nodes"].values()) == 400
    out = both("shop.Counter.add", "[1]", "--calls", "400").out
    assert re.search(rf"\nNODE +CALLS +SHARE\n─+\n{here.endpoint} |{other} ", out)


def test_the_report_for_people_is_aligned(bench: Bench) -> None:
    done = bench("shop.Counter.add", "[1]", "--calls", "1000", "--in-flight", "16", "--connections", "2")
    assert (done.code, done.err) == (0, "")
    heading, facts, latencies, bars = done.out.split("\n\n")[:4]
    assert heading == f"shop.Counter/add at {bench.endpoint}\n16 in flight, 2 connections"
    assert [line.split("  ")[0] for line in facts.splitlines()] == [
        "calls",
        "duration",
        "calls/s",
        "client CPU",
    ]
    assert re.match(r"calls +1,000\n", facts)
    names, values = latencies.splitlines()
    assert names.split()[2:] == LATENCIES
    assert [match.end() for match in re.finditer(r"\S+", names)][2:] == [
        match.end() for match in re.finditer(r"\S+", values)
    ]
    rows = [re.fullmatch(r"up to +([\d.,]+) (?:us|ms|s) +([\d,]+)( +#+)?", row) for row in bars.splitlines()]
    assert sum(int(row[2].replace(",", "")) for row in rows if row) == 1000
    bounds = [float(row[1].replace(",", "")) for row in rows if row]
    assert bounds == sorted(bounds)
    assert len(bounds) == 10


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["shop.Counter.ad", "[1]"], 4, "shop.Counter has no method 'ad'; it has add, made"),
        (["shp.Counter.add", "[1]"], 4, "no service 'shp.Counter' at this server; it serves shop.Counter"),
        (["shop.Counter", "[1]"], 2, "name a method too: add, made"),
        (["shop.Counter.add"], 2, "'first' is missing; the method is add(first: int, second: int = 0)"),
        (["shop.Counter.add", "first=x"], 2, "first='x' is not int"),
        (
            ["shop.Counter.add", "[1, 2, 3]"],
            2,
            "'[1, 2, 3]' has 3 arguments, too many; the method is add(first",
        ),
        (["shop.Counter.add", "[1"], 2, "'[1' is not JSON"),
        (["shop.Counter.add", "[1]", "--args", "{}"], 2, "--args and '[1]' both give the arguments"),
        (["shop.Counter.add", '["x"]'], 4, "INVALID_ARGUMENT: shop.Counter/add: first: expected `int`"),
        (["shop.Counter.add", '["x"]', "--processes", "2"], 4, "INVALID_ARGUMENT: shop.Counter/add: first"),
        (
            ["shop.Counter.add", '["x"]', "--interface", "counter:Counter"],
            2,
            "shop.Counter/add: first: expected",
        ),
        (
            ["shop.Counter.add", "[1]", "--interface", "counter:Sale"],
            2,
            "'counter:Sale' is no class decorated",
        ),
        (["shop.Counter.add", "[1]", "--interface", "Counter"], 2, "write module:Class"),
        (["rpcfw.Health.check", "--interface", "counter:Counter"], 2, "name the class of rpcfw.Health"),
        (["shop.Counter.total"], 2, "takes a stream, and rpcfw bench sends none; it can call add, made"),
        (["shop.Counter.tell", "what=x"], 2, "is one-way: no reply comes"),
        (["shop.Counter.add", "[1]", "-m", "x"], 2, "--metadata 'x' is not key=value"),
        (["shop.Counter.add", "[1]", "-p", "9", "-n", "8"], 2, "--processes 9 is more than --in-flight 8"),
        (["shop.Counter.add", "[1]", "-p", "9", "-c", "8"], 2, "--processes 9 is more than --calls 8"),
        (["shop.Counter.add", "[1]", "--rate", "fast"], 2, "'fast'"),
    ],
)
def test_what_cannot_be_called_is_told_with_the_mend(
    bench: Bench, arguments: list[str], code: int, said: str
) -> None:
    done = bench(*arguments)
    assert (done.code, done.out) == (code, "")
    assert said in " ".join(done.err.split())


def test_an_endpoint_that_is_none_or_where_nobody_is_is_told(rpcfw: Rpcfw, tmp_path: Path) -> None:
    done = rpcfw("bench", "127.0.0.1:7000", "shop.Counter.add")
    assert (done.code, done.out) == (2, "")
    assert "'127.0.0.1:7000' is neither an endpoint nor a registry" in done.err
    done = rpcfw("bench", f"unix://{tmp_path}/nobody.sock", "shop.Counter.add", "--json")
    assert (done.code, done.out) == (3, "")
    assert json.loads(done.err)["error"] == "UNAVAILABLE"


@pytest.mark.parametrize("processes", ["1", "2"])
def test_ctrl_c_reports_what_was_measured_so_far(start: Start, folder: Path, processes: str) -> None:
    (folder / "counter.py").write_text(COUNTER)
    server = start("run", "counter.py:Counter", "--listen", "tcp://127.0.0.1:0")
    options = ("--in-flight", "6", "--processes", processes, "--warm-up", "0", "--json")
    running = start("bench", server.serving()[0], "shop.Counter.wait", *options)
    server.wait_for("waiting 6")
    running.signal(signal.SIGINT)
    assert running.code() == 130
    told = json.loads(running.text)
    assert (told["interrupted"], told["calls"], told["unfinished"]) == (True, 0, 6)


def test_ctrl_c_in_the_warm_up_measures_nothing(start: Start, folder: Path) -> None:
    (folder / "counter.py").write_text(COUNTER)
    server = start("run", "counter.py:Counter", "--listen", "tcp://127.0.0.1:0")
    running = start("bench", server.serving()[0], "shop.Counter.wait", "-n", "3", "--warm-up", "600")
    server.wait_for("waiting 3")
    running.signal(signal.SIGINT)
    assert running.code() == 130
    assert re.search(r"^calls +0  interrupted by Ctrl-C$", running.text, re.MULTILINE)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_server_that_goes_away_meanwhile_is_an_error_of_the_calls(
    start: Start, folder: Path, processes: str
) -> None:
    (folder / "counter.py").write_text(COUNTER)
    server = start("run", "counter.py:Counter", "--listen", "tcp://127.0.0.1:0")
    options = ("-n", "4", "--calls", "12", "--processes", processes, "--json")
    running = start("bench", server.serving()[0], "shop.Counter.wait", *options)
    server.wait_for("waiting 4")
    server.signal(signal.SIGKILL)
    assert running.code() == 1
    told = json.loads(running.text)
    assert [(error["error"], error["count"]) for error in told["errors"]] == [("UNAVAILABLE", 12)]


# ------------------------------------------------------------------------------------------ the report by itself


def reported(plan: Plan, change: Callable[[Tally], None], count: int = 1) -> Report:
    tally = Tally(elapsed_s=2.0)
    for _ in range(100):
        tally.latencies.record(0.001)
    change(tally)
    schema = {"service": "shop.Orders", "methods": {}, "definitions": {}}
    target = Target("tcp://127.0.0.1:7000", schema, "get", {}, {})
    return Report(target, plan, count, 0.0, tally, False)


@pytest.mark.parametrize(
    ("in_flight", "processes", "cpu_s", "limit"),
    [(64, 1, 1.91, True), (64, 1, 1.89, False), (1, 1, 2.0, False), (64, 2, 3.82, True), (64, 2, 3.0, False)],
)
def test_a_client_that_used_up_its_processor_is_told_to_be_the_limit(
    in_flight: int, processes: int, cpu_s: float, limit: bool
) -> None:
    report = reported(Plan(in_flight), lambda tally: setattr(tally, "cpu_s", cpu_s), processes)
    assert report.as_data()["client_was_the_limit"] is limit
    assert (f"The client itself was the limit: the server may be faster; try --processes {2 * processes}."
            in report.as_text()) is limit  # fmt: skip


@pytest.mark.parametrize(("elapsed_s", "limit"), [(0.2, False), (0.3, True)])
def test_a_run_that_is_soon_over_tells_no_limit(elapsed_s: float, limit: bool) -> None:
    def change(tally: Tally) -> None:
        tally.elapsed_s = tally.cpu_s = elapsed_s

    assert reported(Plan(64), change).as_data()["client_was_the_limit"] is limit


@pytest.mark.parametrize(("late", "limit"), [(9, False), (11, True)])
def test_a_client_that_is_behind_its_schedule_is_told_to_be_the_limit(late: int, limit: bool) -> None:
    def change(tally: Tally) -> None:
        tally.cpu_s = 2.0  # it waits awake: that says nothing
        for number in range(100):
            tally.delays.record(0.002 if number < late else 0.00001)

    report = reported(Plan(10_000, rate=50), change)
    assert report.as_data()["client_was_the_limit"] is limit
    assert ("did not keep the schedule" in report.as_text()) is limit
    assert "began late" in report.as_text()


def test_the_rows_of_the_histogram_are_the_calls_by_latency() -> None:
    def change(tally: Tally) -> None:
        for latency_s in [0.0101] * 40 + [0.1] * 10:
            tally.latencies.record(latency_s)

    bars = reported(Plan(1), change).as_text().split("\n\n")[3].splitlines()
    assert [re.sub(" +", " ", row) for row in (bars[0], bars[5], bars[9])] == [
        "up to 1.58 ms 100 " + "#" * 40,
        "up to 15.8 ms 40 " + "#" * 16,
        "up to 100 ms 10 " + "#" * 4,
    ]
    assert {row.split()[-1] for row in bars[1:5] + bars[6:9]} == {"0"}


def test_progress_shows_calls_rate_p99_and_errors() -> None:
    tally = Tally(elapsed_s=4.0)
    assert _so_far(tally) == "4 s: 0 calls, 0/s, p99 -, errors 0"
    for _ in range(4000):
        tally.latencies.record(0.25)
    tally.fail(ValueError("x"), 0.1)
    assert _so_far(tally) == "4 s: 4,001 calls, 1,000/s, p99 250 ms, errors 1"
