"""`rpcfw registry`: serves rpcfw's own registry in this process, with the signals and the drain of `rpcfw run`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import rpcfw
from rpcfw.cli.output import CommandError, Exit, say
from rpcfw.cli.run import LOG_FORMAT, RunOptions, end_in_time, loop_factory, serve_thing
from rpcfw.naming import serve

_WILDCARDS = ("0.0.0.0", "::")


def run(listen: Sequence[str], lease_s: float, *, uvloop: bool | None = None) -> None:
    """Serve a registry until told to stop.

    Args:
        listen: endpoints.
        lease_s: how long a registration outlives its server, in seconds.
        uvloop: see `RunOptions`.
    """

    def make() -> rpcfw.Server:
        try:
            return serve(listen, lease_s=lease_s)
        except ValueError as error:
            raise CommandError(str(error), Exit.USAGE) from error

    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    with asyncio.Runner(loop_factory=loop_factory(uvloop)) as runner:
        runner.run(serve_thing(make, RunOptions("the registry"), _tell, False))
    end_in_time()


def _tell(server: rpcfw.Server, hint: str) -> None:
    endpoint = server.endpoint
    host = "HOST" if endpoint.host in _WILDCARDS else endpoint.host
    if endpoint.scheme in ("tcp", "tls"):
        url = f"rpcfw://{f'[{host}]' if ':' in host else host}:{endpoint.port}"
        url += "?ca=FILE" if endpoint.scheme == "tls" else ""
        say(f"servers: rpcfw run app.py --register {url}")
        say(f"clients: rpcfw.connect({url!r})")
