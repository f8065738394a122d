"""The course of events while the callers ask: one server is killed in the middle of its calls, and comes back."""

from __future__ import annotations

import asyncio

import rpcfw
from examples.search.cluster import ServerFailed, ServerProcess
from examples.search.traffic import Phase, Traffic

RETURN_WITHIN_S = 60.0


class Course:
    """Kills one server of a client that is under load, starts it again, and writes down when what happened.

    Attributes:
        events: seconds since the first call, and what happened then.
    """

    def __init__(self, traffic: Traffic, client: rpcfw.Client, victim: ServerProcess) -> None:
        self.events: list[tuple[float, str]] = []
        self._traffic = traffic
        self._victim = victim
        self._channel = next(node for node in client.nodes if node.endpoint.address == victim.endpoint)
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()

    async def run(self, seconds: float) -> None:
        """Let the callers ask for so long, or longer: until the server has been back for a quarter of that time.

        Raises:
            ServerFailed: the server did not come back.
        """
        self._start = self._loop.time()
        self._note("the callers begin")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._traffic.run())
            await asyncio.sleep(seconds / 4)
            try:
                async with asyncio.timeout(RETURN_WITHIN_S):
                    await self._kill()
                    await self._restart()
            except TimeoutError:
                raise ServerFailed(
                    f"server {self._victim.node} was not back {RETURN_WITHIN_S:g} s after it was killed; "
                    "is this machine very busy? --files 300 has it read less"
                ) from None
            await asyncio.sleep(max(seconds - self._elapsed_s, seconds / 4))
            self._traffic.stop()
        self._note("the last call has ended")

    def look(self, seconds: float) -> tuple[float, float, str]:
        """How far it is, of how far, and what there is to say."""
        now = {
            Phase.BEFORE: "all answer",
            Phase.DOWN: f"{self._victim.node} is down",
            Phase.AFTER: "all answer again",
        }
        note = f"{self._traffic.calls:,} calls, {self._traffic.failed:,} failed; {now[self._traffic.phase]}"
        return min(seconds, self._elapsed_s), seconds, note

    async def _kill(self) -> None:
        while not self._channel.in_flight:  # noqa: ASYNC110  no event tells of it; the callers soon call again
            await asyncio.sleep(0)
        victim = self._victim
        self._traffic.went_down(victim.node)
        victim.kill()
        self._note(
            f"SIGKILL to server {victim.node} (pid {victim.pid}); calls in flight to it: {self._channel.in_flight}"
        )
        await victim.gone()

    async def _restart(self) -> None:
        victim = self._victim
        await victim.start()
        self._note(f"server {victim.node} is started again (pid {victim.pid}) and indexes")
        await victim.served()
        self._traffic.came_back()
        self._note(f"server {victim.node} has indexed {victim.files:,} files and listens")
        await self._traffic.returned.wait()
        self._note(f"server {victim.node} answers its first call again")

    @property
    def _elapsed_s(self) -> float:
        return self._loop.time() - self._start

    def _note(self, text: str) -> None:
        self.events.append((self._elapsed_s, text))
