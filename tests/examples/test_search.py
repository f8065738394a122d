"""The search example: its server through the generated stub, and its callers with their statistics."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest

import rpcfw
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
from examples.search.index import Index
from examples.search.server import SearchServer
from examples.search.stubs import SearchStub
from examples.search.traffic import TIMES_ASKED, Attempts, Traffic, Turn, percentile
from examples.search.trouble import SLOW_S, Trouble, Word
from examples.search.workload import (
    Question,
    count_question,
    counts_while_uploading,
    find_question,
    questions_about,
    refine_question,
    upload_question,
)
from rpcfw.balancer import Node
from rpcfw.middleware import Retry
from rpcfw.testing.virtual_clock import VirtualClock
from rpcfw.transport import MemoryTransport

T = TypeVar("T")
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
async def stub_of(
    server: SearchServer, *middleware: rpcfw.Middleware, on_server: Sequence[rpcfw.Middleware] = ()
) -> AsyncIterator[SearchStub]:
    memory = {"mem": MemoryTransport()}
    async with (
        rpcfw.serve(server, listen="mem://search", transports=memory, middleware=on_server),
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


class Gated(SearchServer):
    """Answers once its gate is open."""

    def __init__(self) -> None:
        super().__init__(small_index(), "a")
        self.asked, self.gate = asyncio.Event(), asyncio.Event()

    async def count(self, query: str) -> Count:
        self.asked.set()
        await self.gate.wait()
        return await super().count(query)


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


async def test_callers_ask_until_they_are_stopped_and_each_answer_counts_for_its_node_and_turn(
    stub: SearchStub,
) -> None:
    traffic = Traffic(stub, await questions_about(stub), callers=3)
    traffic.turn = turn = Turn()
    running_calls = asyncio.create_task(traffic.run())
    await traffic.answer_of("a")
    traffic.turn = None
    await traffic.answer_of("a")
    traffic.stop()
    await running_calls
    assert traffic.failed == 0, traffic.problems
    assert 0 < turn.by_node["a"] == turn.by_node.total() < traffic.calls
    assert len(turn.latencies_ms) == turn.by_node.total()


async def test_an_answer_to_a_call_that_began_before_is_not_waited_for() -> None:
    server = Gated()
    async with stub_of(server) as stub:
        question = count_question("animal", [Count(2, 5)])
        traffic = Traffic(stub, [question], callers=1)
        early = asyncio.create_task(traffic.ask(question))
        await server.asked.wait()
        waiting = asyncio.create_task(traffic.answer_of("a"))
        other = asyncio.create_task(traffic.answer_of("b"))
        await asyncio.sleep(0)
        server.gate.set()
        await early
        await asyncio.sleep(0)
        assert not waiting.done()
        await traffic.ask(question)
        await waiting
        assert not other.done()
        other.cancel()


async def test_a_call_that_broke_in_its_middle_is_asked_again_at_another_server() -> None:
    memory = {"mem": MemoryTransport()}
    question = upload_question(DOCUMENTS)
    async with (
        rpcfw.serve(Faulty(breaks=1000), listen="mem://faulty", transports=memory),
        rpcfw.serve(SearchServer(small_index(), "well"), listen="mem://well", transports=memory),
        rpcfw.connect(
            "mem://faulty", "mem://well", transports=memory, balancer=Stubborn(), middleware=[Retry()]
        ) as client,
    ):
        traffic = Traffic(SearchStub(client), [question], callers=1)
        await traffic.ask(question)
    assert (traffic.calls, traffic.asked_again, traffic.failed) == (1, 1, 0), traffic.problems


class Stubborn:
    """A balancer that prefers the same node each time."""

    def pick(self, nodes: Sequence[Node], call: rpcfw.Call) -> Node:
        return min(nodes, key=lambda node: node.endpoint.address)


def test_percentiles_are_those_of_the_nearest_rank() -> None:
    values = [float(nth) for nth in reversed(range(1, 201))]
    assert [percentile(values, percent) for percent in (50, 99, 100)] == [100.0, 198.0, 200.0]
    assert math.isnan(percentile([], 50))


# the trouble that is made for a server


async def test_a_server_does_as_it_is_told_line_by_line() -> None:
    trouble, lines = Trouble(), asyncio.StreamReader()
    heeding = asyncio.create_task(trouble.heed(lines))
    question = count_question("animal", [Count(2, 5)])
    async with stub_of(SearchServer(small_index(), "a"), on_server=[trouble]) as stub:
        for word in (Word.FAILING, Word.WELL):
            lines.feed_data(f"{word.value}\n".encode())
            while trouble.word is not word:
                await asyncio.sleep(0)
            traffic = Traffic(stub, [question], callers=1)
            await traffic.ask(question)
            assert traffic.failed == (word is Word.FAILING)
    lines.feed_eof()
    await heeding


async def test_a_slow_server_takes_longer_by_a_known_time(virtual_clock: VirtualClock) -> None:
    trouble = Trouble()
    trouble.word = Word.SLOW
    async with stub_of(SearchServer(small_index(), "a"), on_server=[trouble]) as stub:
        await stub.count("animal")
        before_s = virtual_clock.elapsed_s
        await stub.count("animal")
        assert SLOW_S <= virtual_clock.elapsed_s - before_s < SLOW_S + 0.1
