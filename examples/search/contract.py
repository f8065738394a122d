"""The interface of the search service: what a client may ask, and the messages that travel.

This file is the contract: the stubs in `examples.search.stubs` are generated from it, and nothing else
describes the service. How documents are found is the business of `examples.search.index`.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import AsyncIterator
from typing import Protocol

import rpcfw


class BadQuery(rpcfw.ServiceError):
    """The query cannot be understood. Arrives at the caller as this very exception."""

    query: str
    problem: str


@dataclasses.dataclass(frozen=True, slots=True)
class Count:
    """How much a query matches: files that match it, and places in them where one of its terms stands."""

    files: int
    occurrences: int


@dataclasses.dataclass(frozen=True, slots=True)
class Hit:
    """One matching line. `line` counts from 1; `score` is that of its file, higher is better."""

    path: str
    line: int
    text: str
    score: float


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """A file to be searched. Its path is its identity: uploading the same path again replaces the file."""

    path: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Uploaded:
    """What one upload added: documents, the bytes of their text in UTF-8, and words that can now be found."""

    documents: int
    size_bytes: int
    words: int


class Action(enum.Enum):
    """What a refinement does with its term."""

    ADD = "add"
    REMOVE = "remove"


@dataclasses.dataclass(frozen=True, slots=True)
class Refinement:
    """One step of an interactive search: a word or ``"exact phrase"`` joins the query or leaves it."""

    term: str
    action: Action = Action.ADD


@dataclasses.dataclass(frozen=True, slots=True)
class RankedFile:
    """A matching file and its BM25 score, higher is better."""

    path: str
    score: float


@dataclasses.dataclass(frozen=True, slots=True)
class Refined:
    """Where an interactive search stands after a step: the whole query, what it matches, the best files."""

    query: str
    count: Count
    best: list[RankedFile]


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """Which server answered, and how much it holds."""

    node: str
    pid: int
    python: str
    documents: int
    size_bytes: int
    words: int


@rpcfw.service("search.Search", version="1.0")
class Search(Protocol):
    """Full-text search over source code.

    A query is one or more terms, all of which a file must contain. A term is a word, which matches a whole
    identifier or any part of one (``chunk`` matches ``read_chunk`` and ``ChunkReader``), or an
    ``"exact phrase"`` of words that follow each other, whatever punctuation stands between them. Case does
    not matter.
    """

    @rpcfw.idempotent
    @rpcfw.method(raises=[BadQuery])
    async def count(self, query: str) -> Count:
        """Say how many files match, and how often the query's terms occur in them."""
        ...

    @rpcfw.idempotent
    @rpcfw.method(raises=[BadQuery])
    def find(self, query: str, limit: int = 100) -> AsyncIterator[Hit]:
        """Stream the matching lines as they are found, best file first, at most `limit` of them."""
        ...

    async def upload(self, documents: AsyncIterator[Document]) -> Uploaded:
        """Add documents to the index of the one server that takes the call; each is searchable on arrival."""
        ...

    @rpcfw.method(raises=[BadQuery])
    def refine(self, steps: AsyncIterator[Refinement]) -> AsyncIterator[Refined]:
        """Search interactively: each step changes the query and is answered with where the search stands."""
        ...

    @rpcfw.idempotent
    async def status(self) -> Status:
        """Tell which server this is and how much it holds."""
        ...
