"""What counts as a failure of a node: the default, and how to make another. Says nothing about what follows from it."""

from __future__ import annotations

from collections.abc import Callable

from rpcfw.errors import Code, Origin, RpcError, ServiceError

Judge = Callable[[BaseException | None], "bool | None"]
"""From the error of a call, or None for a result: True for a failure, False for a success, None for neither."""

FAILURE_CODES = frozenset(
    (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS)
)
"""Codes that speak against the node.

UNKNOWN is what a handler's undeclared exception becomes. It may be the fault of one request, but a node that has lost
its database raises just those, quickly, and a balancer would love it for that. What is expected to go wrong belongs in
``raises=[...]``: a declared error is an answer.
"""

_NEITHER = frozenset((Code.CANCELLED, Code.RESOURCE_EXHAUSTED))
"""Codes from the node that say nothing: whoever is cancelled was not finished, and whoever is busy is not broken."""


def failure_codes(*codes: Code) -> Judge:
    """A judge to whom these codes are failures, under the rules of `is_failure`. Raises ValueError for none at all."""
    if not codes:
        raise ValueError("failure_codes() needs at least one code, as in failure_codes(Code.UNAVAILABLE)")
    failing = frozenset(codes)
    neither = _NEITHER - failing

    def judge(error: BaseException | None) -> bool | None:
        if error is None or isinstance(error, ServiceError):
            return False
        if not isinstance(error, RpcError):
            return None  # cancelled, or a fault of this process
        if error.origin is Origin.LOCAL and error.executed is False:
            return None  # it never left this process
        if error.code in failing:
            return True
        return False if error.origin is Origin.REMOTE and error.code not in neither else None

    return judge


_judge = failure_codes(*FAILURE_CODES)
_judge_of_load = failure_codes(*FAILURE_CODES, Code.RESOURCE_EXHAUSTED)


def is_failure(error: BaseException | None) -> bool | None:
    """Whether the end of a call speaks against the node that it was given to.

    True: the codes of `FAILURE_CODES`, a lost connection and a deadline that passed without a reply among them.
    False: a result, a declared error, and other codes with which the node answered, such as INVALID_ARGUMENT.
    None, which is neither: a call that was cancelled, one that was refused before it left this process (by a breaker,
    by a limiter, because its deadline had passed, because it could not be encoded), and a node that is too busy.
    """
    return _judge(error)


def is_failure_or_overload(error: BaseException | None) -> bool | None:
    """As `is_failure`, but a node that is too busy (RESOURCE_EXHAUSTED) fails: what `Adaptive` is for."""
    return _judge_of_load(error)
