"""An inverted index over source text: which files contain a query's terms, how well, and on which lines.

Pure data structure: no files, no network, no threads (use it from one thread at a time). All words of all
documents are numbered in one sequence; a posting list is the ascending array of the numbers at which a
spelling stands, and a document or a line is a range of numbers. Source: Clarke, Cormack and Burkowski, "An
algebra for structured text search" (1995); for the ranking, BM25, Robertson and Zaragoza, "The probabilistic
relevance framework" (2009).
"""

from __future__ import annotations

import dataclasses
import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Self

import msgspec

from examples.search.query import Query, Term, spellings, words_of

_TF_SATURATION = 1.2
_LENGTH_WEIGHT = 0.75
_LONGEST_LINE = 200
_NOWHERE: array[int] = array("I")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class IndexedDocument:
    """A document as the index holds it. Its line n begins with word number `line_starts[n - 1]`."""

    path: str
    text: str
    size_bytes: int
    words: int
    line_starts: array[int]


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """A line of a matching document, without the blanks around it, cut at 200 characters. Counts from 1."""

    number: int
    text: str


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Match:
    """A document that matches a query. `positions` has the word numbers of each term's occurrences in it."""

    document: IndexedDocument
    score: float
    positions: tuple[array[int], ...]

    @property
    def occurrences(self) -> int:
        """How often the query's terms occur in the document."""
        return sum(map(len, self.positions))

    def lines(self) -> Iterator[Line]:
        """The lines on which an occurrence begins, from first to last."""
        starts = self.document.line_starts
        numbers = sorted({bisect_right(starts, position) for found in self.positions for position in found})
        text = self.document.text.split("\n")
        for number in numbers:
            yield Line(number, text[number - 1].strip()[:_LONGEST_LINE])


class _Dump(msgspec.Struct, array_like=True):
    """An index as bytes. A document is its path, text, bytes, words and line starts; None where one was replaced."""

    postings: dict[str, bytes]
    documents: list[tuple[str, str, int, int, bytes] | None]
    starts: bytes


class Index:
    """Documents that can be searched as soon as they are added.

    A replaced document leaves its word numbers behind, unseen, until the index goes; numbers end at 2**32.
    """

    def __init__(self) -> None:
        self._postings: dict[str, array[int]] = {}
        self._documents: list[IndexedDocument | None] = []
        self._starts = array("I", [0])
        self._place_by_path: dict[str, int] = {}
        self._words = 0
        self._size_bytes = 0

    @property
    def documents(self) -> int:
        return len(self._place_by_path)

    @property
    def size_bytes(self) -> int:
        """The bytes of all texts in UTF-8."""
        return self._size_bytes

    @property
    def words(self) -> int:
        return self._words

    def add(self, path: str, text: str) -> IndexedDocument:
        """Index a document; one of the same path is replaced. Takes about 70 ms per million characters."""
        self._forget(path)
        start = number = self._starts[-1]
        line_starts = array("I")
        postings = self._postings
        for line in text.split("\n"):
            line_starts.append(number)
            for word in words_of(line):
                for spelling in spellings(word):
                    numbers = postings.get(spelling)
                    if numbers is None:
                        numbers = postings[spelling] = array("I")
                    numbers.append(number)
                number += 1
        size_bytes = len(text.encode(errors="surrogatepass"))
        document = IndexedDocument(path, text, size_bytes, number - start, line_starts)
        self._place_by_path[path] = len(self._documents)
        self._documents.append(document)
        self._starts.append(number + 1)  # a number that no word has, so that no phrase runs on past the end
        self._words += document.words
        self._size_bytes += size_bytes
        return document

    def dump(self) -> bytes:
        """All that is indexed, for `load` on the same machine: numbers stand there as its processor has them."""
        documents = [
            None
            if document is None
            else (
                document.path,
                document.text,
                document.size_bytes,
                document.words,
                document.line_starts.tobytes(),
            )
            for document in self._documents
        ]
        postings = {spelling: numbers.tobytes() for spelling, numbers in self._postings.items()}
        return msgspec.msgpack.encode(_Dump(postings, documents, self._starts.tobytes()))

    @classmethod
    def load(cls, data: bytes) -> Self:
        """The index that `dump` gave, in a twentieth of the time. Raises msgspec.DecodeError for anything else."""
        dump = msgspec.msgpack.decode(data, type=_Dump)
        index = cls()
        index._postings = {spelling: _numbers(raw) for spelling, raw in dump.postings.items()}
        index._starts = _numbers(dump.starts)
        for place, known in enumerate(dump.documents):
            if known is None:
                index._documents.append(None)
                continue
            path, text, size_bytes, words, line_starts = known
            index._documents.append(IndexedDocument(path, text, size_bytes, words, _numbers(line_starts)))
            index._place_by_path[path] = place
            index._words += words
            index._size_bytes += size_bytes
        return index

    def search(self, query: Query) -> list[Match]:
        """Every document that contains all terms of the query, best first, those of equal score by path."""
        per_term = [self._documents_with(self._positions(term)) for term in query.terms]
        rarities = [self._rarity(len(documents)) for documents in per_term]
        average_words = max(1.0, self._words / max(1, self.documents))
        matches = []
        for document in filter(None, self._documents):
            if not all(document in documents for documents in per_term):
                continue
            positions = tuple(documents[document] for documents in per_term)
            length = 1 - _LENGTH_WEIGHT + _LENGTH_WEIGHT * document.words / average_words
            score = sum(
                rarity * len(found) * (_TF_SATURATION + 1) / (len(found) + _TF_SATURATION * length)
                for rarity, found in zip(rarities, positions, strict=True)
            )
            matches.append(Match(document, score, positions))
        matches.sort(key=lambda match: (-match.score, match.document.path))
        return matches

    def _forget(self, path: str) -> None:
        place = self._place_by_path.pop(path, None)
        old = None if place is None else self._documents[place]
        if place is not None and old is not None:
            self._documents[place] = None
            self._words -= old.words
            self._size_bytes -= old.size_bytes

    def _rarity(self, documents: int) -> float:
        # The 1 is Lucene's: without it a word that most documents have would count against them.
        return math.log(1 + (self.documents - documents + 0.5) / (documents + 0.5))

    def _positions(self, term: Term) -> array[int]:
        """Where the term begins: near its rarest word, wherever the other words stand where they should."""
        lists = [self._postings.get(word, _NOWHERE) for word in term]
        if len(lists) == 1:
            return lists[0]
        rarest, *others = sorted(range(len(lists)), key=lambda nth: len(lists[nth]))
        begins = [position - rarest for position in lists[rarest]]
        for nth in others:
            begins = [begin for begin in begins if _contains(lists[nth], begin + nth)]
        return array("I", begins)

    def _documents_with(self, positions: array[int]) -> dict[IndexedDocument, array[int]]:
        """The ascending positions, shared out to the documents in which they lie."""
        shares = {}
        low = 0
        while low < len(positions):
            place = bisect_right(self._starts, positions[low]) - 1
            high = bisect_left(positions, self._starts[place + 1], low)
            document = self._documents[place]
            if document is not None:
                shares[document] = positions[low:high]
            low = high
        return shares


def _numbers(raw: bytes) -> array[int]:
    numbers = array("I")
    numbers.frombytes(raw)
    return numbers


def _contains(ascending: array[int], value: int) -> bool:
    place = bisect_left(ascending, value)
    return place < len(ascending) and ascending[place] == value
