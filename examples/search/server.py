"""The search service: the generated skeleton filled in with an index, and one server process around it.

    python -m examples.search.server --registry zeroconf:// --node a
    rpcfw run examples.search.server:make --register zeroconf://

A server indexes first, listens then, and is registered last: until it can answer nobody calls it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import os
import platform
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

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
from examples.search.trouble import Trouble

BEST_FILES = 5
FILES_PER_LINE = 100
LIMITS = rpcfw.Limits(min_ping_interval_s=0.5)
"""The demo's client pings once a second, now and then a little sooner; the usual limit would mind after a while."""


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """The command line.

    Attributes:
        listen: where; port 0 asks the system for a free one.
        node: the server's name, which goes with each reply, and into the registry as the label ``node``.
        registry: the URL of one to be registered in; None for none.
        weight: in the registry.
        max_files: so many are indexed; None for all.
        index_file: the index is read from there if it is there, else written there for other servers; None for neither.
        attached: the server reads from stdin how it is to be, see `trouble`; it ends when stdin does, as that does with
            the process that holds the other end.
    """

    listen: rpcfw.Endpoint
    node: str = "search"
    registry: str | None = None
    weight: int | None = None
    max_files: int | None = None
    index_file: Path | None = None
    attached: bool = False


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
    return SearchServer(await index_stdlib(max_files), node)


async def index_stdlib(max_files: int | None) -> Index:
    """An index of the standard library's source; tells on stderr how far it is."""
    root = stdlib_root()
    files = python_files(root)[:max_files]
    index = Index()
    for done, file in enumerate(files, 1):
        index.add(file.relative_to(root).as_posix(), read_source(file))
        if done % FILES_PER_LINE == 0 or done == len(files):
            print(f"indexed {done} of {len(files)} files", file=sys.stderr, flush=True)
        await asyncio.sleep(0)  # Ctrl-C is heard between two files
    return index


async def shared_index(file: Path, max_files: int | None) -> Index:
    """The index that is kept in a file; where there is none yet, one is made and kept there."""
    index = kept_index(file)
    if index is None:
        index = await index_stdlib(max_files)
        keep_index(file, index)
    return index


def kept_index(file: Path) -> Index | None:
    """What `keep_index` has kept, or None."""
    return Index.load(file.read_bytes()) if file.exists() else None


def keep_index(file: Path, index: Index) -> None:
    """Keep an index for other servers; they find all of it or nothing."""
    unfinished = file.with_suffix(f".{os.getpid()}")
    unfinished.write_bytes(index.dump())
    unfinished.replace(file)


async def serve(options: Options, trouble: Trouble) -> None:
    """Index, serve, register; until this task is cancelled. It leaves the registry then, and calls in progress end."""
    if options.index_file is not None:
        index = await shared_index(options.index_file, options.max_files)
    else:
        index = await index_stdlib(options.max_files)
    implementation = SearchServer(index, options.node)
    async with (
        rpcfw.serve(implementation, listen=options.listen, middleware=[trouble], limits=LIMITS) as server,
        contextlib.AsyncExitStack() as registered,
    ):
        if options.registry is not None:
            membership = rpcfw.register(
                server, options.registry, weight=options.weight, labels={"node": options.node}
            )
            await registered.enter_async_context(membership)
        print(f"serving at {server.endpoint} (node {options.node}, pid {os.getpid()})", flush=True)
        await server.wait_closed()


async def serve_until_told_to_stop(options: Options) -> None:
    """Serve until SIGTERM or SIGINT; a second signal ends the calls in progress too."""
    trouble = Trouble()
    serving = asyncio.ensure_future(serve(options, trouble))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.cancel)
    if options.attached:
        lines = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        heeding = asyncio.ensure_future(trouble.heed(lines))
        heeding.add_done_callback(lambda _: serving.cancel())
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.search.server",
        description="One search server.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--listen", default="tcp://127.0.0.1:0", metavar="URL", help="port 0: any free one")
    parser.add_argument("--node", default="search", metavar="NAME", help="goes with each reply")
    parser.add_argument("--registry", metavar="URL", help="be registered there, such as zeroconf://")
    parser.add_argument("--weight", type=int, metavar="N", help="in the registry")
    parser.add_argument(
        "--files", type=int, metavar="N", help="index the first N files only, for a quick look"
    )
    parser.add_argument(
        "--index", type=Path, metavar="FILE", help="read the index from there, or keep it there"
    )
    parser.add_argument("--attached", action="store_true", help="heed stdin, and end when it ends")
    given = parser.parse_args()
    try:
        listen = rpcfw.Endpoint.parse(given.listen)
    except ValueError as error:
        parser.error(str(error))
    options = Options(
        listen, given.node, given.registry, given.weight, given.files, given.index, given.attached
    )
    try:
        asyncio.run(serve_until_told_to_stop(options))
    except (OSError, ImportError, ValueError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
