"""Fallback: where a call fails, a function of this process or another service answers; or always, as a mock.

Dubbo's service degradation, ``mock=fail:`` and ``mock=force:``. For one stand-in whatever the arguments there is
`Failsafe`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Any

from rpcfw.call import Call, Handler
from rpcfw.errors import Code, RpcError
from rpcfw.interface import CallKind, MethodSpec
from rpcfw.mistakes import check_function, check_mapping

DEGRADED = (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED)
"""The codes of a service that does badly; all others say something about the call."""


class Fallback:
    """Middleware of clients that has failed calls answered by something else.

        Fallback({"shop.Orders.get": from_cache})           # a function with the parameters of the method, async or not
        Fallback({"shop.Orders": client.stub(OldOrders)})   # or an object that has the methods
        Fallback({"shop.Orders": FakeOrders()}, force=True) # a mock: the service is never called

    A method without an answer passes untouched, and so does one with streams, unless forced. An error of the answer
    itself reaches the caller, with the failure of the call as its context. A local answer knows no deadline.

    Args:
        answers: by the name of a method or of a service; a method's own counts more.
        codes: which errors are answered so. Declared errors are answers already.
        when: instead of the codes, a function of the call and the error that says which.
        force: never make the call.
    """

    def __init__(
        self,
        answers: Mapping[str, Any],
        *,
        codes: Collection[Code] = DEGRADED,
        when: Callable[[Call, RpcError], bool] | None = None,
        force: bool = False,
    ) -> None:
        check_mapping(answers, "answers", 'Fallback({"shop.Orders.get": from_cache})')
        if isinstance(codes, Code):
            raise TypeError(f"codes={codes!r} is not a list: write codes=[Code.{codes.name}]")
        if when is not None:
            check_function(when, "when", "a call and its error", "a function that gives True or False")
        self._answers = {name.replace("/", "."): answer for name, answer in answers.items()}
        self._codes = frozenset(codes)
        self._when = when
        self._force = force

    def __call__(self, handler: Handler) -> Handler:
        """Wrap a handler."""

        async def fall_back(call: Call) -> Any:
            answer = self._answer_of(call.method)
            if answer is None:
                return await handler(call)
            if not self._force:
                if call.method.kind is not CallKind.UNARY:
                    return await handler(call)
                try:
                    return await handler(call)
                except RpcError as error:
                    if not self._applies(call, error):
                        raise
                    _note(call, f"answered by {_name(answer)}, since {error.code.name}: {error.message}")
                    return await _ask(answer, call)
            _note(call, f"answered by {_name(answer)}, as always")
            return await _ask(answer, call)

        return fall_back

    def _applies(self, call: Call, error: RpcError) -> bool:
        return self._when(call, error) if self._when is not None else error.code in self._codes

    def _answer_of(self, method: MethodSpec) -> Callable[..., Any] | None:
        answer = self._answers.get(f"{method.service}.{method.name}")
        if answer is None:
            whole = self._answers.get(method.service)
            answer = getattr(whole, method.attribute, None) if whole is not None else None
        if answer is not None and not callable(answer):
            raise TypeError(f"the fallback of {method.path} is {answer!r}; give a function, or use Failsafe")
        found: Callable[..., Any] | None = answer
        return found


async def _ask(answer: Callable[..., Any], call: Call) -> Any:
    """Call it as the method would be called."""
    given = list(zip(call.method.parameters, call.arguments, strict=True))
    positional = [value for parameter, value in given if not parameter.keyword_only]
    named = {parameter.name: value for parameter, value in given if parameter.keyword_only}
    result = answer(*positional, **named)
    if isinstance(result, Awaitable):
        result = await result
    if call.method.kind.streams_out and not hasattr(result, "aclose"):
        return _closable(result)
    return result


async def _closable(items: Any) -> AsyncIterator[Any]:
    """Any iterator of items as what a stub reads, which it can close."""
    async for item in items:
        yield item


def _note(call: Call, what: str) -> None:
    if call.route is not None:
        call.route.note(asyncio.get_running_loop().time(), "fallback", what)


def _name(answer: Any) -> str:
    return getattr(answer, "__qualname__", None) or repr(answer)
