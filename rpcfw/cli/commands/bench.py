"""`rpcfw bench`: its arguments, options and help."""

from __future__ import annotations

from typing import Annotated

import typer

from rpcfw.cli.options import (
    ArgsOption,
    CaOption,
    CertOption,
    DebugOption,
    JsonOption,
    KeyOption,
    MetadataOption,
    MethodArgument,
    ValuesArgument,
)
from rpcfw.cli.output import reporting

DEFAULT_SECONDS = 10.0
DEFAULT_WARM_UP_S = 1.0
DEFAULT_IN_FLIGHT = 64
DEFAULT_BOUND = 10_000
"""Calls in flight of an open loop: some 50 MB of them."""


def bench(  # noqa: PLR0913  # an option each
    endpoint: Annotated[
        str,
        typer.Argument(metavar="ENDPOINT", help="The server to call, or a registry that lists some."),
    ],
    method: MethodArgument,
    arguments: ValuesArgument = None,
    in_flight: Annotated[
        int | None,
        typer.Option(
            *("--in-flight", "-n"),
            min=1,
            metavar="N",
            help=f"Calls in progress all the time; with --rate the most there may be. Default: {DEFAULT_IN_FLIGHT}, "
            f"with --rate {DEFAULT_BOUND:,}",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            *("--rate", "-r"),
            min=0.001,
            max=1e7,
            metavar="R",
            help="Begin so many calls a second, whatever happens to those before.",
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            *("--seconds", "-s"),
            min=0.001,
            max=1e6,
            metavar="S",
            help=f"How long calls begin. Default: {DEFAULT_SECONDS:g}, with --calls no limit",
        ),
    ] = None,
    calls: Annotated[
        int | None, typer.Option("--calls", "-c", min=1, metavar="N", help="Stop after so many calls.")
    ] = None,
    warm_up: Annotated[
        float | None,
        typer.Option(
            "--warm-up",
            min=0.0,
            max=1e6,
            metavar="S",
            help=f"Call for so long beforehand, uncounted. Default: {DEFAULT_WARM_UP_S:g}, with --calls 0",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", "-t", min=0.001, max=40_000, metavar="SECONDS", help="How long a call may take."
        ),
    ] = None,
    connections: Annotated[
        int, typer.Option("--connections", min=1, max=10_000, metavar="N", help="To each server.")
    ] = 1,
    processes: Annotated[
        int,
        typer.Option(
            *("--processes", "-p"),
            min=1,
            max=256,
            metavar="N",
            help="Share the load among processes, each with connections of its own.",
        ),
    ] = 1,
    interface: Annotated[
        str | None,
        typer.Option(
            "--interface",
            metavar="MODULE:CLASS",
            help="Call by typed stubs of this interface, which build and read its messages.",
        ),
    ] = None,
    args: ArgsOption = None,
    metadata: MetadataOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Put load on a method, and report latencies, rates and errors.

    The method and its arguments are given as to rpcfw call; each call has the same
    ones. A reply that is a stream is read to its end, or cut off 10 s after the end
    of --seconds when neither --timeout nor the interface bounds it. Nothing is tried
    again: one call is one call.

    --in-flight N is a closed loop: N calls are always in progress, so it shows what
    a server can do at most. --rate R is an open loop: calls begin on schedule,
    however slow the replies are, and the latency counts from then, so it shows what
    clients feel at that rate. What cannot begin, as too many are in flight, is told.

    Ctrl-C ends it with what was measured so far. The exit code is 1 when no call
    succeeded, and 4 when the first is refused as all others would be.

    Examples:
      rpcfw bench tcp://127.0.0.1:7000 shop.Orders.get order_id=7
      rpcfw bench tcp://127.0.0.1:7000 shop.Orders/get '[7]' --seconds 30 --in-flight 256
      rpcfw bench zeroconf:// shop.Orders.get order_id=7 --rate 2000 --timeout 0.5
      rpcfw bench unix:///run/shop.sock shop.Orders.get order_id=7 --calls 10000 --json
      rpcfw bench tcp://127.0.0.1:7000 shop.Orders.get order_id=7 --interface shop.contract:Orders
    """
    with reporting(as_json=json, debug=debug):
        from rpcfw.cli.bench import BenchOptions
        from rpcfw.cli.bench import bench as put_load
        from rpcfw.cli.load import Plan

        default_s = DEFAULT_SECONDS if calls is None else None
        default_warm_up_s = DEFAULT_WARM_UP_S if calls is None else 0.0
        put_load(
            BenchOptions(
                endpoint,
                method,
                Plan(
                    in_flight or (DEFAULT_IN_FLIGHT if rate is None else DEFAULT_BOUND),
                    rate,
                    default_s if seconds is None else seconds,
                    calls,
                ),
                pairs=arguments or (),
                arguments=args,
                metadata=metadata or (),
                warm_up_s=default_warm_up_s if warm_up is None else warm_up,
                timeout_s=timeout,
                connections=connections,
                processes=processes,
                interface=interface,
                tls=(ca, cert, key),
                as_json=json,
            )
        )
