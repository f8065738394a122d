"""`rpcfw call`, `list`, `describe` and `services`: the arguments, options and help of commands that ask servers."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from rpcfw.cli.notation import DEFAULT_REGISTRY
from rpcfw.cli.options import (
    ArgsOption,
    CaOption,
    CertOption,
    DebugOption,
    EndpointOption,
    JsonOption,
    KeyOption,
    MetadataOption,
    MethodArgument,
    TimeoutOption,
    ValuesArgument,
    endpoint_of,
)
from rpcfw.cli.output import reporting


def call(  # noqa: PLR0913  # an option each
    method: MethodArgument,
    arguments: ValuesArgument = None,
    endpoint: EndpointOption = None,
    args: ArgsOption = None,
    stdin: Annotated[bool, typer.Option("--stdin", help="Read that JSON object from stdin.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", "-t", min=0.001, max=40_000, metavar="SECONDS", help="How long the call may take."
        ),
    ] = None,
    metadata: MetadataOption = None,
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
      rpcfw call shop.Orders/get '[7]'
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
                endpoint_of(endpoint),
                timeout,
                metadata or (),
                show_metadata,
                why,
                as_json=json,
                transports=transports_of(ca, cert, key),
            )
        )


def list_services(  # noqa: PLR0913  # an option each
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
        from rpcfw.cli.show import list_services as list_them

        transports = transports_of(ca, cert, key)
        list_them(endpoint_of(endpoint), as_json=json, timeout_s=timeout, transports=transports)


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
            endpoint_of(endpoint),
            as_json=json,
            as_schema=schema,
            timeout_s=timeout,
            transports=transports_of(ca, cert, key),
        )


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
