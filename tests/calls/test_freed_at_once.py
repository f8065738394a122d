"""What a call leaves: nothing that only the garbage collector would free, however the call has ended."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from rpcfw import CallKind, with_options
from tests.calls.conftest import Served
from tests.calls.contract import Step, call

KIND = pytest.mark.parametrize("kind", list(CallKind), ids=lambda kind: kind.value.replace(" ", "_"))
TURNS_TO_END = 10


@KIND
@pytest.mark.parametrize("step", [Step.DECLARED, Step.UNDECLARED, Step.REFUSE, Step.WAIT])
async def test_the_error_of_a_call_is_freed_with_whoever_caught_it(
    served: Served, kind: CallKind, step: Step
) -> None:
    stub = with_options(served.stub, timeout_s=0.05) if step is Step.WAIT else served.stub

    async def failed() -> weakref.ref[Exception]:
        try:
            await call(stub, kind, step)
        except Exception as error:
            return weakref.ref(error)
        raise AssertionError("the call did not fail")

    await failed()  # connects
    gc.collect()
    gc.disable()
    try:
        error = await failed()
        for _ in range(TURNS_TO_END):
            await asyncio.sleep(0)
        assert error() is None
    finally:
        gc.enable()
