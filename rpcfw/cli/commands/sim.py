"""`rpcfw sim`: the arguments, options and help of the commands that play simulated scenarios.

What they do is in `rpcfw.cli.scenarios`, imported when one runs, so that help and completion are quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rpcfw.cli.options import DebugOption, JsonOption
from rpcfw.cli.output import EXIT_CODES_SHORT, CommandError, Exit, reporting

DEFAULT_SEEDS = 100

app = typer.Typer(
    help="Play scenarios on a simulated cluster, in virtual time, with many seeds or with one.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.callback()
def options() -> None:
    """Keeps `run` a command of its own, though it is the only one; the help is that of `app`."""


@app.command(epilog=EXIT_CODES_SHORT)
def run(  # noqa: PLR0913  # an option each
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="An async function that takes a Simulation: shop.py:crash, tests.shop:crash",
        ),
    ],
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", min=1, metavar="N", help=f"How many seeds. Default: {DEFAULT_SEEDS}"),
    ] = None,
    first: Annotated[
        int | None, typer.Option("--first", metavar="SEED", help="The first one. Default: 0")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, metavar="N", help="Processes. Default: one per processor."),
    ] = None,
    limit_s: Annotated[
        float | None,
        typer.Option(
            "--limit",
            min=0.001,
            metavar="SECONDS",
            help="Real seconds that one seed may take before it has failed. Default: 300",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="SEED", help="Play this one only, here, and show what happens."),
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="With --seed: print the whole timeline, even if it passes.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="With --seed: write the timeline as a web page."),
    ] = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Play a scenario with many seeds, or replay one of them.

    A scenario is an async function that takes a Simulation of rpcfw.testing, sets
    up hosts, lets things go wrong, and asserts what must hold. The same seed gives
    the same run, in every process.

    Seeds that fail are listed, each with the command that replays it, and the
    exit code is 1. A replay that fails prints the end of its timeline.

    Examples:
      rpcfw sim run shop.py:partition --seeds 1000 --jobs 2
      rpcfw sim run shop.py:partition --seed 417
      rpcfw sim run shop.py:partition --seed 417 --trace --html timeline.html
      rpcfw sim run tests.shop:partition --seeds 200 --first 1000 --json
    """
    with reporting(as_json=json, debug=debug):
        from rpcfw.cli import scenarios

        if seed is None:
            if trace or html is not None:
                option = "--trace" if trace else "--html"
                raise CommandError(f"{option} is about one run: say which with --seed SEED", Exit.USAGE)
            begin = first or 0
            numbers = range(begin, begin + (seeds or DEFAULT_SEEDS))
            scenarios.play_many(target, numbers, jobs=jobs, as_json=json, limit_s=limit_s)
        else:
            if seeds is not None or first is not None or jobs is not None or limit_s is not None:
                message = "--seed plays one run: leave out --seeds, --first, --jobs and --limit"
                raise CommandError(message, Exit.USAGE)
            scenarios.replay(target, seed, whole=trace, page=html, as_json=json)
