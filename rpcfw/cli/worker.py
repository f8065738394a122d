"""One worker of `rpcfw run --workers N`: a fresh interpreter that serves, tied to its supervisor by a socket.

The socket tells the supervisor that calls are taken, and how the services do. When it closes, the supervisor is gone,
however it ended: the worker drains and ends too. Started as ``python -m rpcfw.cli.worker FD OPTIONS``; nothing else is
to use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import threading

import rpcfw
from rpcfw.cli.crew import Word
from rpcfw.cli.output import reporting, say
from rpcfw.cli.run import GRACE_S, LATE_S, RunOptions, end_now, serve


def main(descriptor: str, options_json: str) -> None:
    """Serve until told to stop by a signal, or by the end of the supervisor."""
    options = RunOptions(**json.loads(options_json))
    link = socket.socket(fileno=int(descriptor))
    link.set_inheritable(False)
    threading.Thread(target=_end_with, args=(link, options.grace_s), name="rpcfw-link", daemon=True).start()
    telling: list[asyncio.Task[None]] = []

    def tell(server: rpcfw.Server, hint: str) -> None:
        link.sendall(_word(server, hint).to_line())
        telling.append(asyncio.get_running_loop().create_task(_tell_changes(link, server, hint)))

    with reporting(debug=options.debug):
        serve(options, tell, as_worker=True)


def _word(server: rpcfw.Server, hint: str) -> Word:
    services = {spec.name: spec.version for spec in server.specs}
    return Word(hint, services, server.health.unhealthy())


async def _tell_changes(link: socket.socket, server: rpcfw.Server, hint: str) -> None:
    """Tell the supervisor how the services do, whenever that changes."""
    told = server.health.unhealthy()
    with contextlib.suppress(OSError):  # nobody is there to be told
        while not server.health.ended:
            if told == server.health.unhealthy():
                await server.health.changed()
                continue
            told = server.health.unhealthy()
            # in a thread: a supervisor that does not read must not hold up the loop
            await asyncio.to_thread(link.sendall, _word(server, hint).to_line())


def _end_with(link: socket.socket, grace_s: float | None) -> None:
    """A thread of its own, since a handler may block the loop."""
    # Where the supervisor died before it had read what was said, the link is reset instead of closed.
    with contextlib.suppress(OSError):
        while link.recv(64):
            pass
    say(f"the supervisor is gone: worker {os.getpid()} drains and ends")
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait((GRACE_S if grace_s is None else grace_s) + LATE_S)
    end_now(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
