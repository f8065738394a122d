"""Options that several commands have, each with the same words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from rpcfw.cli.notation import DEFAULT_ENDPOINT

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs; errors too, on stderr.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
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
MethodArgument = Annotated[
    str, typer.Argument(metavar="SERVICE.METHOD", help="Greeter.hello, shop.Orders.get, shop.Orders/get")
]
ValuesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE...",
        help="Arguments by name, or one JSON list or object of them.",
        show_default=False,
    ),
]
ArgsOption = Annotated[str | None, typer.Option("--args", metavar="JSON", help="Arguments as a JSON object.")]
MetadataOption = Annotated[
    list[str] | None,
    typer.Option("--metadata", "-m", metavar="KEY=VALUE", help="Send it beside the arguments."),
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", min=0.001, max=40_000, metavar="SECONDS", help="How long to wait.")
]
WidthOption = Annotated[
    int, typer.Option("--width", min=60, metavar="COLUMNS", help="Where lines are broken.")
]


def endpoint_of(given: str | None) -> str:
    """What `EndpointOption` says, else the environment, else the default."""
    return given or os.environ.get("RPCFW_ENDPOINT") or DEFAULT_ENDPOINT
