"""Calls at a steady rate, whatever becomes of them (open loop), and what became of them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter

import rpcfw
from tests.faults.office import Office

TICK_S = 0.005


@dataclasses.dataclass(slots=True)
class Outcome:
    """What became of the calls.

    Attributes:
        calls: made so far.
        failed: calls of methods that may be repeated, and yet failed.
        unknown: orders whose outcome the caller was not told: they may have run, once.
        answered: numbers of the orders that were answered.
        problems: a few failures in words.
        slowest_s: the longest that a call took.
    """

    calls: int = 0
    failed: int = 0
    unknown: int = 0
    answered: set[str] = dataclasses.field(default_factory=set)
    problems: Counter[str] = dataclasses.field(default_factory=Counter)
    slowest_s: float = 0.0


class Load:
    """Calls an office `per_s` times a second, every other call an order, until told to stop."""

    def __init__(self, office: Office, per_s: int, *, orders: bool) -> None:
        self._office = office
        self._per_s = per_s
        self._orders = orders
        self._calls: set[asyncio.Task[None]] = set()
        self._stopping = False
        self.outcome = Outcome()

    async def run(self) -> None:
        """Call until `stop`, then wait for the last answers."""
        loop = asyncio.get_running_loop()
        begun, made = loop.time(), 0
        while not self._stopping:
            due = int((loop.time() - begun) * self._per_s)
            for number in range(made, due):
                call = loop.create_task(self._call(number))
                self._calls.add(call)
                call.add_done_callback(self._calls.discard)
            made = due
            await asyncio.sleep(TICK_S)
        while self._calls:
            await asyncio.wait(self._calls)

    def stop(self) -> None:
        """Make no more calls."""
        self._stopping = True

    async def _call(self, number: int) -> None:
        loop, outcome = asyncio.get_running_loop(), self.outcome
        begun = loop.time()
        is_order = self._orders and number % 2 == 1
        outcome.calls += 1
        try:
            if is_order:
                await self._office.order(str(number))
                outcome.answered.add(str(number))
            else:
                assert await self._office.length("x" * (number % 50)) == number % 50
        except rpcfw.RpcError as error:
            if is_order and error.executed is not False:
                outcome.unknown += 1
            else:
                outcome.failed += 1
                outcome.problems[str(error)] += 1
        except Exception as error:
            outcome.failed += 1
            outcome.problems[repr(error)] += 1
        outcome.slowest_s = max(outcome.slowest_s, loop.time() - begun)
