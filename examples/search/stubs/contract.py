"""Client stubs and server skeletons of `examples.search.contract`; edit the interface, not this file.

Made by `rpcfw gen examples.search.contract -o examples/search/stubs`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator

import rpcfw

from ..contract import Count, Document, Hit, Refined, Refinement, Search, Status, Uploaded

_SEARCH = rpcfw.spec_of(Search)
_SEARCH_COUNT = _SEARCH.methods["count"]
_SEARCH_FIND = _SEARCH.methods["find"]
_SEARCH_UPLOAD = _SEARCH.methods["upload"]
_SEARCH_REFINE = _SEARCH.methods["refine"]
_SEARCH_STATUS = _SEARCH.methods["status"]


class SearchStub(rpcfw.Stub):
    """Full-text search over source code.

    A query is one or more terms, all of which a file must contain. A term is a word, which matches a whole
    identifier or any part of one (``chunk`` matches ``read_chunk`` and ``ChunkReader``), or an
    ``"exact phrase"`` of words that follow each other, whatever punctuation stands between them. Case does
    not matter.
    """

    service = _SEARCH

    async def count(self, query: str) -> Count:
        """Say how many files match, and how often the query's terms occur in them."""
        return await self._call(_SEARCH_COUNT, (query,))

    def find(self, query: str, limit: int = 100) -> AsyncIterator[Hit]:
        """Stream the matching lines as they are found, best file first, at most `limit` of them."""
        return self._stream(_SEARCH_FIND, (query, limit))

    async def upload(self, documents: AsyncIterator[Document]) -> Uploaded:
        """Add documents to the index of the one server that takes the call; each is searchable on arrival."""
        return await self._call(_SEARCH_UPLOAD, (documents,))

    def refine(self, steps: AsyncIterator[Refinement]) -> AsyncIterator[Refined]:
        """Search interactively: each step changes the query and is answered with where the search stands."""
        return self._stream(_SEARCH_REFINE, (steps,))

    async def status(self) -> Status:
        """Tell which server this is and how much it holds."""
        return await self._call(_SEARCH_STATUS, ())


class SearchBlockingStub(rpcfw.BlockingStub):
    """Full-text search over source code.

    A query is one or more terms, all of which a file must contain. A term is a word, which matches a whole
    identifier or any part of one (``chunk`` matches ``read_chunk`` and ``ChunkReader``), or an
    ``"exact phrase"`` of words that follow each other, whatever punctuation stands between them. Case does
    not matter.
    """

    service = _SEARCH

    def count(self, query: str) -> Count:
        """Say how many files match, and how often the query's terms occur in them."""
        return self._call(_SEARCH_COUNT, (query,))

    def find(self, query: str, limit: int = 100) -> Iterator[Hit]:
        """Stream the matching lines as they are found, best file first, at most `limit` of them."""
        return self._stream(_SEARCH_FIND, (query, limit))

    def upload(self, documents: Iterable[Document]) -> Uploaded:
        """Add documents to the index of the one server that takes the call; each is searchable on arrival."""
        return self._call(_SEARCH_UPLOAD, (documents,))

    def refine(self, steps: Iterable[Refinement]) -> Iterator[Refined]:
        """Search interactively: each step changes the query and is answered with where the search stands."""
        return self._stream(_SEARCH_REFINE, (steps,))

    def status(self) -> Status:
        """Tell which server this is and how much it holds."""
        return self._call(_SEARCH_STATUS, ())


class SearchSkeleton(rpcfw.Skeleton):
    """Full-text search over source code.

    A query is one or more terms, all of which a file must contain. A term is a word, which matches a whole
    identifier or any part of one (``chunk`` matches ``read_chunk`` and ``ChunkReader``), or an
    ``"exact phrase"`` of words that follow each other, whatever punctuation stands between them. Case does
    not matter.
    """

    service = _SEARCH

    @abstractmethod
    async def count(self, query: str) -> Count:
        """Say how many files match, and how often the query's terms occur in them."""

    @abstractmethod
    def find(self, query: str, limit: int = 100) -> AsyncIterator[Hit]:
        """Stream the matching lines as they are found, best file first, at most `limit` of them.

        Implement as `async def` with `yield`.
        """

    @abstractmethod
    async def upload(self, documents: AsyncIterator[Document]) -> Uploaded:
        """Add documents to the index of the one server that takes the call; each is searchable on arrival."""

    @abstractmethod
    def refine(self, steps: AsyncIterator[Refinement]) -> AsyncIterator[Refined]:
        """Search interactively: each step changes the query and is answered with where the search stands.

        Implement as `async def` with `yield`.
        """

    @abstractmethod
    async def status(self) -> Status:
        """Tell which server this is and how much it holds."""
