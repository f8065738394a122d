"""Which faults befall a cluster and when: written by hand, read from a report, or drawn from a seed.

Values only: `nemesis` injects them and `shrinking` makes them fewer. The text of a schedule is what a failing test
prints and what a test of that failure is written from, so it reads back exactly.
"""

from __future__ import annotations

import dataclasses
import math
import random
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Literal, TypeAlias, cast

Kind: TypeAlias = Literal["crash", "partition", "one_way", "pause", "slow", "drift", "lossy"]
Group: TypeAlias = tuple[str, ...]
Targets: TypeAlias = Group | tuple[Group, Group]

KINDS: tuple[Kind, ...] = ("crash", "partition", "one_way", "pause", "slow", "drift", "lossy")
"""Every kind of fault there is."""

_BETWEEN: dict[str, str] = {"partition": " | ", "one_way": " -> "}
"""The kinds that name two groups, and what stands between these in the text."""
_VALUES: dict[str, tuple[str, float, float]] = {
    "slow": ("factor", 1.0, math.inf),
    "drift": ("rate", 0.0, math.inf),
    "lossy": ("probability", 0.0, 1.0),
}
"""The kinds that have a value: what it is called, and its range."""
_DRAWN: dict[str, tuple[float, ...]] = {
    "slow": (2.0, 5.0, 10.0, 50.0),
    "drift": (0.5, 0.9, 0.99, 1.01, 1.1, 2.0),
    "lossy": (0.01, 0.05, 0.2, 0.5),
}
"""The values that a random fault has, from what happens daily to what breaks assumptions."""
_HOST = re.compile(r"[^\s,|>]+")
_LINE = re.compile(
    r"(?P<at>\S+) s\s+(?P<kind>\w+)\s+(?P<targets>.+?)\s+for (?P<lasts>\S+) s(?:\s+(?P<word>\w+) (?P<value>\S+))?"
)
_STEP_S = 0.001
"""Random times are whole milliseconds, for people to read."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing that goes wrong for a while. `str(fault)` is its line in a schedule.

    Attributes:
        at_s: when it begins, in seconds of true time from the start of the schedule.
        kind: "crash" (power loss, then a restart), "pause" (as by SIGSTOP), "partition" (two groups cannot reach each
            other), "one_way" (what the first group sends does not reach the second), "slow" (the host's network),
            "drift" (its clock), "lossy" (the whole network loses messages).
        targets: names of hosts; two groups of names for "partition" and "one_way"; empty for "lossy".
        lasts_s: how long until it is undone.
        value: the factor of "slow" (how many times slower), the rate of "drift" (seconds that the host's clock counts
            in one true second), the probability of "lossy"; 0 for the other kinds.
    """

    at_s: float
    kind: Kind
    targets: Targets
    lasts_s: float
    value: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError when the fault makes no sense."""
        if self.kind not in KINDS:
            raise ValueError(f"there is no fault of kind {self.kind!r}; the kinds are {', '.join(KINDS)}")
        if not 0.0 <= self.at_s < math.inf:
            raise ValueError(
                f"at_s={self.at_s!r} of a {self.kind} is no time: say how many seconds after the start"
            )
        if not self.at_s < self.ends_s < math.inf:
            raise ValueError(
                f"lasts_s={self.lasts_s!r} of a {self.kind} is no duration: give it some time to last"
            )
        word, low, high = _VALUES.get(self.kind, ("value", 0.0, 0.0))
        if not low <= self.value <= high or (word != "value" and not 0.0 < self.value < math.inf):
            allowed = (
                f"a finite number above 0, from {low:g} to {high:g}"
                if word != "value"
                else "none, leave it out"
            )
            raise ValueError(f"value={self.value!r} of a {self.kind} is not allowed; its {word} is {allowed}")
        _check_targets(self.kind, self.targets)

    @property
    def ends_s(self) -> float:
        """When it is undone, in seconds from the start of the schedule."""
        return self.at_s + self.lasts_s

    @property
    def hosts(self) -> Group:
        """Every host it names, those of both groups."""
        if self.kind in _BETWEEN:
            one, other = self.groups
            return one + other
        return cast("Group", self.targets)

    @property
    def groups(self) -> tuple[Group, Group]:
        """The two sides of a "partition", the senders and the receivers of a "one_way"."""
        if self.kind not in _BETWEEN:
            raise ValueError(f"a {self.kind} has no groups; ask for its hosts")
        return cast("tuple[Group, Group]", self.targets)

    @property
    def victims(self) -> frozenset[str]:
        """The hosts that it breaks: of two groups the smaller one, without which the others would not notice."""
        if self.kind in _BETWEEN:
            one, other = self.groups
            return frozenset(one if len(one) <= len(other) else other)
        return frozenset(self.hosts)

    def columns(self) -> tuple[str, str, str, str]:
        """When, what, to whom, and how long and how much, as they stand in a schedule's text."""
        if self.kind in _BETWEEN:
            whom = _BETWEEN[self.kind].join(",".join(group) for group in self.groups)
        else:
            whom = ",".join(self.hosts) or "*"
        how = f"for {_number(self.lasts_s)} s"
        if self.kind in _VALUES:
            how += f"  {_VALUES[self.kind][0]} {_number(self.value)}"
        return f"{_number(self.at_s)} s", self.kind, whom, how

    def __str__(self) -> str:
        return "  ".join(self.columns())


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Faults in the order in which they begin. `str(schedule)` is a timeline that `Schedule.parse` reads back."""

    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        """Sort by the beginnings; what begins together keeps its order."""
        object.__setattr__(self, "faults", tuple(sorted(self.faults, key=lambda fault: fault.at_s)))

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Read the text of a schedule, in which empty lines and lines that begin with # are left out.

        Raises ValueError that names the line and what is wrong with it.
        """
        faults: list[Fault] = []
        for number, line in enumerate(text.splitlines(), start=1):
            line = line.strip()
            if line and not line.startswith("#"):
                try:
                    faults.append(_read(line))
                except ValueError as error:
                    raise ValueError(f"line {number} of the schedule, {line!r}: {error}") from error
        return cls(tuple(faults))

    def __str__(self) -> str:
        if not self.faults:
            return "# no faults"
        rows = [fault.columns() for fault in self.faults]
        at, kind, whom = (max(len(row[column]) for row in rows) for column in range(3))
        return "\n".join(f"{row[0]:>{at}}  {row[1]:<{kind}}  {row[2]:<{whom}}  {row[3]}" for row in rows)

    def __len__(self) -> int:
        return len(self.faults)

    def __iter__(self) -> Iterator[Fault]:
        return iter(self.faults)


def random_schedule(
    rng: random.Random,
    hosts: Sequence[str],
    span_s: float,
    *,
    kinds: Collection[Kind] = KINDS,
    mean_gap_s: float = 5.0,
    at_most: int | None = None,
) -> Schedule:
    """Draw faults that begin `mean_gap_s` apart and last as long, on average, and have all ended before `span_s`.

    A partition needs two hosts, and is not drawn for one. The same rng and hosts in the same order give the same
    schedule in every process.

    Args:
        rng: where chance comes from.
        hosts: whom faults may befall.
        span_s: how long the run is; end it later than this if it has to recover.
        kinds: which faults to draw, each as likely as the others.
        mean_gap_s: seconds of true time.
        at_most: never break more hosts than this at a time, counted as `Fault.victims`. None: all may break at once.
    """
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise ValueError(f"kinds={unknown} are no faults; the kinds are {', '.join(KINDS)}")
    drawn: list[Kind] = [kind for kind in KINDS if kind in kinds and (len(hosts) > 1 or kind not in _BETWEEN)]
    if not hosts or not drawn:
        raise ValueError(
            f"none of the faults {sorted(kinds)} can befall hosts={list(hosts)}: name more of either"
        )
    if not 0.0 < mean_gap_s < math.inf or not 0.0 < span_s < math.inf:
        raise ValueError(f"span_s={span_s!r} and mean_gap_s={mean_gap_s!r} must both be finite and above 0")
    limit = len(hosts) if at_most is None else at_most
    if limit < 1:
        raise ValueError(
            f"at_most={at_most!r} allows no fault: give at least 1, or no kinds of faults at all"
        )
    faults: list[Fault] = []
    at_s = rng.expovariate(1.0 / mean_gap_s)
    while at_s < span_s:
        kind = rng.choice(drawn)
        begins_s = round(at_s, 3)
        lasts_s = round(min(rng.expovariate(1.0 / mean_gap_s), rng.random() * (span_s - at_s)), 3)
        fault = Fault(
            begins_s,
            kind,
            _draw_targets(rng, kind, hosts, limit),
            max(lasts_s, _STEP_S),
            rng.choice(_DRAWN[kind]) if kind in _DRAWN else 0.0,
        )
        broken = frozenset[str]().union(*(other.victims for other in faults if other.ends_s > begins_s))
        if fault.ends_s < span_s and len(broken | fault.victims) <= limit:
            faults.append(fault)
        at_s += rng.expovariate(1.0 / mean_gap_s)
    return Schedule(tuple(faults))


def _draw_targets(rng: random.Random, kind: Kind, hosts: Sequence[str], limit: int) -> Targets:
    """Mostly one host, and sometimes several at once; partitions that leave some hosts in touch with both sides."""
    if kind == "lossy":
        return ()
    if kind not in _BETWEEN:
        most = min(limit, len(hosts))
        return tuple(rng.sample(hosts, 1 if rng.random() < 0.75 else rng.randint(1, most)))
    order = rng.sample(hosts, len(hosts))
    size = rng.randint(1, max(1, min(limit, len(hosts) // 2)))
    few, many = tuple(order[:size]), tuple(order[size:])
    if rng.random() < 0.25:
        many = many[: rng.randint(1, len(many))]
    return (few, many) if rng.random() < 0.5 else (many, few)


def _check_targets(kind: Kind, targets: Targets) -> None:
    if kind == "lossy":
        if targets:
            raise ValueError(f"targets={targets!r}: 'lossy' befalls the whole network; leave them empty, ()")
        return
    groups: tuple[object, ...] = targets if kind in _BETWEEN else (targets,)
    if kind in _BETWEEN and len(groups) != 2:
        raise ValueError(f"targets={targets!r} of a {kind} are not two groups; give two tuples of host names")
    names: list[str] = []
    for group in groups:
        if not isinstance(group, tuple) or not group:
            raise ValueError(f"targets={targets!r} of a {kind}: {group!r} is not a tuple with names of hosts")
        for name in cast("Iterable[object]", group):
            if not isinstance(name, str) or not _HOST.fullmatch(name):
                raise ValueError(f"{name!r} cannot name a host: use a word without spaces and without , | >")
            names.append(name)
    if len(names) != len(set(names)):
        raise ValueError(f"targets={targets!r} of a {kind} name a host twice; name each host once")


def _read(line: str) -> Fault:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("it does not read like '12.5 s  crash  orders  for 3 s'")
    kind = cast("Kind", match["kind"])
    text = match["targets"]
    targets: Targets
    if kind in _BETWEEN:
        sides = [_read_group(side) for side in text.split(_BETWEEN[kind].strip())]
        if len(sides) != 2:
            raise ValueError(f"a {kind} stands between two groups, as in 'a,b{_BETWEEN[kind]}c'")
        targets = (sides[0], sides[1])
    else:
        targets = () if kind == "lossy" and text == "*" else _read_group(text)
    word = _VALUES[kind][0] if kind in _VALUES else None
    if match["word"] != word:
        raise ValueError(
            f"a {kind} ends in its {word}, as in '{word} 2'" if word else f"a {kind} has no value"
        )
    return Fault(float(match["at"]), kind, targets, float(match["lasts"]), float(match["value"] or 0.0))


def _read_group(text: str) -> Group:
    return tuple(name.strip() for name in text.split(","))


def _number(seconds: float) -> str:
    """The shortest text that reads back as the same float."""
    return repr(float(seconds)).removesuffix(".0")
