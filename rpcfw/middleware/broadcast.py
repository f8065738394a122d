"""Broadcast: a call is made at every node of its service, to clear a cache, say, or to reload a configuration.

The cluster makes the calls (`Route.every`); here their outcomes are made into one. Dubbo's cluster strategy of the same
name.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import msgspec

from rpcfw.call import Call, Handler, Outcomes, Route
from rpcfw.errors import Code, Origin, RpcError
from rpcfw.interface import CallKind
from rpcfw.mistakes import check_text

_TOLD = 5
"""So many failures are told in the message; all of them are among the details."""


class Broadcast:
    """Middleware of clients that makes calls at all nodes of their service, and fails where any of them fails.

    The error has the code of the first failure, and among its details under ``outcomes`` what every node said: ``"ok"``
    or its error. Nodes that come later do not hear of the call. Unary calls only; all others pass untouched.

    Args:
        methods: the names of those to broadcast, as ``"shop.Cache.clear"``, or of a service for all of its methods; all
            methods of the client where none is given.
        result: what the caller gets: that of the ``"first"`` node, which is of the declared type, or ``"all"`` of them,
            as a dict by address, which is for code that does not go by the declared type.
    """

    def __init__(self, *methods: str, result: Literal["first", "all"] = "first") -> None:
        for name in methods:
            check_text(name, "methods", 'Broadcast("shop.Cache.clear")')
        if result not in ("first", "all"):
            raise ValueError(f'result={result!r} must be "first" or "all"')
        self._methods = frozenset(name.replace("/", ".") for name in methods)
        self._all = result == "all"

    def __call__(self, handler: Handler) -> Handler:
        """Wrap a handler."""

        async def broadcast(call: Call) -> Any:
            method, given = call.method, call.route
            if method.kind is not CallKind.UNARY or not self._is_meant(method.service, method.name):
                return await handler(call)
            route = Route(every=True)
            if given is not None:
                route.tried, route.notes = given.tried, given.notes
            result = await handler(msgspec.structs.replace(call, route=route))
            if not isinstance(result, Outcomes):  # a client of one endpoint
                return {"": result} if self._all else result
            outcomes = result
            if given is not None:
                failed = sum(isinstance(outcome, BaseException) for _, outcome in outcomes)
                now = asyncio.get_running_loop().time()
                given.note(now, "broadcast", f"{len(outcomes)} nodes, {failed} of them failed")
            try:
                return _together(call, outcomes, as_dict=self._all)
            finally:
                outcomes.clear()  # errors hold the frames they have passed, which hold this list

        return broadcast

    def _is_meant(self, service: str, method: str) -> bool:
        methods = self._methods
        return not methods or service in methods or f"{service}.{method}" in methods


def _together(call: Call, outcomes: Outcomes, *, as_dict: bool) -> Any:
    """The results, or an error when any of the nodes failed."""
    failures = [(address, error) for address, error in outcomes if isinstance(error, BaseException)]
    if failures:
        raise _error(call, outcomes, failures)
    if as_dict:
        return dict(outcomes)
    return outcomes[0][1] if outcomes else None


def _error(call: Call, outcomes: Outcomes, failures: list[tuple[str, BaseException]]) -> RpcError:
    told = "; ".join(f"{address}: {_text(error)}" for address, error in failures[:_TOLD])
    more = f"; and {len(failures) - _TOLD} more" if len(failures) > _TOLD else ""
    message = f"{call.method.path} failed at {len(failures)} of {len(outcomes)} nodes: {told}{more}"
    first = failures[0][1]
    code, origin = (
        (first.code, first.origin) if isinstance(first, RpcError) else (Code.UNKNOWN, Origin.REMOTE)
    )
    unsent = all(isinstance(error, RpcError) and error.executed is False for _, error in failures)
    executed = True if len(failures) < len(outcomes) else (False if unsent else None)
    said = {
        address: _text(outcome) if isinstance(outcome, BaseException) else "ok"
        for address, outcome in outcomes
    }
    return RpcError(code, message, {"outcomes": said}, origin=origin, executed=executed)


def _text(error: BaseException) -> str:
    if isinstance(error, RpcError):
        return f"{error.code.name}: {error.message}"
    return f"{type(error).__name__}: {error}"
