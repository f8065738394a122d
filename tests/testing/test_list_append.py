"""The checker of list-append histories says what trying every serial order says, and names what is wrong."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterable
from typing import Any

import pytest

from rpcfw.testing.cycles import RW, WR, CycleKind, Graph
from rpcfw.testing.history import History, Operation
from rpcfw.testing.list_append import Kind, check_list_append

Steps = list[list[Any]]


def txn(
    *steps: list[Any], at: tuple[float, float] = (0, 1), status: Any = "ok", client: str = "c"
) -> Operation:
    asked = [[name, key, None if name == "r" else value] for name, key, value in steps]
    result = list(steps) if status == "ok" else None
    return Operation(client, "txn", None, asked, result, status, at[0], at[1])


def append(key: str, element: int) -> list[Any]:
    return ["append", key, element]


def read(key: str, *elements: int) -> list[Any]:
    return ["r", key, list(elements)]


# ---------------------------------------------------------------------------------------------- the oracle


def some_serial_order_explains(operations: Iterable[Operation], strict: bool) -> bool:
    """Try every order of the ok transactions, with every choice of the unknown ones."""
    everything = list(operations)
    certain = [operation for operation in everything if operation.status == "ok"]
    unknown = [operation for operation in everything if operation.status == "unknown"]
    return any(
        replays(order) and (not strict or keeps_time(order))
        for count in range(len(unknown) + 1)
        for some in itertools.combinations(unknown, count)
        for order in itertools.permutations([*certain, *some])
    )


def replays(order: tuple[Operation, ...]) -> bool:
    lists: dict[str, list[Any]] = {}
    for operation in order:
        steps = operation.result if operation.status == "ok" else operation.args
        for name, key, value in steps:
            if name == "append":
                lists.setdefault(key, []).append(value)
            elif operation.status == "ok" and (value or []) != lists.get(key, []):
                return False
    return True


def keeps_time(order: tuple[Operation, ...]) -> bool:
    return not any(
        later.status == "ok" and later.returned is not None and later.returned < earlier.called
        for earlier, later in itertools.combinations(order, 2)
    )


# ------------------------------------------------------------------------------------------- random histories


def random_transactions(rng: random.Random) -> list[Steps]:
    elements = itertools.count(1)
    keys = rng.choice(["x", "xy", "xy", "xyz"])
    return [
        [
            ["append", rng.choice(keys), next(elements)]
            if rng.random() < 0.5
            else ["r", rng.choice(keys), None]
            for _ in range(rng.randint(1, 3))
        ]
        for _ in range(rng.randint(1, 6))
    ]


def random_history(rng: random.Random) -> list[Operation]:
    """Transactions run by a store that isolates them fully, by snapshots, hardly or not at all; or that forges."""
    isolation = rng.choice(["serial", "serial", "snapshot", "none", "none"])
    transactions = random_transactions(rng)
    store: dict[str, list[Any]] = {}
    views: list[dict[str, list[Any]]] = [{} for _ in transactions]
    done: list[Steps] = [[] for _ in transactions]
    turns = [number for number, steps in enumerate(transactions) for _ in steps]
    if isolation == "serial":
        numbers = rng.sample(range(len(transactions)), len(transactions))
        turns.sort(key=numbers.index)
    else:
        rng.shuffle(turns)
    status = [rng.choices(["ok", "unknown", "fail"], [8, 1, 1])[0] for _ in transactions]
    rolls_back = [status[number] != "ok" and rng.random() < 0.6 for number in range(len(transactions))]
    called: dict[int, int] = {}
    returned: dict[int, int] = {}
    for now, number in enumerate(turns):
        called.setdefault(number, now)
        returned[number] = now
        name, key, element = transactions[number][len(done[number])]
        if isolation == "snapshot" and not done[number]:
            views[number] = {key: list(value) for key, value in store.items()}
        view = views[number] if isolation == "snapshot" or rolls_back[number] else store
        if name == "append":
            view.setdefault(key, []).append(element)
            if view is not store and not rolls_back[number]:
                store.setdefault(key, []).append(element)
            done[number].append([name, key, element])
        else:
            done[number].append([name, key, list(view.get(key, []))])
    operations = [
        Operation(
            number, "txn", None, transactions[number], None, "unknown", called[number], returned[number]
        )
        for number in range(len(transactions))
    ]
    for number, operation in enumerate(operations):
        if status[number] == "ok":
            operation.status, operation.result = "ok", done[number]
        elif status[number] == "fail":
            operation.status = "fail"
        operation.called -= rng.choice([0, 0, 1, 3])
        operation.returned = returned[number] + rng.choice([0.0, 0.5, 2])
    if rng.random() < 0.3:
        forge(rng, operations)
    return operations


def forge(rng: random.Random, operations: list[Operation]) -> None:
    reads = [step for operation in operations for step in operation.result or [] if step[0] == "r"]
    if reads:
        elements: list[Any] = rng.choice(reads)[2]
        change = rng.randrange(4)
        if change == 0:
            elements.append(rng.randint(1, 9))
        elif change == 1 and elements:
            elements.pop()
        elif change == 2 and elements:
            elements.pop(0)
        else:
            rng.shuffle(elements)


@pytest.mark.parametrize("strict", [False, True], ids=["serializable", "strict"])
@pytest.mark.parametrize("seed", range(20))
def test_the_verdict_on_100_random_histories_is_that_of_trying_every_serial_order(
    seed: int, strict: bool
) -> None:
    print(f"seed {seed}, strict {strict}")
    rng = random.Random(f"{seed}/list-append")
    good = 0
    for number in range(100):
        operations = random_history(rng)
        expected = some_serial_order_explains(operations, strict)
        report = check_list_append(operations, strict=strict)
        assert bool(report) == expected, f"history {number}: {report}\n" + "\n".join(map(str, operations))
        assert report.checked == len(operations)
        good += expected
    assert 15 <= good <= 85, "the histories are no mixture of good and bad"


# ------------------------------------------------------------------------------------------ planted anomalies

PLANTED: dict[str, tuple[set[Kind], list[Operation]]] = {
    "G0: two transactions overwrite each other": (
        {Kind.G0},
        [
            txn(append("x", 1), append("y", 1)),
            txn(append("x", 2), append("y", 2)),
            txn(read("x", 1, 2)),
            txn(read("y", 2, 1)),
        ],
    ),
    "G0: of two that overwrite each other one has also read the other": (
        {Kind.G0},
        [
            txn(append("x", 1), append("y", 1)),
            txn(read("x", 1), append("x", 2), append("y", 2)),
            txn(read("x", 1, 2)),
            txn(read("y", 2, 1)),
        ],
    ),
    "G1a: a failed append is read": (
        {Kind.G1A},
        [txn(append("x", 1), status="fail"), txn(read("x", 1))],
    ),
    "G1a: a failed append is read by one and then gone": (
        {Kind.G1A},
        [
            txn(append("x", 1), status="fail"),
            txn(read("x", 1)),
            txn(append("x", 2)),
            txn(read("x", 2)),
        ],
    ),
    "G1b: half of a transaction is read": (
        {Kind.G1B, Kind.G_SINGLE},
        [txn(append("x", 1), append("x", 2)), txn(read("x", 1)), txn(read("x", 1, 2))],
    ),
    "G1c: two transactions read from each other": (
        {Kind.G1C},
        [txn(append("x", 1), read("y", 1)), txn(append("y", 1), read("x", 1))],
    ),
    "G1c: one reads from the other and is overwritten by it": (
        {Kind.G1C},
        [
            txn(append("x", 1), read("y", 1)),
            txn(append("y", 1), append("x", 2)),
            txn(read("x", 1, 2)),
        ],
    ),
    "G-single: one update is read, the other that came with it is not": (
        {Kind.G_SINGLE},
        [txn(append("x", 1), append("y", 1)), txn(read("x", 1), read("y"))],
    ),
    "lost update: two append to the version both have read": (
        {Kind.LOST_UPDATE, Kind.G_SINGLE},
        [
            txn(append("x", 1)),
            txn(read("x", 1), append("x", 2)),
            txn(read("x", 1), append("x", 3)),
            txn(read("x", 1, 2, 3)),
        ],
    ),
    "lost update: nobody sees one of the two again": (
        {Kind.LOST_UPDATE, Kind.G_SINGLE},
        [txn(read("x"), append("x", 1)), txn(read("x"), append("x", 2)), txn(read("x", 2))],
    ),
    "G2: each misses what the other writes": (
        {Kind.G2},
        [txn(read("x"), append("y", 1)), txn(read("y"), append("x", 1)), txn(read("x", 1), read("y", 1))],
    ),
    "internal: a transaction does not see its own append": (
        {Kind.INTERNAL},
        [txn(append("x", 1), read("x"))],
    ),
    "internal: two reads in a transaction differ": (
        {Kind.INTERNAL},
        [txn(append("x", 1)), txn(read("x"), read("x", 1))],
    ),
    "internal: a transaction sees what it has yet to append": (
        {Kind.INTERNAL},
        [txn(read("x", 1), append("x", 1))],
    ),
    "internal: the appends of a transaction change places": (
        {Kind.INTERNAL},
        [txn(append("x", 1), append("x", 2)), txn(read("x", 2, 1))],
    ),
    "duplicate: an append takes effect twice": (
        {Kind.DUPLICATE},
        [txn(append("x", 1)), txn(read("x", 1, 1))],
    ),
    "unwritten: a value from nowhere": ({Kind.UNWRITTEN}, [txn(read("x", 7))]),
    "incompatible order: two histories of one key": (
        {Kind.INCOMPATIBLE},
        [txn(append("x", 1)), txn(append("x", 2)), txn(read("x", 1, 2)), txn(read("x", 2))],
    ),
}


@pytest.mark.parametrize(("kinds", "operations"), PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_anomaly_is_found_by_its_name(kinds: set[Kind], operations: list[Operation]) -> None:
    report = check_list_append(operations)
    assert report.kinds == kinds, str(report)
    assert not some_serial_order_explains(operations, strict=False)


ALLOWED = {
    "nothing": [],
    "what failed and was not read": [txn(append("x", 1), status="fail"), txn(read("x"))],
    "what is unknown and was read": [txn(append("x", 1), status="unknown"), txn(read("x", 1))],
    "what is unknown and was not read": [txn(append("x", 1), status="unknown"), txn(read("x"))],
    "a read that ignores the clock": [txn(append("x", 1), at=(0, 1)), txn(read("x"), at=(2, 3))],
    "a transaction that reads its own appends": [
        txn(append("x", 1)),
        txn(read("x", 1), append("x", 2), read("x", 1, 2), append("x", 3), read("x", 1, 2, 3)),
    ],
}


@pytest.mark.parametrize("operations", ALLOWED.values(), ids=ALLOWED.keys())
def test_what_may_happen_is_allowed(operations: list[Operation]) -> None:
    report = check_list_append(operations)
    assert report, str(report)


def test_an_acknowledged_append_that_a_later_read_misses_is_not_strictly_serializable() -> None:
    operations = [txn(append("x", 1), at=(0, 1), client="a"), txn(read("x"), at=(2, 3), client="b")]
    assert check_list_append(operations)
    report = check_list_append(operations, strict=True)
    assert report.kinds == {Kind.G_SINGLE}
    assert "T2 had returned when" in str(report) or "T1 had returned when" in str(report)
    between = txn(read("y"), at=(1, 1.5))
    assert not check_list_append([operations[0], between, operations[1]], strict=True)
    at_once = [txn(append("x", 1), at=(0, 2)), txn(read("x"), at=(2, 3))]
    assert check_list_append(at_once, strict=True), (
        "what returns at the instant of a call is concurrent with it"
    )


def test_single_appends_and_reads_are_transactions_of_one_step() -> None:
    operations = [
        Operation("a", "append", "x", [1], None, "ok", 0, 1),
        Operation("a", "append", "x", [2], None, "ok", 2, 3),
        Operation("b", "read", "x", [], [2], "ok", 4, 5),
        Operation("b", "read", "y", [], None, "ok", 4, 5),
        Operation("b", "read", "y", [], None, "unknown", 6, None),
    ]
    assert check_list_append(operations)
    assert check_list_append(operations, strict=True).kinds == {Kind.G0, Kind.G_SINGLE}
    operations[2].result = [1, 2]
    assert check_list_append(operations, strict=True)


def test_an_anomaly_reads_like_a_story() -> None:
    kinds, operations = PLANTED["G-single: one update is read, the other that came with it is not"]
    assert str(check_list_append(operations)).splitlines() == [
        "G-single, read skew: a transaction read a state from before another one that it must come after:",
        "  T1: c: read x -> [1], read y -> []  (ok, 0.000000 .. 1.000000)",
        "  T2: c: append 1 to x, append 1 to y  (ok, 0.000000 .. 1.000000)",
        "  T1 before T2: T1 read y empty, without T2's 1",
        "  T2 before T1: T1 read x up to T2's 1",
    ]


def store_history(rng: random.Random, count: int, keys: int) -> list[Operation]:
    """What a serializable store would say, with transactions of up to four steps."""
    now = 0.0
    history = History(lambda: now)
    lists: dict[int, list[int]] = {}
    for number in range(count):
        steps: Steps = []
        undo = {key: list(value) for key, value in lists.items()} if rng.random() < 0.001 else None
        for place in range(rng.randint(1, 4)):
            key = rng.randrange(keys)
            if rng.random() < 0.5:
                lists.setdefault(key, []).append(4 * number + place)
                steps.append(["append", key, 4 * number + place])
            else:
                steps.append(["r", key, list(lists.get(key, []))])
        asked = [[name, key, None if name == "r" else value] for name, key, value in steps]
        operation = history.begin(number % 16, "txn", None, asked)
        now += 0.01
        if undo is not None:
            lists = undo
            operation.fail()
        elif rng.random() < 0.05:
            operation.unknown()
        else:
            operation.ok(steps)
    return history.operations


def test_a_fractured_read_among_2000_transactions_is_found_and_shown_by_itself() -> None:
    seed = 5
    print(f"seed {seed}")
    operations = store_history(random.Random(seed), 2_000, 10)
    report = check_list_append(operations, strict=True)
    assert report, "the history was no good one to begin with"
    writer = txn(append("a", 1), append("b", 1), at=(500.0, 501.0))
    reader = txn(read("a", 1), read("b"), at=(500.0, 501.0))
    report = check_list_append([*operations, reader, writer])
    (anomaly,) = report.anomalies
    assert anomaly.kind is Kind.G_SINGLE
    assert set(map(id, anomaly.transactions)) == {id(reader), id(writer)}


def test_a_cycle_of_thousands_of_transactions_needs_no_recursion() -> None:
    count = 5_000
    ring = [txn(append(f"k{at}", 1), read(f"k{(at + 1) % count}", 1)) for at in range(count)]
    (anomaly,) = check_list_append(ring).anomalies
    assert anomaly.kind is Kind.G1C
    assert len(anomaly.transactions) == count
    ring[-1].result[1][2] = []
    assert check_list_append(ring), "a chain is no cycle"


def test_a_short_cycle_is_shown_where_there_are_long_ones() -> None:
    ring = [txn(append(f"k{at}", 1), read(f"k{(at + 1) % 50}", 1)) for at in range(50)]
    ring[7].args.append(["r", "k6", None])
    ring[7].result.append(["r", "k6", [1]])
    (anomaly,) = check_list_append(ring).anomalies
    assert len(anomaly.transactions) == 2


def test_the_one_simple_cycle_in_a_large_knot_is_found() -> None:
    graph = Graph(1_000)
    for node in range(1_000):
        graph.add(node, (node + 1) % 1_000, RW)
    assert [cycle.kind for cycle in graph.cycles()] == [CycleKind.G2]
    graph.add(901, 900, WR)
    (cycle,) = graph.cycles()
    assert (cycle.kind, cycle.nodes, cycle.edges) == (CycleKind.G_SINGLE, (900, 901), (RW, WR))


def test_of_very_many_anomalies_a_person_is_shown_the_first() -> None:
    operations = [txn(append("x", 1), status="fail"), *(txn(read("x", 1)) for _ in range(1_000))]
    report = check_list_append(operations)
    assert len(report.anomalies) == 1_000
    assert len(str(report).splitlines()) < 100
    assert str(report).endswith(".. and 980 more")


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (
            Operation("a", "write", "x", [1], None, "ok", 0, 1),
            "neither txn [steps], append [element] nor read []",
        ),
        (Operation("a", "read", "x", [], "text", "ok", 0, 1), "read 'text', which is no list"),
        (
            Operation("a", "txn", None, [["w", "x", 1]], [["w", "x", 1]], "ok", 0, 1),
            "['w', 'x', 1] is neither",
        ),
        (Operation("a", "txn", None, [["r", "x", None]], None, "ok", 0, 1), "its 1 steps with what was read"),
        (Operation("a", "txn", None, [["r", "x", None]], [["r", "y", []]], "ok", 0, 1), "has ('r', 'y', ())"),
        (Operation("a", "append", "x", [5], None, "fail", 0, 1), "give each append an element of its own"),
    ],
)
def test_an_operation_that_is_no_transaction_is_refused(operation: Operation, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        check_list_append([txn(append("x", 5)), operation])
