"""The search example: its server through the generated stub, its callers' statistics, and the demo as it is run."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

import rpcfw
from examples.search.cluster import ServerFailed, free_ports, running
from examples.search.contract import (
    Action,
    BadQuery,
    Count,
    Document,
    Hit,
    RankedFile,
    Refined,
    Refinement,
    Uploaded,
)
from examples.search.demo import commands_to_try
from examples.search.index import Index
from examples.search.server import SearchServer
from examples.search.stubs import SearchStub
from examples.search.traffic import TIMES_ASKED, Attempts, MethodStatistics, Phase, Traffic
from examples.search.workload import (
    Question,
    count_question,
    counts_while_uploading,
    find_question,
    questions_about,
    refine_question,
    upload_question,
)
from rpcfw.middleware import Retry
from rpcfw.transport import MemoryTransport

T = TypeVar("T")
PROJECT = Path(__file__).parents[2]
TEXTS = {
    "zoo.py": "def feed(animal):\n    return animal.eat('hay')\n",
    "farm.py": "animal = 'cow'\nanimal_feed = 'hay'\nprint(animal)\n",
    "empty.py": "",
}


def small_index() -> Index:
    index = Index()
    for path, text in TEXTS.items():
        index.add(path, text)
    return index


@asynccontextmanager
async def stub_of(server: SearchServer, *middleware: rpcfw.Middleware) -> AsyncIterator[SearchStub]:
    memory = {"mem": MemoryTransport()}
    async with (
        rpcfw.serve(server, listen="mem://search", transports=memory),
        rpcfw.connect("mem://search", middleware=middleware, transports=memory) as client,
    ):
        yield SearchStub(client)


@pytest.fixture
async def stub() -> AsyncIterator[SearchStub]:
    async with stub_of(SearchServer(small_index(), "a")) as stub:
        yield stub


async def each(items: Sequence[T]) -> AsyncIterator[T]:
    for item in items:
        yield item


# the four kinds of call


async def test_count_gives_the_files_and_the_occurrences(stub: SearchStub) -> None:
    assert await stub.count("animal") == Count(files=2, occurrences=5)
    assert await stub.count("animal feed") == Count(files=2, occurrences=7)
    assert await stub.count("unicorn") == Count(0, 0)


async def test_find_streams_the_lines_of_the_best_file_first(stub: SearchStub) -> None:
    hits = [hit async for hit in stub.find("animal")]
    assert [(hit.path, hit.line, hit.text) for hit in hits] == [
        ("farm.py", 1, "animal = 'cow'"),
        ("farm.py", 2, "animal_feed = 'hay'"),
        ("farm.py", 3, "print(animal)"),
        ("zoo.py", 1, "def feed(animal):"),
        ("zoo.py", 2, "return animal.eat('hay')"),
    ]
    assert hits[0].score == hits[2].score > hits[3].score > 0


@pytest.mark.parametrize(("limit", "expected"), [(0, 0), (1, 1), (4, 4), (5, 5), (6, 5)])
async def test_find_ends_at_its_limit(stub: SearchStub, limit: int, expected: int) -> None:
    assert len([hit async for hit in stub.find("animal", limit)]) == expected


async def test_an_uploaded_document_is_found_while_the_upload_goes_on(stub: SearchStub) -> None:
    found_after: list[int] = []

    async def documents() -> AsyncIterator[Document]:
        for number in (1, 2):
            yield Document(f"zebra{number}.txt", "Zebra größe")
            while (await stub.count("zebra")).files < number:
                pass
            found_after.append(number)

    assert await stub.upload(documents()) == Uploaded(documents=2, size_bytes=26, words=4)
    assert found_after == [1, 2]


async def test_refine_answers_each_step_before_the_next_is_taken(stub: SearchStub) -> None:
    answers: asyncio.Queue[Refined] = asyncio.Queue()
    queries: list[str] = []

    async def steps() -> AsyncIterator[Refinement]:
        for step in (Refinement("animal"), Refinement('"def feed"'), Refinement("ANIMAL", Action.REMOVE)):
            yield step
            queries.append((await answers.get()).query)

    refined = []
    async for answer in stub.refine(steps()):
        refined.append(answer)
        answers.put_nowait(answer)
    assert queries == ["animal", 'animal "def feed"', '"def feed"']
    assert [answer.count for answer in refined] == [Count(2, 5), Count(1, 3), Count(1, 1)]
    assert [best.path for best in refined[0].best] == ["farm.py", "zoo.py"]


async def test_a_query_that_cannot_be_read_arrives_as_the_declared_error(stub: SearchStub) -> None:
    bad = 'say "hay'
    calls = (stub.count(bad), anext(stub.find(bad)), anext(stub.refine(each([Refinement(bad)]))))
    for call in calls:
        with pytest.raises(BadQuery, match="add a closing quote") as caught:
            await call
        assert caught.value.query == bad


async def test_every_reply_says_which_node_gave_it(stub: SearchStub) -> None:
    about: dict[str, str | bytes] = {}
    curious = stub.with_options(reply_metadata=about)
    for question in (count_question("animal", []), *BREAKABLE):
        about.clear()
        assert [reply async for reply in question.ask(curious)]
        assert about == {"node": "a"}, question.method.path


async def test_status_tells_what_the_server_holds(stub: SearchStub) -> None:
    status = await stub.status()
    assert (status.node, status.pid, status.documents) == ("a", os.getpid(), 3)
    assert status.size_bytes == sum(map(len, TEXTS.values()))


# the callers


class Faulty(SearchServer):
    """Breaks off, as a server that dies does, so many of its answers."""

    def __init__(self, breaks: int) -> None:
        super().__init__(small_index(), "faulty")
        self.breaks = breaks

    async def count(self, query: str) -> Count:
        self._break_off()
        return await super().count(query)

    async def find(self, query: str, limit: int = 100) -> AsyncIterator[Hit]:
        yield Hit("first", 1, "", 1.0)
        self._break_off()
        async for hit in super().find(query, limit - 1):
            yield hit

    async def upload(self, documents: AsyncIterator[Document]) -> Uploaded:
        self._break_off()
        return await super().upload(documents)

    async def refine(self, steps: AsyncIterator[Refinement]) -> AsyncIterator[Refined]:
        self._break_off()
        async for step in steps:
            yield Refined(step.term, Count(0, 0), [RankedFile("first", 1.0)])

    def _break_off(self) -> None:
        self.breaks -= 1
        if self.breaks >= 0:
            raise rpcfw.RpcError(rpcfw.Code.UNAVAILABLE, "broke off")


DOCUMENTS = [Document("a", "animal"), Document("b", "another animal")]
BREAKABLE = [
    find_question("animal", 3, 3),
    upload_question(DOCUMENTS),
    refine_question([Refinement("animal"), Refinement("feed")]),
]


@pytest.mark.parametrize("question", BREAKABLE, ids=lambda question: question.method.name)
async def test_a_caller_asks_again_when_a_stream_breaks_in_its_middle(question: Question) -> None:
    async with stub_of(Faulty(breaks=1), Retry()) as stub:
        traffic = Traffic(stub, [question], callers=1)
        await traffic.ask(question)
    statistics = traffic.by_method[question.method.name]
    assert (statistics.calls, statistics.asked_again, statistics.failed) == (1, 1, 0)
    assert len(statistics.latencies_ms) == 1


@pytest.mark.parametrize("question", BREAKABLE, ids=lambda question: question.method.name)
async def test_a_call_that_keeps_breaking_is_a_failed_call(question: Question) -> None:
    async with stub_of(Faulty(breaks=TIMES_ASKED), Retry()) as stub:
        traffic = Traffic(stub, [question], callers=1)
        await traffic.ask(question)
    statistics = traffic.by_method[question.method.name]
    assert (statistics.calls, statistics.asked_again, statistics.failed) == (1, TIMES_ASKED - 1, 1)
    assert traffic.failed == 1
    assert "broke off" in traffic.problems[0]


async def test_an_idempotent_call_is_repeated_by_rpcfw_and_not_by_the_caller() -> None:
    attempts, question = Attempts(), count_question("animal", [Count(2, 5)])
    async with stub_of(Faulty(breaks=2), Retry(), attempts) as stub:
        traffic = Traffic(stub, [question], callers=1)
        await traffic.ask(question)
    assert (attempts.by_method["count"], traffic.by_method["count"].asked_again, traffic.failed) == (3, 0, 0)


async def test_without_retry_an_idempotent_call_that_breaks_is_a_failed_call() -> None:
    question = count_question("animal", [Count(2, 5)])
    async with stub_of(Faulty(breaks=1)) as stub:
        traffic = Traffic(stub, [question], callers=1)
        await traffic.ask(question)
    assert traffic.failed == 1


async def test_a_wrong_answer_is_a_failed_call(stub: SearchStub) -> None:
    wrong = [
        count_question("animal", [Count(2, 6)]),
        find_question("animal", 5, at_least=6),
        find_question("animal", 5, at_least=5),
    ]
    traffic = Traffic(stub, wrong, callers=1)
    for question in wrong:
        await traffic.ask(question)
    assert [traffic.by_method[name].failed for name in ("count", "find")] == [1, 1]
    assert "count('animal') gave Count(files=2, occurrences=5)" in traffic.problems[0]


async def test_a_count_is_right_after_any_number_of_the_uploaded_documents(stub: SearchStub) -> None:
    right = counts_while_uploading("animal", await stub.count("animal"), DOCUMENTS)
    assert right == [Count(2, 5), Count(3, 6), Count(4, 7)]
    for so_far in range(len(DOCUMENTS) + 1):
        await stub.upload(each(DOCUMENTS[:so_far]))
        assert await stub.count("animal") == right[so_far]


async def test_bytes_are_those_of_the_messages(stub: SearchStub) -> None:
    question = upload_question(DOCUMENTS)
    traffic = Traffic(stub, [question], callers=1)
    await traffic.ask(question)
    statistics = traffic.by_method["upload"]
    assert statistics.bytes_out == sum(
        len(b"\x82\xa4path\xa1a\xa4text\xa0" + document.text.encode()) for document in DOCUMENTS
    )
    assert statistics.bytes_back == len(b"\x83\xa9documents\x02\xaasize_bytes\x14\xa5words\x03")


async def test_callers_ask_until_they_are_stopped_and_each_answer_counts_for_its_node(
    stub: SearchStub,
) -> None:
    questions = await questions_about(stub)
    traffic = Traffic(stub, questions, callers=3)
    traffic.went_down("a")
    running_calls = asyncio.create_task(traffic.run())
    await traffic.returned.wait()
    traffic.came_back()
    traffic.stop()
    await running_calls
    assert traffic.failed == 0, traffic.problems
    assert traffic.by_node[Phase.BEFORE].total() == 0
    assert traffic.by_node[Phase.DOWN] == {"a": traffic.calls}


def test_percentiles_are_those_of_the_nearest_rank() -> None:
    statistics = MethodStatistics()
    statistics.latencies_ms.extend(float(nth) for nth in reversed(range(1, 201)))
    assert [statistics.percentile_ms(percent) for percent in (50, 99, 100)] == [100.0, 198.0, 200.0]


# the processes


async def test_no_server_process_is_left_when_the_demo_is_cancelled() -> None:
    pids: list[int] = []
    started = asyncio.Event()

    async def demonstrate() -> None:
        async with running(["a", "b"], max_files=1) as servers:
            await asyncio.gather(*(server.served() for server in servers))
            pids.extend(server.pid for server in servers)
            started.set()
            await asyncio.get_running_loop().create_future()

    demo = asyncio.create_task(demonstrate())
    await started.wait()
    assert all(is_alive(pid) for pid in pids)
    demo.cancel()
    with pytest.raises(asyncio.CancelledError):
        await demo
    assert len(pids) == 2
    assert not any(is_alive(pid) for pid in pids)


async def test_a_server_that_ends_by_itself_is_named_with_its_last_words() -> None:
    async with running(["a"], max_files=1) as (server,):
        await server.served()
        await server.check()
        server.kill()
        await server.gone()
        with pytest.raises(
            ServerFailed, match=rf"server a \(pid {server.pid}\) ended with -9.*\n +serving at tcp:"
        ):
            await server.check()


async def test_a_server_that_is_killed_and_started_again_serves_at_its_port() -> None:
    async with running(["a"], max_files=1) as (server,):
        await server.served()
        first = server.pid
        server.kill()
        await server.gone()
        await server.start()
        await server.served()
        async with rpcfw.connect(server.endpoint) as client:
            status = await SearchStub(client).status()
    assert status.pid == server.pid != first


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# the demo as it is run


async def start(*command: str) -> Process:
    """A process that is no terminal's, in the project's folder."""
    env = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
    return await asyncio.create_subprocess_exec(
        *command, cwd=PROJECT, env=env, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
    )


async def test_the_demo_loses_no_call_and_prints_its_tables() -> None:
    demo = await start(sys.executable, "-m", "examples.search.demo", "--seconds", "3", "--files", "300")
    said = (await demo.communicate())[0].decode()
    lines = said.splitlines()
    assert demo.returncode == 0, said
    assert "failed calls: 0" in lines, said
    assert not any(character < " " and character != "\n" for character in said), repr(said)
    assert [line[:5] for line in lines if line.startswith("[")] == ["[1/3]", "[2/3]", "[3/3]"]
    for method in ("count", "find", "refine", "upload"):
        assert (
            sum(line.startswith(f"{method} ") and line.endswith(" 0") for line in map(str.rstrip, lines)) == 1
        ), said
    for event in (
        "SIGKILL to server b",
        "server b is started again",
        "server b answers its first call again",
    ):
        assert sum(event in line for line in lines) == 1, said
    (killed,) = (line for line in lines if line.startswith("b  tcp://"))
    while_down = int(killed.split(")")[1].split("(")[0])
    assert while_down <= 3, f"only replies that were on their way come from a server that is down: {killed}"


async def test_the_demo_ends_with_its_servers_when_it_is_told_to() -> None:
    demo = await start(sys.executable, "-m", "examples.search.demo", "--files", "300")
    assert demo.stdout is not None
    async for line in demo.stdout:
        if line.startswith(b"[1/3]"):
            demo.terminate()
    assert await demo.wait() == 143


async def test_the_command_lines_that_the_demo_ends_with_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    endpoint = f"127.0.0.1:{free_ports(1)[0]}"
    serve, count, find, describe = (
        shlex.split(command.replace("127.0.0.1:7000", endpoint)) for command in commands_to_try()
    )
    server = await start(*serve)
    assert server.stdout is not None
    try:
        async for line in server.stdout:
            if line.startswith(b"serving"):
                break
        outputs = []
        for command in (count, find, describe):
            call = await start(*command)
            output = (await call.communicate())[0].decode()
            assert call.returncode == 0, output
            outputs.append(output)
    finally:
        server.terminate()
        await server.communicate()
    assert json.loads(outputs[0])["files"] > 0
    assert len([json.loads(line)["path"] for line in outputs[1].splitlines()]) == 5
    assert "async def count(query: str) -> Count" in outputs[2]
    assert server.returncode == 0
