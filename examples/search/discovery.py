"""How the demo's servers and its client find each other: multicast DNS where it works, else a registry of rpcfw's own.

Whether it works is tried out, not guessed. Nothing here knows of the search.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
from collections.abc import AsyncIterator

import rpcfw
from examples.search.cluster import ServerFailed, command

OWN = "rpcfw://"
"""Asks for a registry of rpcfw's own that the demo starts itself."""
PROBE_S = 3.0
_START_S = 20.0
_URL = re.compile(rb".*(?:rpcfw|tcp)://(\S+:\d+)").match


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """A registry to meet in: its URL, and a sentence that says why this one."""

    url: str
    why: str


@contextlib.asynccontextmanager
async def meeting_place(wanted: str | None = None) -> AsyncIterator[Found]:
    """The registry that is wanted, or the one that this machine can have.

    Args:
        wanted: the URL of a registry; `OWN` to have one started; None for multicast DNS on loopback if that works.

    Raises:
        ServerFailed: the registry that is to be started does not start.
    """
    if wanted is not None and wanted != OWN:
        yield Found(wanted, "as --registry says")
        return
    why = "as --registry says"
    if wanted is None:
        url = f"zeroconf://127.0.0.1?group=demo-{os.getpid()}"
        problem = await problem_of(url)
        if not problem:
            yield Found(url, "multicast DNS works on this machine's loopback: nothing has to be started")
            return
        why = f"multicast DNS does not work on this machine's loopback ({problem})"
    async with own_registry() as url:
        yield Found(url, f"{why}: rpcfw's own registry, a process of the demo")


async def problem_of(url: str) -> str:
    """What is wrong with a registry: one who tells it something, and another who hears of it. Empty if all is well."""
    try:
        teller, hearer = rpcfw.open_registry(url), rpcfw.open_registry(url)
    except ImportError as error:
        return str(error)
    offer = rpcfw.Registration("search.Probe", rpcfw.Endpoint.parse("tcp://127.0.0.1:9"))
    try:
        async with (
            asyncio.timeout(PROBE_S),
            teller.register(offer),
            contextlib.aclosing(hearer.watch(offer.service)) as snapshots,
        ):
            async for snapshot in snapshots:
                if snapshot:
                    return ""
        return "its watch ended"
    except (TimeoutError, rpcfw.RpcError) as error:
        told = error.message if isinstance(error, rpcfw.RpcError) else f"nothing was heard in {PROBE_S:g} s"
        return teller.problem or hearer.problem or told
    finally:
        await teller.close()
        await hearer.close()


@contextlib.asynccontextmanager
async def own_registry() -> AsyncIterator[str]:
    """A process of ``rpcfw registry`` on loopback, and its URL. Raises ServerFailed if it does not start."""
    async with command("registry", "--listen", "tcp://127.0.0.1:0") as process:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(_START_S):
                url = await _url_in(process.stdout)
        except TimeoutError:
            url = ""
        if not url:
            raise ServerFailed(
                "rpcfw registry did not start; try it: rpcfw registry --listen tcp://127.0.0.1:0"
            )
        yield url


async def _url_in(lines: asyncio.StreamReader) -> str:
    async for line in lines:
        if url := _URL(line):
            return f"rpcfw://{url[1].decode()}"
    return ""
