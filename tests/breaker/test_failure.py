"""What counts as a failure of a node."""

from __future__ import annotations

import asyncio

import pytest

import rpcfw
from rpcfw.breaker import FAILURE_CODES, failure_codes, is_failure, is_failure_or_overload
from rpcfw.errors import Code, Origin, RpcError


class OutOfStock(rpcfw.ServiceError):
    sku: str


ANSWERS = {
    Code.CANCELLED: None,
    Code.UNKNOWN: True,
    Code.INVALID_ARGUMENT: False,
    Code.DEADLINE_EXCEEDED: True,
    Code.NOT_FOUND: False,
    Code.ALREADY_EXISTS: False,
    Code.PERMISSION_DENIED: False,
    Code.RESOURCE_EXHAUSTED: None,
    Code.FAILED_PRECONDITION: False,
    Code.ABORTED: False,
    Code.OUT_OF_RANGE: False,
    Code.UNIMPLEMENTED: False,
    Code.INTERNAL: True,
    Code.UNAVAILABLE: True,
    Code.DATA_LOSS: True,
    Code.UNAUTHENTICATED: False,
}


@pytest.mark.parametrize("code", Code)
def test_an_answer_of_the_node_is_judged_by_its_code(code: Code) -> None:
    error = RpcError(code, "no", origin=Origin.REMOTE, executed=code is not Code.RESOURCE_EXHAUSTED)
    assert is_failure(error) is ANSWERS[code]


def test_a_result_and_a_declared_error_are_successes() -> None:
    assert is_failure(None) is False
    assert is_failure(OutOfStock("tea")) is False


@pytest.mark.parametrize(
    "error",
    [
        RpcError(Code.UNAVAILABLE, "refused", origin=Origin.CONNECTION, executed=False),
        RpcError(Code.UNAVAILABLE, "lost", origin=Origin.CONNECTION),
        RpcError(Code.DEADLINE_EXCEEDED, "no reply before the deadline"),
        RpcError(Code.DEADLINE_EXCEEDED, "could not be sent", origin=Origin.CONNECTION, executed=False),
        RpcError(Code.INTERNAL, "unreadable", origin=Origin.CONNECTION, executed=True),
    ],
    ids=str,
)
def test_a_node_that_cannot_be_reached_or_does_not_answer_fails(error: RpcError) -> None:
    assert is_failure(error) is True


@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError(),
        GeneratorExit(),
        KeyboardInterrupt(),
        ZeroDivisionError("a fault of ours"),
        RpcError(Code.UNAVAILABLE, "the breaker is open", executed=False),
        RpcError(Code.RESOURCE_EXHAUSTED, "the limiter is full", executed=False),
        RpcError(Code.DEADLINE_EXCEEDED, "had passed before it was sent", executed=False),
        RpcError(Code.INVALID_ARGUMENT, "cannot be encoded", executed=False),
        RpcError(Code.INVALID_ARGUMENT, "cannot be encoded"),
        RpcError(Code.RESOURCE_EXHAUSTED, "the reply is too large for us", executed=True),
    ],
    ids=repr,
)
def test_what_is_ours_says_nothing_about_the_node(error: BaseException) -> None:
    assert is_failure(error) is None
    if not isinstance(error, RpcError) or error.executed is False:
        assert is_failure_or_overload(error) is None


def test_a_busy_node_fails_where_overload_counts() -> None:
    busy = RpcError(Code.RESOURCE_EXHAUSTED, "busy", origin=Origin.REMOTE, executed=False)
    assert is_failure(busy) is None
    assert is_failure_or_overload(busy) is True
    assert is_failure_or_overload(None) is False


def test_other_codes_can_be_made_failures() -> None:
    judge = failure_codes(Code.ABORTED, Code.CANCELLED)
    assert judge(RpcError(Code.ABORTED, "no", origin=Origin.REMOTE)) is True
    assert judge(RpcError(Code.CANCELLED, "no", origin=Origin.REMOTE)) is True
    assert judge(RpcError(Code.UNAVAILABLE, "no", origin=Origin.REMOTE)) is False
    assert judge(RpcError(Code.RESOURCE_EXHAUSTED, "no", origin=Origin.REMOTE)) is None
    assert judge(None) is False
    assert judge(OutOfStock("tea")) is False
    assert judge(asyncio.CancelledError()) is None


def test_no_codes_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one code"):
        failure_codes()


def test_the_default_codes_are_those_of_the_table() -> None:
    assert {code for code, judged in ANSWERS.items() if judged} == FAILURE_CODES
