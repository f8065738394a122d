"""`rpcfw new`, `gen` and `check`: the arguments, options and help of commands that work on files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rpcfw.cli.options import DebugOption, JsonOption, WidthOption
from rpcfw.cli.output import reporting


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
