"""The `rpcfw` command: the arguments, options and help of every command, those of `rpcfw sim` excepted.

What the commands do is in the modules beside this one, imported when one runs, so that help and completion are quick.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import rpcfw
from rpcfw.cli import sim
from rpcfw.cli.notation import DEFAULT_ENDPOINT, DEFAULT_REGISTRY
from rpcfw.cli.options import DebugOption, JsonOption
from rpcfw.cli.output import EXIT_CODES, EXIT_CODES_SHORT, reporting

DEFAULT_REGISTRY_ENDPOINT = "tcp://127.0.0.1:7400"
"""Where `rpcfw registry` listens unless told otherwise."""
_ABOUT = "Typed RPC between Python services: serve, call, look, generate, compare."


class _Commands(TyperGroup):
    """All commands. Of a value that cannot be read they tell the value too, which Typer does not always."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # Typer's is a subclass of its own
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            told: Any = getattr(error.__cause__, "errors", None)  # pydantic's
            value = told()[0].get("input") if told is not None else None
            if isinstance(value, str) and repr(value) not in error.message:
                error.message = f"{value!r}: {error.message[:1].lower()}{error.message[1:]}"
            raise


app = typer.Typer(
    cls=_Commands,
    name="rpcfw",
    help=f"{_ABOUT}\n\n{EXIT_CODES}\n\nResults go to stdout, all else to stderr. rpcfw COMMAND --help shows examples.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

EndpointOption = Annotated[
    str | None,
    typer.Option(
        *("--endpoint", "-e"),
        metavar="URL",
        help="The server to ask, or a registry that lists some, such as zeroconf://. "
        f"Default: RPCFW_ENDPOINT of the environment, else {DEFAULT_ENDPOINT}",
    ),
]
_TLS_FILE = {"exists": True, "dir_okay": False, "metavar": "FILE"}
CaOption = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        **_TLS_FILE,
        help="PEM file of the roots to trust at tls:// servers, whatever their URL or a registry says.",
    ),
]
CertOption = Annotated[
    Path | None, typer.Option("--cert", **_TLS_FILE, help="PEM file of a certificate to show them.")
]
KeyOption = Annotated[
    Path | None, typer.Option("--key", **_TLS_FILE, help="Its private key, if that is not in the same file.")
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", min=0.001, max=40_000, metavar="SECONDS", help="How long to wait.")
]
WidthOption = Annotated[
    int, typer.Option("--width", min=60, metavar="COLUMNS", help="Where lines are broken.")
]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"rpcfw {rpcfw.__version__}")
        raise typer.Exit


def _endpoint(given: str | None) -> str:
    return given or os.environ.get("RPCFW_ENDPOINT") or DEFAULT_ENDPOINT


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of the command as a whole; its help is that of `app`."""


@app.command(epilog=EXIT_CODES_SHORT)
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


@app.command(epilog=EXIT_CODES_SHORT)
def call(  # noqa: PLR0913  # an option each
    method: Annotated[
        str, typer.Argument(metavar="SERVICE.METHOD", help="Greeter.hello, shop.Orders.get, shop.Orders/get")
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE...", help="Arguments by name.", show_default=False),
    ] = None,
    endpoint: EndpointOption = None,
    args: Annotated[
        str | None, typer.Option("--args", metavar="JSON", help="Arguments as a JSON object.")
    ] = None,
    stdin: Annotated[bool, typer.Option("--stdin", help="Read that JSON object from stdin.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", "-t", min=0.001, max=40_000, metavar="SECONDS", help="How long the call may take."
        ),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", "-m", metavar="KEY=VALUE", help="Send it beside the arguments."),
    ] = None,
    show_metadata: Annotated[
        bool, typer.Option("--show-metadata", help="Print what comes back beside the reply, on stderr.")
    ] = False,
    why: Annotated[
        bool,
        typer.Option(
            "--why", help="Print which router, balancer, breaker or retry decided what, and why, on stderr."
        ),
    ] = False,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Call a method of a running server, which says itself how.

    Values are read as the method declares them: numbers, true or false, text
    without quotes, JSON for lists and messages. Bytes are text, base64:..., or
    @FILE for the content of a file; null is None where None is allowed.

    A reply that is text is printed as it is, others as JSON; --json prints
    everything as one line of JSON. A stream is printed as it comes, a line of
    JSON per item. Where the method takes a stream, items are read from stdin, a
    line of JSON each.

    Examples:
      rpcfw call Greeter.hello name=Ada
      rpcfw call shop.Orders.place order='{"sku": "x-1"}' --timeout 0.5
      rpcfw call shop.Orders.watch user=ada | head -n 3
      rpcfw call search.Search.upload < documents.jsonl
      rpcfw call photos.Album.add data=@cat.jpg -m trace=7 -e tcp://10.0.0.7:7000
      rpcfw call shop.Orders.get order_id=7 --endpoint zeroconf:// --why
    """
    with reporting(as_json=json, debug=debug):
        from rpcfw.cli.call import CallOptions
        from rpcfw.cli.call import call as call_once
        from rpcfw.cli.reach import transports_of

        call_once(
            CallOptions(
                method,
                arguments or (),
                args,
                stdin,
                _endpoint(endpoint),
                timeout,
                metadata or (),
                show_metadata,
                why,
                as_json=json,
                transports=transports_of(ca, cert, key),
            )
        )


@app.command("list", epilog=EXIT_CODES_SHORT)
def list_(  # noqa: PLR0913  # an option each
    endpoint: EndpointOption = None,
    timeout: TimeoutOption = 5.0,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the services of a running server.

    Any server can be asked, whatever it serves, or a registry for all that it
    lists. rpcfw services shows who serves them.

    Examples:
      rpcfw list
      rpcfw list -e zeroconf://
      rpcfw list -e unix:///run/shop.sock --json
    """
    with reporting(as_json=json, debug=debug):
        from rpcfw.cli.reach import transports_of
        from rpcfw.cli.show import list_services

        transports = transports_of(ca, cert, key)
        list_services(_endpoint(endpoint), as_json=json, timeout_s=timeout, transports=transports)


@app.command(epilog=EXIT_CODES_SHORT)
def describe(  # noqa: PLR0913  # an option each
    name: Annotated[
        str | None, typer.Argument(metavar="SERVICE[.METHOD]", help="Everything the server has unless given.")
    ] = None,
    endpoint: EndpointOption = None,
    timeout: TimeoutOption = 5.0,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the schema, as rpcfw check reads it.")
    ] = False,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show the methods of a running server as Python, with documentation and messages.

    The schema, which --schema prints, is the same as plain data.

    Examples:
      rpcfw describe shop.Orders
      rpcfw describe shop.Orders.place --json
      rpcfw describe shop.Orders --schema > released.json
    """
    with reporting(as_json=json, debug=debug):
        from rpcfw.cli.reach import transports_of
        from rpcfw.cli.show import describe as describe_services

        describe_services(
            name,
            _endpoint(endpoint),
            as_json=json,
            as_schema=schema,
            timeout_s=timeout,
            transports=transports_of(ca, cert, key),
        )


@app.command(epilog=EXIT_CODES_SHORT)
def services(  # noqa: PLR0913  # an option each
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SERVICE...", help="All that the registry lists unless given.", show_default=False
        ),
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option(
            *("--registry", "-r"),
            metavar="URL",
            help=f"The registry to ask. Default: RPCFW_REGISTRY of the environment, else {DEFAULT_REGISTRY}",
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch/--once", help="Go on, and show what changes as it does, until Ctrl-C.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", min=0.001, max=600, metavar="SECONDS", help="How long registry and servers may take."
        ),
    ] = 2.0,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show who provides what: the servers in a registry, and how they do.

    Each server is asked itself: whether it does well, how many calls it is
    running, how much its event loop lags. One that cannot be reached is shown
    with the reason. With --json it is one document; with --watch one a line.

    Examples:
      rpcfw services
      rpcfw services shop.Orders --registry etcd://10.0.0.5:2379 --watch
      rpcfw services --json | jq '.[] | select(.health != "SERVING")'
    """
    with reporting(as_json=json, debug=debug):
        from rpcfw.cli.reach import transports_of
        from rpcfw.cli.services import show, watch_on

        url = registry or os.environ.get("RPCFW_REGISTRY") or DEFAULT_REGISTRY
        transports = transports_of(ca, cert, key)
        (watch_on if watch else show)(
            url, names or (), as_json=json, timeout_s=timeout, transports=transports
        )


@app.command("registry", epilog=EXIT_CODES_SHORT)
def registry_(
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


@app.command(epilog=EXIT_CODES_SHORT)
def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Of the folder and, in capitals, of the service.")
    ],
    debug: DebugOption = False,
) -> None:
    """Make a small project that runs at once: interface, server, client, tests.

    Files that are there already are never overwritten.

    Examples:
      rpcfw new greeter
      cd greeter && rpcfw run server.py
    """
    with reporting(debug=debug):
        from rpcfw.cli.scaffold import new as write_project

        write_project(name, Path())


@app.command(epilog=EXIT_CODES_SHORT)
def gen(  # noqa: PLR0913  # an option each
    target: Annotated[
        str,
        typer.Argument(
            metavar="PACKAGE_OR_MODULE", help="Where interfaces are declared: shop, shop/contract.py"
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="A folder for generated files only.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 5 if something would change.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the schema instead, as rpcfw check reads it.")
    ] = False,
    width: WidthOption = 110,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write client stubs, async and blocking, and server skeletons for interfaces.

    Commit what is written; gen --check in CI tells when it is stale.

    Examples:
      rpcfw gen shop.contract -o shop/stubs
      rpcfw gen shop.contract -o shop/stubs --check
      rpcfw gen shop.contract --schema > released.json
    """
    with reporting(as_json=json, debug=debug):
        from rpcfw.cli import gen as generator

        if schema:
            generator.print_schema(target)
        else:
            act = generator.check_files if check else generator.generate_files
            act(target, generator.output_folder(output), width=width, as_json=json)


@app.command(epilog=EXIT_CODES_SHORT)
def check(
    old: Annotated[
        str, typer.Argument(metavar="OLD", help="A module, a package, a folder, or a schema file (*.json).")
    ],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The same for the new version.")],
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Tell what changed between two versions of interfaces, and what of it breaks.

    A change is safe when old and new clients understand old and new servers.

    Examples:
      rpcfw check released.json shop.contract
      rpcfw check ../shop-1.0/shop shop --json
    """
    with reporting(as_json=json, debug=debug):
        from rpcfw.cli.gen import check_versions

        check_versions(old, new, as_json=json)


app.add_typer(sim.app, name="sim")


def main() -> None:
    """The console script."""
    app(prog_name="rpcfw")
