"""The search service: the generated skeleton filled in with an index, and one server process around it.

    python -m examples.search.server --listen tcp://127.0.0.1:7000 --node a
    rpcfw run examples.search.server:make --listen tcp://127.0.0.1:7000

A server indexes first and listens afterwards: until it can answer, its port is closed and calls go elsewhere.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import signal
import sys
from collections.abc import AsyncIterator

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
    Status,
    Uploaded,
)
from examples.search.corpus import python_files, read_source, stdlib_root
from examples.search.index import Index, Match
from examples.search.query import Query, QueryError
from examples.search.stubs import SearchSkeleton

BEST_FILES = 5
FILES_PER_LINE = 100


class SearchServer(SearchSkeleton):
    """Answers from one index. With each reply goes the name of the node that gave it, as metadata ``node``."""

    def __init__(self, index: Index, node: str) -> None:
        self._index = index
        self._node = node

    async def count(self, query: str) -> Count:
        self._sign()
        return count_of(self._index.search(parse(query)))

    async def find(self, query: str, limit: int = 100) -> AsyncIterator[Hit]:
        self._sign()
        left = limit
        for match in self._index.search(parse(query)):
            for line in match.lines():
                if left <= 0:
                    return
                left -= 1
                yield Hit(match.document.path, line.number, line.text, match.score)
            await asyncio.sleep(0)  # other calls get their turn between two files

    async def upload(self, documents: AsyncIterator[Document]) -> Uploaded:
        self._sign()
        count = size_bytes = words = 0
        async for document in documents:
            added = self._index.add(document.path, document.text)
            count += 1
            size_bytes += added.size_bytes
            words += added.words
            await asyncio.sleep(0)  # and between two documents, even if all have arrived already
        return Uploaded(count, size_bytes, words)

    async def refine(self, steps: AsyncIterator[Refinement]) -> AsyncIterator[Refined]:
        self._sign()
        query = Query()
        async for step in steps:
            terms = parse(step.term)
            query = query.adding(terms) if step.action is Action.ADD else query.removing(terms)
            matches = self._index.search(query)
            best = [RankedFile(match.document.path, match.score) for match in matches[:BEST_FILES]]
            yield Refined(str(query), count_of(matches), best)

    async def status(self) -> Status:
        self._sign()
        index = self._index
        return Status(
            self._node, os.getpid(), platform.python_version(), index.documents, index.size_bytes, index.words
        )

    def _sign(self) -> None:
        rpcfw.set_reply_metadata({"node": self._node})


def parse(text: str) -> Query:
    """Read a query; what the search calls a `QueryError` leaves the service as `BadQuery`."""
    try:
        return Query.parse(text)
    except QueryError as error:
        raise BadQuery(text, str(error)) from error


def count_of(matches: list[Match]) -> Count:
    """How many files matched, and how often the terms occur in them."""
    return Count(len(matches), sum(match.occurrences for match in matches))


async def make(node: str = "search", max_files: int | None = None) -> SearchServer:
    """A server object over the standard library's source; tells on stderr how far the indexing is."""
    root = stdlib_root()
    files = python_files(root)[:max_files]
    index = Index()
    for done, file in enumerate(files, 1):
        index.add(file.relative_to(root).as_posix(), read_source(file))
        if done % FILES_PER_LINE == 0 or done == len(files):
            print(f"indexed {done} of {len(files)} files", file=sys.stderr, flush=True)
        await asyncio.sleep(0)  # Ctrl-C is heard between two files
    return SearchServer(index, node)


async def serve(listen: rpcfw.Endpoint, node: str, max_files: int | None) -> None:
    """Index, then serve until this task is cancelled; calls in progress then end first."""
    implementation = await make(node, max_files)
    async with rpcfw.serve(implementation, listen=listen) as server:
        print(f"serving at {server.endpoint} (node {node}, pid {os.getpid()})", flush=True)
        await server.wait_closed()


async def serve_until_told_to_stop(listen: rpcfw.Endpoint, node: str, max_files: int | None) -> None:
    """Serve until SIGTERM or SIGINT; a second signal ends the calls in progress too."""
    serving = asyncio.ensure_future(serve(listen, node, max_files))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.search.server", description="One search server."
    )
    parser.add_argument(
        "--listen", default="tcp://127.0.0.1:7000", metavar="URL", help="default: %(default)s"
    )
    parser.add_argument(
        "--node", default="search", metavar="NAME", help="goes with each reply, default: %(default)s"
    )
    parser.add_argument(
        "--files", type=int, metavar="N", help="index the first N files only, for a quick look"
    )
    options = parser.parse_args()
    try:
        listen = rpcfw.Endpoint.parse(options.listen)
    except ValueError as error:
        parser.error(str(error))
    try:
        asyncio.run(serve_until_told_to_stop(listen, options.node, options.files))
    except OSError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
