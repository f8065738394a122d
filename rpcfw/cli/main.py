"""The `rpcfw` command: which commands there are. What each takes is in `rpcfw.cli.commands`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import rpcfw
from rpcfw.cli.commands import bench, calls, projects, servers, sim
from rpcfw.cli.output import EXIT_CODES, EXIT_CODES_SHORT

_ABOUT = "Typed RPC between Python services: serve, call, look, measure, generate, compare."


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


def _version(wanted: bool) -> None:
    if wanted:
        print(f"rpcfw {rpcfw.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of the command as a whole; its help is that of `app`."""


_COMMANDS: dict[str, Callable[..., None]] = {
    "run": servers.run,
    "call": calls.call,
    "list": calls.list_services,
    "describe": calls.describe,
    "services": calls.services,
    "bench": bench.bench,
    "registry": servers.registry,
    "new": projects.new,
    "gen": projects.gen,
    "check": projects.check,
}
for _name, _command in _COMMANDS.items():
    app.command(_name, epilog=EXIT_CODES_SHORT)(_command)
app.add_typer(sim.app, name="sim")


def main() -> None:
    """The console script."""
    app(prog_name="rpcfw")
