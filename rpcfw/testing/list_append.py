"""List-append histories: transactions that append to lists and read them; are they serializable, and if not, why?

A read of a list shows every append before it in order, so that the versions of a key follow from its reads, and the
dependencies of transactions from its versions. After Elle (Kingsbury and Alvaro, VLDB 2020) and Adya's thesis (1999).
The graph and its cycles are `cycles.py`'s, what a transaction is `transactions.py`'s.
"""

from __future__ import annotations

import enum
import itertools
from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from rpcfw.testing.cycles import RT, RW, WR, WW, Graph
from rpcfw.testing.history import Operation, shorten
from rpcfw.testing.transactions import Key, Step, describe, read_steps


class Kind(enum.StrEnum):
    """What is wrong."""

    G0 = "G0"
    G1A = "G1a"
    G1B = "G1b"
    G1C = "G1c"
    G_SINGLE = "G-single"
    G2 = "G2"
    LOST_UPDATE = "lost update"
    INTERNAL = "internal"
    DUPLICATE = "duplicate"
    UNWRITTEN = "unwritten"
    INCOMPATIBLE = "incompatible order"


_MEANING = {
    Kind.G0: "dirty write: transactions overwrote each other in a circle",
    Kind.G1A: "aborted read: what a failed transaction appended was read",
    Kind.G1B: "intermediate read: a part of what a transaction appended to one key was read",
    Kind.G1C: "circular information flow: each transaction saw or overwrote the one before, in a circle",
    Kind.G_SINGLE: "read skew: a transaction read a state from before another one that it must come after",
    Kind.G2: "write skew: transactions each read what another then overwrote",
    Kind.LOST_UPDATE: "transactions read the same version of a key and appended to it, each as if alone",
    Kind.INTERNAL: "a transaction disagrees with itself",
    Kind.DUPLICATE: "an element is in a list twice: one append took effect more than once",
    Kind.UNWRITTEN: "an element was read that nobody appended",
    Kind.INCOMPATIBLE: "two reads of one key, neither of which is the beginning of the other",
}


@dataclass(frozen=True)
class Anomaly:
    """One thing that cannot be, the transactions it takes, and the reason for a person."""

    kind: Kind
    transactions: tuple[Operation, ...]
    text: str

    def __str__(self) -> str:
        lines = [f"{self.kind}, {_MEANING[self.kind]}:"]
        lines += [f"  T{number}: {describe(op)}" for number, op in enumerate(self.transactions, start=1)]
        return "\n".join([*lines, *(f"  {line}" for line in self.text.splitlines())])


@dataclass(frozen=True)
class Report:
    """What a history of `checked` operations showed; true when nothing is wrong with it."""

    checked: int
    anomalies: tuple[Anomaly, ...]

    def __bool__(self) -> bool:
        return not self.anomalies

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of the anomalies."""
        return frozenset(anomaly.kind for anomaly in self.anomalies)

    def __str__(self) -> str:
        if self:
            return f"serializable: {self.checked} transactions"
        more = len(self.anomalies) - _MAX_SHOWN
        return "\n".join(
            [*map(str, self.anomalies[:_MAX_SHOWN]), *([f".. and {more} more"] if more > 0 else [])]
        )


def check_list_append(history: Iterable[Operation], *, strict: bool = False) -> Report:
    """Find what keeps a history from being serializable; every anomaly reported is a proof, none means there is none.

    An operation `txn` has the args [["append", key, element], ["r", key, null], ...], and as its result the same with
    each null replaced by the list read (null is the empty one). Operations `append` [element] and `read` [], on the
    operation's own key, are transactions of one step. Unknown transactions count once somebody has read from them.

    Args:
        strict: ask for strict serializability: the order must also be that of the clients' clocks.

    Raises:
        ValueError: an operation is none of these, or two appends to a key are of the same element, so that what was
            read does not tell which of them was seen.
    """
    return _Check(list(history), strict).report()


@dataclass(slots=True)
class _Read:
    """What a transaction saw of a key: the version others left, and the whole list with its own appends behind."""

    reader: int
    version: tuple[Hashable, ...]
    whole: tuple[Hashable, ...]


@dataclass(slots=True)
class _KeyRecord:
    """All that is known of one key."""

    reads: list[_Read] = field(default_factory=list)
    writer: dict[Hashable, int] = field(default_factory=dict)
    appends: dict[int, list[Hashable]] = field(default_factory=lambda: defaultdict[int, list[Hashable]](list))
    order: tuple[Hashable, ...] = ()


class _Check:
    """One check of one history; transactions go by their place in it."""

    def __init__(self, operations: list[Operation], strict: bool) -> None:
        self.operations = operations
        self.anomalies: list[Anomaly] = []
        self.keys: dict[Key, _KeyRecord] = defaultdict(_KeyRecord)
        self.committed = [operation.status == "ok" for operation in operations]
        self.graph = Graph(len(operations))
        self.reasons: dict[tuple[int, int, int], tuple[Key, Hashable, Hashable]] = {}
        for number, operation in enumerate(operations):
            self._record(number, read_steps(operation))
        for record in self.keys.values():
            self._commit_seen(record)
        for key, record in self.keys.items():
            if self._find_order(key, record):
                self._depend(key, record)
        if strict:
            self._depend_on_time()

    def report(self) -> Report:
        """All that was found, cycles last."""
        for cycle in self.graph.cycles():
            names = [f"T{number}" for number in range(1, len(cycle.nodes) + 1)]
            lines: list[str] = []
            for hop, (node, kind) in enumerate(zip(cycle.nodes, cycle.edges, strict=True)):
                following = (hop + 1) % len(names)
                reason = self._reason(names[hop], names[following], (node, cycle.nodes[following], kind))
                lines.append(f"{names[hop]} before {names[following]}: {reason}")
            self._found(Kind(cycle.kind.value), cycle.nodes, "\n".join(lines))
        return Report(len(self.operations), tuple(self.anomalies))

    def _found(self, kind: Kind, transactions: Iterable[int], text: str) -> None:
        self.anomalies.append(Anomaly(kind, tuple(self.operations[number] for number in transactions), text))

    def _record(self, number: int, steps: list[Step]) -> None:
        """Note a transaction's appends, and its reads by what others had left; see that it agrees with itself."""
        own: dict[Key, tuple[Hashable, ...]] = defaultdict(tuple)
        seen: dict[Key, tuple[Hashable, ...]] = {}
        for name, key, value in steps:
            record = self.keys[key]
            if name == "append":
                other = record.writer.setdefault(value, number)
                if other != number or value in own[key]:
                    raise ValueError(
                        f"{value!r} is appended to {key!r} by {self.operations[other]} and by "
                        f"{self.operations[number]}; give each append an element of its own"
                    )
                own[key] += (value,)
                record.appends[number].append(value)
                continue
            mine = own[key]
            version = value[: len(value) - len(mine)]
            if value[len(version) :] != mine or len(version) + len(mine) != len(value):
                self._found(
                    Kind.INTERNAL, [number], f"T1 appended {shorten(mine)} to {key}, then read it without"
                )
            elif seen.setdefault(key, version) != version:
                self._found(
                    Kind.INTERNAL,
                    [number],
                    f"T1 read {key} as {shorten(seen[key])}, then as {shorten(version)} with its own left out",
                )
            else:
                record.reads.append(_Read(number, version, value))

    def _commit_seen(self, record: _KeyRecord) -> None:
        """An unknown transaction that somebody read from has happened."""
        pending = {e: n for e, n in record.writer.items() if self.operations[n].status == "unknown"}
        if pending:
            for read in record.reads:
                for element in pending.keys() & set(read.whole):
                    self.committed[pending.pop(element)] = True

    def _find_order(self, key: Key, record: _KeyRecord) -> bool:
        """Infer the order of the key's versions: the longest read; False if elements come twice, and there is none."""
        failed = {e for e, n in record.writer.items() if self.operations[n].status == "fail"}
        clean: list[_Read] = []
        for read in record.reads:
            if failed.isdisjoint(read.whole):
                clean.append(read)
                continue
            dirty = next(element for element in read.whole if element in failed)
            text = f"T2 read {dirty!r} of {key}, which T1 appended; T1 had failed"
            self._found(Kind.G1A, [record.writer[dirty], read.reader], text)
        if not clean:
            record.reads = []
            return True
        longest = max(clean, key=lambda read: len(read.whole))
        record.order = longest.whole
        if len(set(record.order)) < len(record.order):
            twice = next(e for at, e in enumerate(record.order) if e in record.order[:at])
            self._found(
                Kind.DUPLICATE, [longest.reader], f"{twice!r} is in T1's read of {key} more than once"
            )
            return False
        unwritten = [element for element in record.order if element not in record.writer]
        if unwritten:
            self._found(Kind.UNWRITTEN, [longest.reader], f"T1 read {shorten(unwritten)} of {key}")
        record.reads = []
        for read in clean:
            if record.order[: len(read.whole)] == read.whole:
                record.reads.append(read)
                continue
            at = next(i for i, e in enumerate(read.whole) if e != record.order[i])
            self._found(
                Kind.INCOMPATIBLE,
                [longest.reader, read.reader],
                f"at place {at} of {key} T1 read {record.order[at]!r}, T2 {read.whole[at]!r}",
            )
        return True

    def _depend(self, key: Key, record: _KeyRecord) -> None:
        """Add the dependencies that follow from the key's versions."""
        place = {element: at for at, element in enumerate(record.order)}
        self._check_parts(key, record, place)
        chain = [(e, record.writer[e]) for e in record.order if e in record.writer]
        for (one, first), (other, second) in itertools.pairwise(chain):
            self._add(first, second, WW, (key, one, other))
        unread = [
            (element, number)
            for element, number in record.writer.items()
            if element not in place and self.committed[number]
        ]
        for element, number in unread if chain else ():
            self._add(chain[-1][1], number, WW, (key, chain[-1][0], element))
        following = _following(record)
        updaters: dict[int, dict[int, None]] = defaultdict(dict)
        for read in record.reads:
            length = len(read.version)
            last = read.version[-1] if read.version else None
            if read.version and last in record.writer:
                self._check_whole(key, record, read, place)
                self._add(record.writer[last], read.reader, WR, (key, last, None))
            if following[length] < len(record.order):
                element = record.order[following[length]]
                self._add(read.reader, record.writer[element], RW, (key, last, element))
            else:
                for element, number in unread[:_UNREAD_LINKED]:
                    self._add(read.reader, number, RW, (key, last, element))
            if read.reader in record.appends:
                updaters[length][read.reader] = None
        for length, numbers in updaters.items():
            if len(numbers) > 1:
                self._found(
                    Kind.LOST_UPDATE,
                    numbers,
                    f"all read {key} as {shorten(record.order[:length])} and appended to it",
                )

    def _check_parts(self, key: Key, record: _KeyRecord, place: dict[Hashable, int]) -> None:
        """The appends of one transaction to a key are seen in its order, none without those before it."""
        for number, elements in record.appends.items():
            places = [place.get(element, len(place)) for element in elements]
            if places != sorted(places):
                self._found(
                    Kind.INTERNAL,
                    [number],
                    f"T1 appended {shorten(elements)} to {key}, which were read in another order: "
                    + shorten([element for element in record.order if element in elements]),
                )
        for read in record.reads:
            for element in record.appends.get(read.reader, ()):
                if place.get(element, len(place)) < len(read.version):
                    text = f"T1 read its own {element!r} of {key} before appending it"
                    self._found(Kind.INTERNAL, [read.reader], text)

    def _check_whole(self, key: Key, record: _KeyRecord, read: _Read, place: dict[Hashable, int]) -> None:
        last = read.version[-1]
        writer = record.writer[last]
        elements = record.appends[writer]
        if writer != read.reader and place.get(elements[-1], len(place)) >= len(read.version):
            text = f"T1 appended {shorten(elements)} to {key}; what T2 read ends with {last!r}"
            self._found(Kind.G1B, [writer, read.reader], text)

    def _depend_on_time(self) -> None:
        """Each transaction comes after those that returned before its call; edges from the latest of them suffice."""
        events: list[tuple[float, int, int]] = []
        for number, operation in enumerate(self.operations):
            if self.committed[number]:
                events.append((operation.called, 0, number))
                if operation.status == "ok" and operation.returned is not None:
                    events.append((operation.returned, 1, number))
        latest: list[int] = []
        for _, is_return, number in sorted(events):
            if not is_return:
                for earlier in latest:
                    self.graph.add(earlier, number, RT)
            else:
                called = self.operations[number].called
                latest = [earlier for earlier in latest if _returned_after(self.operations[earlier], called)]
                latest.append(number)

    def _add(self, first: int, second: int, kind: int, reason: tuple[Key, Hashable, Hashable]) -> None:
        if first != second:
            self.graph.add(first, second, kind)
            self.reasons.setdefault((first, second, kind), reason)

    def _reason(self, one: str, other: str, edge: tuple[int, int, int]) -> str:
        if edge[2] == RT:
            return f"{one} had returned when {other} was called"
        key, first, second = self.reasons[edge]
        if edge[2] == WW:
            return f"in {key}, {other}'s {second!r} comes after {one}'s {first!r}"
        if edge[2] == WR:
            return f"{other} read {key} up to {one}'s {first!r}"
        before = "empty" if first is None else f"up to {first!r}"
        return f"{one} read {key} {before}, without {other}'s {second!r}"


_MAX_SHOWN = 20
_UNREAD_LINKED = 64
"""A read comes before every append it does not show; of appends that no read shows, before so many, to bound edges."""


def _following(record: _KeyRecord) -> list[int]:
    """For each length of a version the place of the next element that somebody appended, or the end."""
    following = [len(record.order)] * (len(record.order) + 1)
    for at in range(len(record.order) - 1, -1, -1):
        following[at] = at if record.order[at] in record.writer else following[at + 1]
    return following


def _returned_after(operation: Operation, called: float) -> bool:
    return operation.returned is None or operation.returned >= called
