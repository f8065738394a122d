"""What `rpcfw bench` says in the end: for people aligned text, for programs one JSON document."""

from __future__ import annotations

import dataclasses
import math
import platform
from typing import Any

import rpcfw
from rpcfw.cli.generator import BUSY_FROM, Target
from rpcfw.cli.histogram import Histogram
from rpcfw.cli.load import Plan
from rpcfw.cli.output import table_lines
from rpcfw.cli.places import shown
from rpcfw.cli.tally import Failures, Tally

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}
BUSY = 0.95
"""A client that has used so much of a processor was the limit itself."""
LATE_S = 0.001
"""A client whose calls began later than that, more than a tenth of them, did not keep its schedule."""
JUDGED_FROM_S = 0.25
"""What is over sooner says nothing of that."""
_ROWS, _BAR = 10, 40
_EXAMPLE = 100
"""So many characters of an error's message are shown."""


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """A load that is over, or was interrupted.

    Attributes:
        warm_up_s: what came before, and is not counted.
        tally: of all processes.
    """

    target: Target
    plan: Plan
    processes: int
    warm_up_s: float
    tally: Tally
    interrupted: bool

    def as_data(self) -> dict[str, Any]:
        """Plain data, the JSON of `--json`. Latencies in microseconds."""
        target, plan, tally = self.target, self.plan, self.tally
        return {
            "target": shown(target.url),
            "method": self._path,
            "loop": "closed" if plan.rate is None else "open",
            "in_flight": plan.in_flight,
            "rate": plan.rate,
            "connections": target.connections,
            "processes": self.processes,
            "typed": target.interface is not None,
            "warm_up_s": self.warm_up_s,
            "interrupted": self.interrupted,
            "duration_s": round(tally.elapsed_s, 6),
            "calls": tally.calls,
            "succeeded": tally.latencies.count,
            "failed": tally.failed,
            "not_started": tally.not_started,
            "unfinished": tally.unfinished,
            "calls_per_s": round(self._per_s(tally.calls), 3),
            "succeeded_per_s": round(self._per_s(tally.latencies.count), 3),
            "items": tally.items,
            "items_per_s": round(self._per_s(tally.items), 3),
            "latency_us": _summary(tally.latencies) if tally.latencies.count else None,
            "start_delay_us": _summary(tally.delays) if tally.delays.count else None,
            "errors": [
                {
                    "error": name,
                    "count": failures.count,
                    "mean_us": round(failures.total_s / failures.count * 1e6, 3),
                    "example": failures.example,
                }
                for name, failures in self._failures
            ],
            "nodes": dict(sorted(tally.nodes.items())),
            "client_cpu": round(self._cpu, 4),
            "client_was_the_limit": bool(self._limit()),
            "python": platform.python_version(),
            "rpcfw": rpcfw.__version__,
        }

    def as_text(self) -> str:
        """Lines for a person."""
        tally = self.tally
        parts = [self._heading(), _aligned(self._facts())]
        if tally.latencies.count:
            parts += [_latencies(tally.latencies), _bars(tally.latencies)]
        if tally.errors:
            parts.append(self._errors())
        if len(tally.nodes) > 1:
            parts.append(self._nodes())
        parts += [line for line in (self._limit(), self._missed()) if line]
        return "\n\n".join(parts)

    @property
    def _path(self) -> str:
        return f"{self.target.schema['service']}/{self.target.method}"

    @property
    def _failures(self) -> list[tuple[str, Failures]]:
        """The most frequent first."""
        return sorted(self.tally.errors.items(), key=lambda item: (-item[1].count, item[0]))

    def _per_s(self, count: int) -> float:
        return count / self.tally.elapsed_s if self.tally.elapsed_s else 0.0

    @property
    def _cpu(self) -> float:
        """The part of a processor that each process used."""
        return self.tally.cpu_s / (self.tally.elapsed_s or 1.0) / self.processes

    def _heading(self) -> str:
        plan = self.plan
        if plan.rate is None:
            how = f"{plan.in_flight:,} in flight"
        else:
            how = f"{plan.rate:,g} calls begin each second, {plan.in_flight:,} in flight at most"
        parts = [how, _counted(self.target.connections, "connection")]
        parts += [_counted(self.processes, "process")] if self.processes > 1 else []
        parts += [f"typed as {self.target.interface}"] if self.target.interface else []
        parts += [f"warm-up {self.warm_up_s:g} s"] if self.warm_up_s else []
        return f"{self._path} at {shown(self.target.url)}\n{', '.join(parts)}"

    def _facts(self) -> list[tuple[str, str, str]]:
        """A name, a number, and what is to be said of it."""
        tally = self.tally
        facts = [("calls", f"{tally.calls:,}", "interrupted by Ctrl-C" if self.interrupted else "")]
        if tally.failed:
            facts.append(("failed", f"{tally.failed:,}", _percent(tally.failed, tally.calls)))
        if tally.not_started:
            due = tally.calls + tally.not_started + tally.unfinished
            facts.append(("not started", f"{tally.not_started:,}", _percent(tally.not_started, due)))
        if tally.unfinished:
            facts.append(("unfinished", f"{tally.unfinished:,}", "in progress at the end, not counted"))
        until = "" if self.interrupted or tally.unfinished else "until the last call ended"
        facts.append(("duration", f"{tally.elapsed_s:.2f} s", until))
        facts.append(("calls/s", f"{self._per_s(tally.calls):,.0f}", ""))
        if tally.failed:
            facts.append(("succeeded/s", f"{self._per_s(tally.latencies.count):,.0f}", ""))
        if tally.items:
            facts.append(("items", f"{tally.items:,}", ""))
            facts.append(("items/s", f"{self._per_s(tally.items):,.0f}", ""))
        core = "of a core" if self.processes == 1 else "of a core each"
        core += "" if self.plan.rate is None else ", also to wait awake for the time of the next call"
        facts.append(("client CPU", f"{self._cpu * 100:.0f} %", core))
        if self.plan.rate is not None and tally.delays.count:
            p50, p99 = tally.delays.percentiles(50, 99)
            worst = (
                f"p50, p99 {time_in_words(p99)}, max {time_in_words(tally.delays.max)}; part of the latency"
            )
            facts.append(("began late", time_in_words(p50), worst))
        return facts

    def _errors(self) -> str:
        rows = [
            (
                name,
                f"{failures.count:,}",
                _percent(failures.count, self.tally.calls),
                time_in_words(failures.total_s / failures.count),
                _cut(" ".join(failures.example.split())),
            )
            for name, failures in self._failures
        ]
        return table_lines(("ERROR", "CALLS", "SHARE", "AFTER", "FOR EXAMPLE"), rows)

    def _nodes(self) -> str:
        nodes = self.tally.nodes
        rows = [
            (address, f"{count:,}", _percent(count, sum(nodes.values())))
            for address, count in sorted(nodes.items())
        ]
        return table_lines(("NODE", "CALLS", "SHARE"), rows)

    def _limit(self) -> str:
        """That the client was the limit, and not the server; empty where it was not, or it cannot be known."""
        more = self.processes * 2
        if self.tally.elapsed_s < JUDGED_FROM_S:
            return ""
        if self.plan.rate is not None:
            if self.tally.delays.percentile(90) < LATE_S:
                return ""
            return (
                "The client did not keep the schedule, and what it was late is part of the latencies: "
                f"try --processes {more}, or a machine that does less else."
            )
        if self._cpu < BUSY or self.plan.in_flight // self.processes < BUSY_FROM:
            return ""
        return f"The client itself was the limit: the server may be faster; try --processes {more}."

    def _missed(self) -> str:
        if not self.tally.not_started:
            return ""
        return (
            f"{self.tally.not_started:,} calls were not started, as {self.plan.in_flight:,} were in flight: "
            "the latencies are better than those of all that were due; lower --rate, or raise --in-flight."
        )


def _summary(histogram: Histogram) -> dict[str, float]:
    found = histogram.percentiles(*PERCENTILES.values())
    values = {"min": histogram.min, "mean": histogram.mean}
    values |= dict(zip(PERCENTILES, found, strict=True))
    values["max"] = histogram.max
    return {name: round(value * 1e6, 3) for name, value in values.items()}


def _latencies(histogram: Histogram) -> str:
    summary = _summary(histogram)
    unit, factor = _unit(summary["p50"] / 1e6)
    cells = [_significant(value / 1e6 * factor) for value in summary.values()]
    width = max(map(len, [*cells, *summary]))
    heads = "  ".join(f"{name:>{width}}" for name in summary)
    label = f"latency, {unit}"
    return f"{label}  {heads}\n{'':{len(label)}}  {'  '.join(f'{cell:>{width}}' for cell in cells)}"


def _bars(histogram: Histogram) -> str:
    """How many calls took how long: rows whose bounds grow by the same factor."""
    least, greatest = max(histogram.min, 1e-9), max(histogram.max, 1e-9)
    unit, factor = _unit(histogram.percentile(50))
    rows = min(_ROWS, histogram.count)
    bounds = [least * (greatest / least) ** ((row + 1) / rows) for row in range(rows)]
    counts = [0] * rows
    row = 0
    for low, high, values in histogram.buckets():
        while row < rows - 1 and (low + high) / 2 > bounds[row]:
            row += 1
        counts[row] += values
    digits = 3 if greatest > 1.1 * least else 5  # bounds that are close to each other differ further behind
    cells = [f"{_significant(bound * factor, digits)} {unit}" for bound in bounds]
    numbers = [f"{count:,}" for count in counts]
    width, number_width, most = max(map(len, cells)), max(map(len, numbers)), max(counts)
    return "\n".join(
        f"up to {cell:>{width}}  {number:>{number_width}}  {'#' * math.ceil(count / most * _BAR)}".rstrip()
        for cell, number, count in zip(cells, numbers, counts, strict=True)
    )


def _aligned(facts: list[tuple[str, str, str]]) -> str:
    name_width = max(len(name) for name, _, _ in facts)
    width = max(len(value) for _, value, _ in facts)
    return "\n".join(
        f"{name:<{name_width}}  {value:>{width}}  {note}".rstrip() for name, value, note in facts
    )


def _unit(seconds: float) -> tuple[str, float]:
    """The unit for times of about this size, and how many of it are a second."""
    return ("us", 1e6) if seconds < 1e-3 else ("ms", 1e3) if seconds < 1.0 else ("s", 1.0)


def time_in_words(seconds: float) -> str:
    """A time with its unit, in three digits: ``238 us``."""
    unit, factor = _unit(seconds)
    return f"{_significant(seconds * factor)} {unit}"


def _significant(value: float, digits: int = 3) -> str:
    """So many digits that matter, without an exponent."""
    if value <= 0:
        return "0"
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(value)))}f}"


def _cut(text: str) -> str:
    return text if len(text) <= _EXAMPLE else f"{text[: _EXAMPLE - 4]} ..."


def _percent(part: int, whole: int) -> str:
    share = part / (whole or 1) * 100
    return f"{share:.2g} %" if 0 < share < 1 else f"{share:.1f} %"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}{'es' if what.endswith('s') else 's'}"
