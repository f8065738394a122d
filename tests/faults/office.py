"""The service of the fault runs, and one server process of it: it writes down what it ran, before it answers.

    python -m tests.faults.office --registry URL --ledger FILE

The ledger is appended to with one write for each call that changes something, so that it survives SIGKILL, and what ran
twice stands there twice.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from pathlib import Path

import uvloop

import rpcfw

ANSWERING_S = 0.02
"""From the entry in the ledger to the answer."""


@rpcfw.service("faults.Office")
class Office:
    """Counts letters, and takes orders that must not be taken twice."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    @rpcfw.idempotent
    async def length(self, text: str) -> int:
        """May be asked as often as one likes."""
        return len(text)

    async def order(self, number: str) -> int:
        """Must not run twice for one number. It runs a while before it answers, so that kills fall in between."""
        os.write(self._ledger, f"{number}\n".encode())
        await asyncio.sleep(ANSWERING_S)
        return os.getpid()


async def serve(registry: str, ledger: Path) -> None:
    """Serve until SIGTERM; then leave the registry, drain, and end."""
    async with (
        rpcfw.serve(Office(ledger), grace_s=10.0) as server,
        rpcfw.register(server, registry) as membership,
    ):
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stopped.set)
        await membership.registered.wait()
        print(f"serving at {server.endpoint.address}", flush=True)
        await stopped.wait()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.office")
    parser.add_argument("--registry", required=True)
    parser.add_argument("--ledger", required=True, type=Path)
    options = parser.parse_args()
    uvloop.run(serve(options.registry, options.ledger))


if __name__ == "__main__":
    main()
