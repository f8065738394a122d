"""The watchdog names the method and the stack that block the loop, while they block it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

import rpcfw

THRESHOLD_S = 0.05


class Told(logging.Handler):
    """Wakes a blocked handler as soon as the watchdog has spoken."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self.event = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if "blocks the event loop" in record.getMessage():
            self.messages.append(record.getMessage())
            self.event.set()


@pytest.fixture
def told() -> Iterator[Told]:
    told = Told()
    logger = logging.getLogger("rpcfw")
    logger.addHandler(told)
    yield told
    logger.removeHandler(told)


@rpcfw.service("tests.Sleeper")
class Sleeper:
    def __init__(self, told: Told) -> None:
        self.told = told

    async def block(self) -> bool:
        return self.told.event.wait(20)

    def block_in_a_thread(self) -> bool:
        return self.told.event.wait(THRESHOLD_S * 6)


def serve(told: Told) -> rpcfw.Server:
    return rpcfw.serve(Sleeper(told), limits=rpcfw.Limits(block_threshold_s=THRESHOLD_S))


async def test_a_handler_that_blocks_the_loop_is_named_while_it_blocks(told: Told) -> None:
    async with serve(told) as server, rpcfw.connect(server.endpoint) as client:
        assert await client.stub(Sleeper).block()  # only the report can have ended it
    assert len(told.messages) == 1
    assert told.messages[0].startswith("tests.Sleeper/block blocks the event loop for more than 0.05 s")
    assert "self.told.event.wait" in told.messages[0]  # the line it hangs in
    assert "offload='thread'" in told.messages[0]


async def test_a_handler_that_blocks_a_thread_of_its_own_is_not_reported(told: Told) -> None:
    async with serve(told) as server, rpcfw.connect(server.endpoint) as client:
        blocked: bool = await client.stub(Sleeper).block_in_a_thread()  # type: ignore[misc]  # a plain def; the stub is async
    assert not blocked
    assert not told.messages
