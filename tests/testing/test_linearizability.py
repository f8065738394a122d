"""The linearizability checker says what trying every order says, finds what is planted, and shows it to a person."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import pytest

from rpcfw.testing.history import History, Operation
from rpcfw.testing.linearizability import Verdict, check_kv, check_linearizable
from rpcfw.testing.register import Register

Apply = Callable[[Any, Operation], tuple[Any, Any]]
"""A state and an operation to the operation's result and the state after it."""


def op(
    client: str, name: str, *args: Any, at: tuple[float, float | None], result: Any = None, status: str = ""
) -> Operation:
    said: Any = status or ("unknown" if at[1] is None else "ok")
    return Operation(client, name, "x", list(args), result, said, at[0], at[1])


# ---------------------------------------------------------------------------------------------- the oracle


def apply_to_register(state: Any, operation: Operation) -> tuple[Any, Any]:
    if operation.op == "read":
        return state, state
    if operation.op == "write":
        return None, operation.args[0]
    if operation.op == "delete":
        return state is not None, None
    old, new = operation.args
    return (True, new) if state == old else (False, state)


def apply_to_queue(state: Any, operation: Operation) -> tuple[Any, Any]:
    waiting: tuple[Any, ...] = state or ()
    if operation.op == "put":
        return None, (*waiting, operation.args[0])
    if operation.op == "size":
        return len(waiting), waiting
    return (waiting[0], waiting[1:]) if waiting else (None, ())


def some_order_explains(operations: Iterable[Operation], apply: Apply) -> bool:
    """Try every order of every key's operations, with every choice of the unknown ones."""
    everything = list(operations)
    for key in {operation.key for operation in everything}:
        mine = [operation for operation in everything if operation.key == key]
        certain = [operation for operation in mine if operation.status == "ok"]
        unknown = [operation for operation in mine if operation.status == "unknown"]
        choices = itertools.chain.from_iterable(
            itertools.combinations(unknown, count) for count in range(len(unknown) + 1)
        )
        orders = itertools.chain.from_iterable(itertools.permutations([*certain, *some]) for some in choices)
        if not any(explains(order, apply) for order in orders):
            return False
    return True


def explains(order: tuple[Operation, ...], apply: Apply) -> bool:
    state: Any = None
    for operation in order:
        result, state = apply(state, operation)
        if operation.status == "ok" and operation.op != "write" and result != operation.result:
            return False
    return not any(
        later.status == "ok" and later.returned is not None and later.returned < earlier.called
        for earlier, later in itertools.combinations(order, 2)
    )


# ------------------------------------------------------------------------------------------- random histories


def random_register_call(rng: random.Random) -> tuple[str, list[Any]]:
    old, new = rng.choice([None, 1, 1, 2, 2, 3]), rng.randint(1, 3)
    name = rng.choice(["read", "read", "write", "cas", "delete"])
    arguments: dict[str, list[Any]] = {"write": [new], "cas": [old, new]}
    return name, arguments.get(name, [])


def random_queue_call(rng: random.Random) -> tuple[str, list[Any]]:
    name = rng.choice(["put", "put", "get", "get", "size"])
    return name, [rng.randint(1, 3)] if name == "put" else []


def random_history(
    rng: random.Random, call: Callable[[random.Random], tuple[str, list[Any]]], apply: Apply
) -> list[Operation]:
    """A few operations that happened at moments between call and return; then, mostly, something is forged.

    Times are small whole numbers, so that many are equal.
    """
    moments: list[tuple[float, Operation]] = []
    operations: list[Operation] = []
    span = rng.choice([3, 8, 20])
    for number in range(rng.randint(1, 7)):
        name, args = call(rng)
        called = rng.randint(0, span)
        returned = called + rng.randint(0, 5)
        status = rng.choices(["ok", "unknown", "fail"], [7, 2, 1])[0]
        operation = Operation(number, name, rng.choice("xxxxxy"), args, None, "unknown", called, returned)
        operations.append(operation)
        if status == "ok":
            operation.status = "ok"
            moments.append((rng.uniform(called, returned), operation))
        elif status == "fail":
            operation.status = "fail"
        elif rng.random() < 0.7:
            moments.append((rng.uniform(called, called + 10), operation))
        if status == "unknown" and rng.random() < 0.5:
            operation.returned = None
    states: dict[Any, Any] = {}
    for _, operation in sorted(moments, key=lambda moment: moment[0]):
        result, states[operation.key] = apply(states.get(operation.key), operation)
        operation.result = result if operation.status == "ok" else None
    if rng.random() < 0.8:
        forge(rng, operations)
    rng.shuffle(operations)
    return operations


def forge(rng: random.Random, operations: list[Operation]) -> None:
    for operation in rng.sample(operations, min(len(operations), rng.randint(1, 2))):
        if operation.status != "ok":
            operation.status = "fail"
        elif operation.op in ("read", "get"):
            operation.result = rng.choice([None, 1, 2, 3])
        elif operation.op in ("cas", "delete"):
            operation.result = not operation.result
        elif operation.op == "size":
            operation.result = rng.randint(0, 3)
        else:
            operation.args = [rng.randint(1, 3)]


class Queue:
    """A model that is no register: what is put comes out in the order it was put in."""

    def initial(self) -> Hashable:
        return ()

    def step(self, state: Any, operation: Operation) -> Hashable | None:
        if operation.op == "put":
            return (*state, operation.args[0])
        known = operation.status == "ok"
        if operation.op == "size":
            return state if not known or operation.result == len(state) else None
        if not state:
            return state if not known or operation.result is None else None
        return state[1:] if not known or operation.result == state[0] else None

    def only_reads(self, operation: Operation) -> bool:
        return operation.op == "size"


@pytest.mark.parametrize("seed", range(20))
def test_the_verdict_on_100_random_register_histories_is_that_of_trying_every_order(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(f"{seed}/register")
    agree_with_the_oracle(rng, random_register_call, apply_to_register, check_kv)


@pytest.mark.parametrize("seed", range(10))
def test_the_verdict_on_100_random_queue_histories_is_that_of_trying_every_order(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(f"{seed}/queue")
    agree_with_the_oracle(
        rng, random_queue_call, apply_to_queue, lambda operations: check_linearizable(operations, Queue())
    )


def agree_with_the_oracle(
    rng: random.Random,
    call: Callable[[random.Random], tuple[str, list[Any]]],
    apply: Apply,
    check: Callable[[list[Operation]], Verdict],
) -> None:
    good = 0
    for number in range(100):
        operations = random_history(rng, call, apply)
        expected = some_order_explains(operations, apply)
        verdict = check(operations)
        assert bool(verdict) == expected, f"history {number}: {verdict}\n" + "\n".join(map(str, operations))
        good += expected
        for counterexample in verdict.counterexamples:
            of_key = [operation for operation in operations if operation.key == counterexample.key]
            core_is_needed(of_key, counterexample.operations, apply)
    assert 15 <= good <= 85, "the histories are no mixture of good and bad"


def core_is_needed(of_key: list[Operation], core: tuple[Operation, ...], apply: Apply) -> None:
    """The core has no order while every other operation is free; freeing any of the core gives one."""

    def freed(kept: Iterable[Operation]) -> list[Operation]:
        names = {operation.client for operation in kept}
        end = max((operation.returned or 0 for operation in core), default=0)
        return [
            o
            if o.client in names
            else Operation(
                o.client, o.op, o.key, o.args, None, "fail" if o.status == "fail" else "unknown", o.called
            )
            for o in of_key
            if o.called <= end
        ]

    assert not some_order_explains(freed(core), apply)
    for one in core:
        assert some_order_explains(freed([o for o in core if o is not one]), apply), f"{one} was not needed"


# ------------------------------------------------------------------------------------------ planted violations

STALE_READ = [
    op("a", "write", 1, at=(0, 1)),
    op("a", "write", 2, at=(2, 3)),
    op("b", "read", at=(4, 5), result=1),
]
PLANTED = {
    "a stale read": STALE_READ,
    "a lost write": [op("a", "write", 1, at=(0, 1)), op("b", "read", at=(2, 3), result=None)],
    "a value from nowhere": [op("a", "write", 1, at=(0, 1)), op("b", "read", at=(0, 3), result=7)],
    "a failed write that is seen": [
        op("a", "write", 1, at=(0, 1), status="fail"),
        op("b", "read", at=(2, 3), result=1),
    ],
    "a cas with two winners": [
        op("a", "cas", None, 1, at=(0, 5), result=True),
        op("b", "cas", None, 2, at=(1, 4), result=True),
    ],
    "a cas that lost without a rival": [
        op("a", "write", 1, at=(0, 1)),
        op("b", "cas", 1, 2, at=(2, 3), result=False),
    ],
    "reads that go back and forth": [
        op("a", "write", 1, at=(0, 9)),
        op("b", "write", 2, at=(0, 9)),
        op("c", "read", at=(1, 2), result=1),
        op("c", "read", at=(3, 4), result=2),
        op("d", "read", at=(5, 6), result=1),
    ],
    "a deleted value that comes back": [
        op("a", "write", 1, at=(0, 1)),
        op("a", "delete", at=(2, 3), result=True),
        op("b", "read", at=(4, 5), result=1),
    ],
    "a write seen before its call": [op("a", "read", at=(0, 1), result=1), op("b", "write", 1, at=(2, None))],
    "an unknown write that takes effect twice": [
        op("a", "write", 1, at=(0, None)),
        op("b", "write", 2, at=(1, 2)),
        op("c", "read", at=(3, 4), result=1),
        op("b", "write", 3, at=(5, 6)),
        op("c", "read", at=(7, 8), result=1),
    ],
}


@pytest.mark.parametrize("operations", PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_violation_is_found(operations: list[Operation]) -> None:
    verdict = check_kv(operations)
    assert not verdict
    assert [counterexample.key for counterexample in verdict.counterexamples] == ["x"]


ALLOWED = {
    "nothing": [],
    "only what failed": [op("a", "read", at=(0, 1), result=5, status="fail")],
    "only what is unknown": [op("a", "write", 1, at=(0, None))],
    "an unknown write long after its call": [
        op("a", "write", 1, at=(0, None)),
        op("b", "write", 2, at=(1, 2)),
        op("c", "read", at=(3, 4), result=2),
        op("c", "read", at=(5, 6), result=1),
    ],
    "an unknown write that never happens": [
        op("a", "write", 1, at=(0, None)),
        op("c", "read", at=(3, 4), result=None),
    ],
    "two unknown writes that build on each other": [
        op("a", "write", 1, at=(0, None)),
        op("b", "cas", 1, 2, at=(0, None)),
        op("c", "read", at=(3, 4), result=2),
    ],
    "an old value while the write is under way": [
        op("a", "write", 1, at=(0, 9)),
        op("c", "read", at=(1, 2), result=None),
        op("c", "read", at=(3, 4), result=1),
    ],
    "a return and a call in one instant, which are concurrent": [
        op("a", "write", 1, at=(0, 1)),
        op("b", "read", at=(1, 2), result=None),
    ],
}


@pytest.mark.parametrize("operations", ALLOWED.values(), ids=ALLOWED.keys())
def test_what_may_happen_is_allowed(operations: list[Operation]) -> None:
    verdict = check_kv(operations)
    assert verdict, str(verdict)
    assert verdict.checked == len(operations)


def store_history(rng: random.Random, count: int, keys: int) -> History:
    """What clients of a store see whose operations take effect at moments between their calls and returns."""
    now = 0.0
    history = History(lambda: now)
    state: dict[int, Any] = {}
    busy: list[tuple[float, Operation, int]] = []
    clients = 16
    for number in range(count):
        now += rng.expovariate(1.0)
        while len(busy) >= clients or (busy and busy[0][0] <= now):
            at, operation, step = busy.pop(0)
            now = max(now, at)
            if step == 0:
                result, state[operation.key] = apply_to_register(state.get(operation.key), operation)
                if rng.random() < 0.05:
                    operation.unknown()
                else:
                    later = (now + rng.expovariate(0.2), operation, 1)
                    busy = sorted([*busy, later], key=lambda event: event[0])
                    operation.result = result
            else:
                operation.ok(operation.result)
        key = rng.randrange(keys)
        name = rng.choice(["read", "read", "write", "cas", "delete"])
        args: dict[str, list[Any]] = {"write": [number], "cas": [state.get(key), number]}
        operation = history.begin(rng.randrange(clients), name, key, args.get(name, []))
        busy = sorted([*busy, (now + rng.expovariate(0.2), operation, 0)], key=lambda event: event[0])
    return history


def test_a_stale_read_among_2000_operations_is_found_and_shown_by_itself() -> None:
    seed = 11
    print(f"seed {seed}")
    rng = random.Random(seed)
    history = store_history(rng, 2_000, 10)
    assert check_kv(history), "the history was no good one to begin with"
    reads = [
        o for o in history if o.status == "ok" and o.op == "read" and o.key == 3 and o.result is not None
    ]
    old, new = reads[5].result, reads[-1]
    assert old != new.result
    new.result = old
    verdict = check_kv(history)
    (counterexample,) = verdict.counterexamples
    assert counterexample.key == 3
    assert counterexample.minimal
    assert new in counterexample.operations
    assert len(counterexample.operations) <= 4, str(verdict)


def test_a_counterexample_reads_like_a_story() -> None:
    before = op("n", "read", at=(1.2, 1.3), result=1)
    afterwards = op("n", "read", at=(6, 7), result=1)
    assert str(check_kv([*STALE_READ, before, afterwards])).splitlines() == [
        "key x: no order explains these 3 operations, whenever the other 1 took effect, if at all:",
        "  a write x 1  (ok, 0.000000 .. 1.000000)",
        "  a write x 2  (ok, 2.000000 .. 3.000000)",
        "  b read x -> 1  (ok, 4.000000 .. 5.000000)",
        "the longest order that can be:",
        "  a write x 1  (ok, 0.000000 .. 1.000000)",
        "  a write x 2  (ok, 2.000000 .. 3.000000)",
        "leaves the state 2, in which there is no place for:",
        "  b read x -> 1  (ok, 4.000000 .. 5.000000)",
    ]


def test_each_key_is_judged_by_itself() -> None:
    elsewhere = [
        Operation(o.client, o.op, "y", o.args, o.result, "ok", o.called, o.returned) for o in STALE_READ
    ]
    verdict = check_kv(
        [*elsewhere, *PLANTED["a lost write"], Operation("c", "read", ["z"], [], None, "ok", 0, 1)]
    )
    assert {counterexample.key for counterexample in verdict.counterexamples} == {"x", "y"}


def test_a_search_that_would_take_too_much_memory_is_given_up_and_says_so() -> None:
    crowd = [op(f"c{value}", "write", value, at=(0, 10)) for value in range(9)]
    impossible = [*crowd, op("r", "read", at=(0, 10), result="nothing of these")]
    assert check_kv(impossible).counterexamples
    verdict = check_kv(impossible, max_configurations=100)
    assert not verdict
    assert verdict.undecided == ("x",)
    assert "key x: undecided" in str(verdict)


def test_thousands_of_operations_on_one_key_need_no_recursion() -> None:
    operations = [op("a", "write", at, at=(2 * at, 2 * at + 1)) for at in range(5_000)]
    assert check_kv([*operations, op("b", "read", at=(20_000, 20_001), result=4_999)])


def test_forty_unknown_writes_do_not_make_a_violation_hard_to_prove() -> None:
    lost = [op(f"c{value}", "write", value, at=(value, None)) for value in range(40)]
    seen = [op("r", "read", at=(100 + at, 100.5 + at), result=at) for at in range(0, 40, 2)]
    assert check_kv([*lost, *seen])
    twice = op("r", "read", at=(200, 201), result=4)
    assert twice in check_kv([*lost, *seen, twice]).counterexamples[0].operations


def test_having_used_up_fewer_unknown_writes_is_not_tried_again_with_more() -> None:
    operations: list[Operation] = []
    for at in range(0, 140, 10):
        operations += [
            op("u", "write", at, at=(at, None)),
            op("a", "write", at, at=(at, at + 3)),
            op("b", "read", at=(at + 1, at + 2), result=at),
            op("a", "write", -1, at=(at + 4, at + 5)),
        ]
    verdict = check_kv([*operations, op("b", "read", at=(200, 201), result=-2)], max_configurations=1_000)
    assert verdict.counterexamples, str(verdict)


def test_an_unknown_write_that_one_order_used_up_is_there_for_another() -> None:
    assert check_kv(
        [
            op("a", "write", 2, at=(0, 1)),
            op("u", "write", 2, at=(0, None)),
            op("b", "write", 1, at=(2, 5)),
            op("c", "cas", 2, 1, at=(2, 6), result=True),
            op("a", "read", at=(7, 8), result=2),
        ]
    )


def test_of_an_unknown_read_a_register_does_not_look_at_the_result() -> None:
    register = Register(3)
    unknown = op("a", "read", at=(0, None))
    assert register.step(register.initial(), unknown) == register.initial()


def test_a_register_may_hold_something_at_first() -> None:
    reads = [op("a", "read", at=(0, 1), result=[7])]
    assert check_linearizable(reads, Register([7]))
    assert not check_linearizable(reads, Register([8]))


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (op("a", "increment", at=(0, 1)), "is no operation of a register; those are read"),
        (op("a", "write", at=(0, 1)), "is no operation of a register"),
        (op("a", "increment", at=(0, None)), "is no operation of a register"),
        (op("a", "cas", 1, 2, at=(0, 1), result=None), "result true or false"),
        (op("a", "read", at=(0, None), status="ok"), "no time of return"),
    ],
)
def test_an_operation_the_model_does_not_know_is_refused(operation: Operation, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        check_kv([operation, op("b", "read", at=(0, 1), result=None)])
