"""What a handler's end may and may not do to what it leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

import rpcfw
from tests.calls.place import Place
from tests.calls.virtual import virtual_time

TURNS_TO_LEAVE = 10
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@rpcfw.service
class Keeper:
    def __init__(self) -> None:
        self.cleaned: list[str] = []
        self.later: asyncio.Task[int] | None = None
        self.other: Keeper | None = None

    async def wait(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.cleaned.append("begun")
            await asyncio.sleep(1)
            self.cleaned.append("ended")

    async def leave(self) -> None:
        raise SystemExit(3)

    async def number(self) -> int:
        return 7

    async def start(self) -> None:
        async def call_later() -> int:
            await asyncio.sleep(5)
            assert self.other is not None
            return await self.other.number()

        self.later = asyncio.create_task(call_later())


@virtual_time
async def test_a_handler_is_cancelled_once_so_that_its_cleanup_is_not_cut_short() -> None:
    place = Place("mem")
    keeper = Keeper()
    client = place.connect(await place.serve(keeper))
    waiting = asyncio.ensure_future(client.stub(Keeper).wait())
    await asyncio.sleep(1)
    waiting.cancel()  # a reset comes, and the clean-up begins
    await asyncio.sleep(0.5)
    assert keeper.cleaned == ["begun"]
    await client.close()  # the link is lost amid it
    await asyncio.sleep(3)
    assert keeper.cleaned == ["begun", "ended"]
    await place.close()


@virtual_time
async def test_a_task_that_outlives_its_handler_does_not_inherit_the_deadline() -> None:
    place = Place("mem")
    keeper = Keeper()
    client = place.connect(await place.serve(keeper))
    keeper.other = client.stub(Keeper)
    await rpcfw.with_options(client.stub(Keeper), timeout_s=2).start()
    assert keeper.later is not None
    assert await keeper.later == 7
    await place.close()


@pytest.mark.parametrize(
    "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def test_a_handler_may_end_the_process_and_not_only_its_connection(new_loop: LoopFactory) -> None:
    place = Place("tcp")

    async def main() -> None:
        keeper = place.connect(await place.serve(Keeper()), middleware=[]).stub(Keeper)
        assert await keeper.number() == 7
        await asyncio.gather(keeper.leave(), return_exceptions=True)
        for _ in range(TURNS_TO_LEAVE):
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        try:
            with pytest.raises(SystemExit):
                runner.run(main())
        finally:
            runner.run(place.close())
