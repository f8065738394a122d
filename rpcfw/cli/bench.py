"""`rpcfw bench`: load on a method of running servers, and a report of latencies, rates and errors.

The method is found as `rpcfw call` finds it. One generator runs in this process, several in processes of their own.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from rpcfw.cli.arguments import read_arguments, read_metadata
from rpcfw.cli.fleet import Fleet
from rpcfw.cli.generator import Generator, Target, interface_of, typed_arguments
from rpcfw.cli.load import Plan
from rpcfw.cli.output import CommandError, Exit, put, to_json
from rpcfw.cli.progress import ProgressLine
from rpcfw.cli.reach import Reach, transports_of
from rpcfw.cli.report import Report, time_in_words
from rpcfw.cli.run import loop_factory
from rpcfw.cli.show import method_in
from rpcfw.cli.tally import Tally
from rpcfw.cli.values import ValueProblem
from rpcfw.interface import CallKind, Schema, service_schema

TELL_EVERY_S = 1.0
"""How often a terminal shows how it goes: summing up takes a millisecond, which delays the calls of that moment."""


@dataclasses.dataclass(frozen=True, slots=True)
class BenchOptions:
    """A load as it was typed.

    Attributes:
        url: of a server or a registry.
        method: as for `CallOptions`, and so are `pairs`, `arguments` and `metadata`.
        plan: how much is called, and when.
        warm_up_s: calls that are not counted.
        timeout_s: of each call; None for what the interface says.
        connections: to each server, from each process.
        processes: of the generator.
        interface: ``module:Class`` for typed stubs.
        tls: files of the roots, of a certificate and its key.
    """

    url: str
    method: str
    plan: Plan
    pairs: Sequence[str] = ()
    arguments: str | None = None
    metadata: Sequence[str] = ()
    warm_up_s: float = 0.0
    timeout_s: float | None = None
    connections: int = 1
    processes: int = 1
    interface: str | None = None
    tls: tuple[Path | None, Path | None, Path | None] = (None, None, None)
    as_json: bool = False


def bench(options: BenchOptions) -> None:
    """Call, and print the report. Exits with `Exit.FAILED` when no call succeeded, with 130 after Ctrl-C."""
    _check(options)
    target = asyncio.run(_resolved(options))
    progress = ProgressLine(TELL_EVERY_S)

    def tell(tally: Tally) -> None:
        progress.show(_so_far(tally))

    try:
        if options.processes == 1:
            with asyncio.Runner(loop_factory=loop_factory(None)) as runner:
                tally, interrupted = runner.run(_generate(target, options, tell, progress.every_s))
        else:
            with Fleet(target, options.plan, options.warm_up_s, options.processes) as fleet:
                tally, interrupted = fleet.run(tell, progress.every_s), fleet.interrupted
    finally:
        progress.clear()
    report = Report(target, options.plan, options.processes, options.warm_up_s, tally, interrupted)
    put(to_json(report.as_data()) if options.as_json else report.as_text())
    if interrupted:
        raise KeyboardInterrupt
    if not tally.latencies.count:
        raise SystemExit(Exit.FAILED)


async def _generate(
    target: Target, options: BenchOptions, tell: Callable[[Tally], None], every_s: float
) -> tuple[Tally, bool]:
    """One generator in this process."""
    gc.collect()
    gc.freeze()  # what is loaded by now stays; the collector need not walk it again meanwhile
    loop = asyncio.get_running_loop()
    async with Generator(target, options.plan) as generator:
        loop.add_signal_handler(signal.SIGINT, generator.stop)
        try:
            await generator.warm_up(options.warm_up_s)
            return await generator.measure(tell, every_s), generator.stopped
        finally:
            loop.remove_signal_handler(signal.SIGINT)


async def _resolved(options: BenchOptions) -> Target:
    """What is to be called, as the server or the interface describes it."""
    metadata = read_metadata(options.metadata)
    async with Reach(options.url, transports=transports_of(*options.tls)) as reach:
        service, name = await reach.split(options.method)
        schema = await _schema(reach, service, options.interface)
    if name is None:
        message = f"{service} is a service; name a method too: {', '.join(schema['methods'])}"
        raise CommandError(message, Exit.USAGE)
    method = method_in(schema, name)
    _refuse_unmeasurable(schema, method)
    try:
        arguments = read_arguments(method, schema["definitions"], options.pairs, document=options.arguments)
    except ValueProblem as problem:
        raise CommandError(str(problem), Exit.USAGE) from None
    if options.interface is not None:
        _, spec = interface_of(options.interface)
        typed_arguments(spec.methods[name], arguments)  # so that it fails here, and not in each process
    return Target(
        options.url,
        schema,
        name,
        arguments,
        metadata,
        options.timeout_s,
        options.interface,
        options.connections,
        options.tls,
    )


async def _schema(reach: Reach, service: str, interface: str | None) -> Schema:
    if interface is None:
        return await reach.schema(service)
    _, spec = interface_of(interface)
    if spec.name != service:
        message = f"--interface {interface} is {spec.name}, but the method is of {service}: name the class of {service}"
        raise CommandError(message, Exit.USAGE)
    return service_schema(spec)


def _refuse_unmeasurable(schema: Schema, method: Schema) -> None:
    path = f"{schema['service']}/{method['name']}"
    if CallKind(method["kind"]).streams_in:
        problem = f"{path} takes a stream, and rpcfw bench sends none"
    elif method["oneway"]:
        problem = f"{path} is one-way: no reply comes whose time could be taken"
    else:
        return
    others = [
        name
        for name, other in schema["methods"].items()
        if not CallKind(other["kind"]).streams_in and not other["oneway"]
    ]
    raise CommandError(
        f"{problem}; it can call {', '.join(others) or 'no method of this service'}", Exit.USAGE
    )


def _check(options: BenchOptions) -> None:
    plan, processes = options.plan, options.processes
    for option, number in (("--in-flight", plan.in_flight), ("--calls", plan.calls)):
        if number is not None and number < processes:
            message = f"--processes {processes} is more than {option} {number}: there is nothing to do for some of them"
            raise CommandError(message, Exit.USAGE)
    if plan.rate is not None and not plan.scheduled:
        raise CommandError(
            f"--rate {plan.rate:g} in --seconds {plan.seconds:g} is not a single call", Exit.USAGE
        )


def _so_far(tally: Tally) -> str:
    rate = tally.calls / tally.elapsed_s if tally.elapsed_s else 0.0
    p99 = time_in_words(tally.latencies.percentile(99)) if tally.latencies.count else "-"
    return (
        f"{tally.elapsed_s:.0f} s: {tally.calls:,} calls, {rate:,.0f}/s, p99 {p99}, errors {tally.failed:,}"
    )
