"""`rpcfw run` and `rpcfw registry`: the arguments, options and help of commands that serve."""

from __future__ import annotations

from typing import Annotated

import typer

from rpcfw.cli.notation import DEFAULT_ENDPOINT
from rpcfw.cli.options import DebugOption
from rpcfw.cli.output import reporting

DEFAULT_REGISTRY_ENDPOINT = "tcp://127.0.0.1:7400"
"""Where `rpcfw registry` listens unless told otherwise."""


def run(  # noqa: PLR0913  # an option each
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="A file or module, or one thing in it: app.py, shop.server, app.py:Shop."
        ),
    ],
    listen: Annotated[
        list[str] | None,
        typer.Option(
            "--listen",
            "-l",
            metavar="URL",
            help=f"Where to listen; may be repeated. Default: {DEFAULT_ENDPOINT}",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", "-w", min=1, metavar="N", help="Processes that share the port.")
    ] = 1,
    dev: Annotated[
        bool, typer.Option("--dev", help="Send tracebacks to callers. Not in production.")
    ] = False,
    grace: Annotated[
        float | None,
        typer.Option(
            min=0.0, metavar="SECONDS", help="How long calls may take to end after SIGTERM. Default: 10"
        ),
    ] = None,
    uvloop: Annotated[
        bool | None, typer.Option("--uvloop/--no-uvloop", help="Default: uvloop where it is installed.")
    ] = None,
    register: Annotated[
        list[str] | None,
        typer.Option(
            "--register",
            "-r",
            metavar="URL",
            help="A registry to be found by, such as zeroconf:// or etcd://HOST:2379; may be repeated.",
        ),
    ] = None,
    advertise: Annotated[
        list[str] | None,
        typer.Option(
            "--advertise",
            metavar="URL",
            help="Where clients reach it, if not where it listens; may be repeated.",
        ),
    ] = None,
    weight: Annotated[
        int | None, typer.Option("--weight", min=0, metavar="N", help="Its share of calls. Default: 100")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="KEY=VALUE", help="For routers, such as zone=a; may be repeated."),
    ] = None,
    probes: Annotated[
        str, typer.Option("--probes", metavar="HOST:PORT", help="Answer /livez and /readyz over HTTP there.")
    ] = "",
    debug: DebugOption = False,
) -> None:
    """Serve what a file or module defines.

    The thing after the colon is a decorated class, an instance, a list of
    these, a rpcfw.Server, or a function without parameters (async or not) that
    returns one of them. Without it, every service class that the module defines
    is served.

    SIGTERM or Ctrl-C drains: calls in progress end, new ones go elsewhere. A
    second one ends at once. --workers N starts N processes on one port, and
    again what crashes.

    With --register clients find the server by the names of its services. It is
    registered when it takes calls, all workers as one, and taken off the list
    before it drains.

    Examples:
      rpcfw run app.py
      rpcfw run app.py --register zeroconf:// --label zone=a --probes 127.0.0.1:8080
      rpcfw run shop.server:create --listen tcp://0.0.0.0:7000 --workers 4
      rpcfw run app.py --listen unix:///run/shop.sock --listen tcp://127.0.0.1:0
      rpcfw run app.py --listen 'tls://0.0.0.0:7443?cert=my.pem&key=my.key'
    """
    with reporting(debug=debug):
        from rpcfw.cli.places import PlaceOptions, labels_of
        from rpcfw.cli.run import RunOptions
        from rpcfw.cli.run import run as run_here

        place = PlaceOptions(register or (), advertise or (), weight, labels_of(label or ()), probes)
        chosen = RunOptions(target, listen or [], grace, dev, uvloop, debug, place)
        if workers == 1:
            run_here(chosen)
        else:
            from rpcfw.cli.workers import run_workers

            run_workers(chosen, workers)


def registry(
    listen: Annotated[
        list[str] | None,
        typer.Option(
            *("--listen", "-l"),
            metavar="URL",
            help=f"Where to listen; may be repeated. Default: {DEFAULT_REGISTRY_ENDPOINT}",
        ),
    ] = None,
    lease: Annotated[
        float,
        typer.Option(
            min=0.1, max=86_400, metavar="SECONDS", help="How long a registration outlives its server."
        ),
    ] = 10.0,
    debug: DebugOption = False,
) -> None:
    """Serve rpcfw's own registry, at which servers register and clients find them.

    It keeps nothing on disk. When it was away, calls go on, and servers
    register again as soon as it is back. Run several for one to be there
    always: servers register at all of them, clients see the union.

    SIGTERM or Ctrl-C ends it, as it does rpcfw run.

    Examples:
      rpcfw registry
      rpcfw registry --listen tcp://10.0.0.5:7400 --lease 5
      rpcfw run app.py --register rpcfw://10.0.0.5:7400,10.0.0.6:7400
      rpcfw services --registry rpcfw://10.0.0.5:7400 --watch
    """
    with reporting(debug=debug):
        from rpcfw.cli.registry import run as run_registry

        run_registry(listen or [DEFAULT_REGISTRY_ENDPOINT], lease)
