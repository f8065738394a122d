"""What the demo asks: a fixed list of questions of all four kinds of call, and how to tell a wrong answer.

Each question knows how to ask itself through a generated stub. Who asks how often, and what is counted, is the
business of `traffic`.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import rpcfw
from examples.search.contract import Action, Count, Document, Refinement, Search
from examples.search.corpus import python_files, read_source
from examples.search.index import Index
from examples.search.query import Query
from examples.search.stubs import SearchStub

_METHODS = rpcfw.spec_of(Search).methods

COUNTS = (
    "asyncio",
    "chunk timeout",
    "thread lock",
    "urllib.parse",
    "json decode error",
    "ThreadPoolExecutor",
    '"except OSError"',
    '"raise NotImplementedError"',
    'socket timeout "except OSError"',
    "weakref callback",
)
FINDS = (
    ("async await", 50),
    ('"class OrderedDict"', 10),
    ("ssl context", 100),
    ('"with open"', 200),
    ("zipfile", 100),
    ("pickle protocol", 400),
)
REFINEMENTS = (
    (
        Refinement("socket"),
        Refinement("timeout"),
        Refinement('"except OSError"'),
        Refinement("timeout", Action.REMOVE),
    ),
    (
        Refinement("queue"),
        Refinement("multiprocessing"),
        Refinement("queue", Action.REMOVE),
        Refinement("fork"),
    ),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """One call to make.

    Attributes:
        method: what is called.
        sent: the messages that go out: the arguments, or the items of the caller's stream.
        ask: makes the call and yields the messages that come back.
        problem: what is wrong with the messages that came back; empty when nothing is.
    """

    method: rpcfw.MethodSpec
    sent: Sequence[Any]
    ask: Callable[[SearchStub], AsyncIterator[Any]]
    problem: Callable[[Sequence[Any]], str]


def uploaded_documents() -> list[Document]:
    """What is uploaded: the source of this very example."""
    root = Path(__file__).parent
    return [
        Document(f"examples/search/{file.relative_to(root).as_posix()}", read_source(file))
        for file in python_files(root)
    ]


async def questions_about(stub: SearchStub) -> list[Question]:
    """The fixed list in the order in which it is asked; what the server behind `stub` answers now is the truth."""
    documents = uploaded_documents()
    counts = [
        count_question(query, counts_while_uploading(query, await stub.count(query), documents))
        for query in COUNTS
    ]
    finds = [
        find_question(query, limit, len([hit async for hit in stub.find(query, limit)]))
        for query, limit in FINDS
    ]
    refinements = [refine_question(steps) for steps in REFINEMENTS]
    return [
        *counts[:5],
        *finds[:3],
        refinements[0],
        *counts[5:],
        *finds[3:],
        refinements[1],
        upload_question(documents),
    ]


def counts_while_uploading(query: str, before: Count, documents: Sequence[Document]) -> list[Count]:
    """Every right answer of a server that may have taken some of the documents: counts of separate files add up."""
    index, right = Index(), [before]
    for document in documents:
        index.add(document.path, document.text)
        matches = index.search(Query.parse(query))
        added = sum(match.occurrences for match in matches)
        right.append(Count(before.files + len(matches), before.occurrences + added))
    return right


def count_question(query: str, right: Sequence[Count]) -> Question:
    """Unary: a wrong answer is a count that no server can have."""

    async def ask(stub: SearchStub) -> AsyncIterator[Count]:
        yield await stub.count(query)

    def problem(replies: Sequence[Any]) -> str:
        return "" if replies[0] in right else f"count({query!r}) gave {replies[0]}, and {right[0]} is right"

    return Question(_METHODS["count"], [query], ask, problem)


def find_question(query: str, limit: int, at_least: int) -> Question:
    """Server stream: a wrong answer has too few hits or too many."""

    def problem(replies: Sequence[Any]) -> str:
        if at_least <= len(replies) <= limit:
            return ""
        return f"find({query!r}, {limit}) gave {len(replies)} hits, and {at_least} or more are right"

    return Question(_METHODS["find"], [query, limit], lambda stub: stub.find(query, limit), problem)


def upload_question(documents: Sequence[Document]) -> Question:
    """Client stream: a wrong answer counts other documents or bytes than were sent."""
    right = (len(documents), sum(len(document.text.encode()) for document in documents))

    async def one_after_another() -> AsyncIterator[Document]:
        for document in documents:
            yield document

    async def ask(stub: SearchStub) -> AsyncIterator[Any]:
        yield await stub.upload(one_after_another())

    def problem(replies: Sequence[Any]) -> str:
        got = (replies[0].documents, replies[0].size_bytes)
        return "" if got == right else f"upload gave {replies[0]}, and (documents, bytes) = {right} were sent"

    return Question(_METHODS["upload"], documents, ask, problem)


def refine_question(steps: Sequence[Refinement]) -> Question:
    """Both ways, like a person: the next step is taken once the last one has been answered."""

    async def ask(stub: SearchStub) -> AsyncIterator[Any]:
        turn = asyncio.Semaphore(1)

        async def one_at_a_time() -> AsyncIterator[Refinement]:
            for step in steps:
                await turn.acquire()
                yield step

        async for refined in stub.refine(one_at_a_time()):
            yield refined
            turn.release()

    def problem(replies: Sequence[Any]) -> str:
        return "" if len(replies) == len(steps) else f"refine answered {len(replies)} of {len(steps)} steps"

    return Question(_METHODS["refine"], steps, ask, problem)
