"""`make faults-cluster`: real server processes that are restarted and killed under load, and a ledger of what ran.

    python -m tests.faults.cluster [--rounds 20] [--kills 50] [--rate 2000]

A rolling restart must cost no call at all. A kill must cost no call that may be repeated, and no order may run twice.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

import rpcfw
from tests.faults.load import Load, Outcome
from tests.faults.office import Office
from tests.faults.processes import Server, running

ROLLING, KILLED = 5, 3


@asynccontextmanager
async def registry_running() -> AsyncIterator[str]:
    """rpcfw's own registry in a process of its own; its URL."""
    server = Server(["-m", "rpcfw", "registry", "--listen", "tcp://127.0.0.1:0"], ready="serving")
    async with running([server]):
        address = next(word for word in server.ready_line.split() if word.startswith("tcp://"))
        yield address.replace("tcp://", "rpcfw://")


def offices(count: int, registry: str, folder: Path) -> list[Server]:
    """Server processes that share one ledger."""
    ledger = folder / "ledger"
    command = ["-m", "tests.faults.office", "--registry", registry, "--ledger", str(ledger)]
    return [Server(command, ready="serving at") for _ in range(count)]


async def under_load(
    registry: str,
    servers: Sequence[Server],
    rate: int,
    *,
    orders: bool,
    course: Callable[[Callable[[str], None]], Awaitable[None]],
) -> Outcome:
    """Calls at a steady rate while the course of things goes on."""
    async with running(servers), rpcfw.connect(registry) as client:
        office = client.stub(Office)
        await office.length("warm")
        load = Load(office, rate, orders=orders)
        calling = asyncio.create_task(load.run())
        await asyncio.sleep(1.0)
        try:
            await course(
                lambda what: show(f"{what}, {load.outcome.calls:,} calls, {load.outcome.failed} failed")
            )
            await asyncio.sleep(1.0)
        finally:
            load.stop()
            await calling
        for server in servers:
            server.check()
        return load.outcome


async def rolling_restart(registry: str, folder: Path, rounds: int, rate: int) -> Outcome:
    """Each of five servers is told to go and started anew, one after the other, round after round."""
    servers = offices(ROLLING, registry, folder)

    async def course(tell: Callable[[str], None]) -> None:
        for number in range(1, rounds + 1):
            for server in servers:
                code = await server.leave()
                assert code == 0, f"a server ended with {code} after SIGTERM, not 0"
                await server.start()
            tell(f"round {number} of {rounds}")

    return await under_load(registry, servers, rate, orders=True, course=course)


async def kill_at_random(registry: str, folder: Path, kills: int, rate: int, rng: random.Random) -> Outcome:
    """One of three servers is killed, and started anew, again and again."""
    servers = offices(KILLED, registry, folder)

    async def course(tell: Callable[[str], None]) -> None:
        for number in range(1, kills + 1):
            server = rng.choice(servers)
            await asyncio.sleep(rng.uniform(0.0, 0.3))
            await server.kill()
            await server.start()
            if number % 5 == 0 or number == kills:
                tell(f"kill {number} of {kills}")

    return await under_load(registry, servers, rate, orders=True, course=course)


def judge(name: str, outcome: Outcome, ledger: Path) -> int:
    """Hold the answers against the ledger; how many orders ran twice. Prints what there is to know."""
    ran = Counter(ledger.read_text().split())
    twice = [number for number, times in ran.items() if times > 1]
    lost = outcome.answered - ran.keys()
    assert not lost, f"{len(lost)} orders were answered and did not run: {sorted(lost)[:5]}"
    unanswered = len(ran.keys() - outcome.answered)
    show(
        f"{name}: {outcome.calls:,} calls, failed {outcome.failed}; {len(outcome.answered):,} orders answered, "
        f"{outcome.unknown} of unknown outcome, of which {unanswered} ran; run twice {len(twice)}; "
        f"slowest call {outcome.slowest_s:.2f} s"
    )
    for problem, times in outcome.problems.most_common(5):
        show(f"  {times} x {problem}")
    ledger.unlink()
    return len(twice)


def show(line: str) -> None:
    """Print at once."""
    print(line, flush=True)


async def main() -> int:
    """Both runs; 0 when no call failed and none ran twice."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.cluster")
    parser.add_argument(
        "--rounds", type=int, default=20, help="of the rolling restart (default: %(default)s)"
    )
    parser.add_argument("--kills", type=int, default=50, help="with SIGKILL (default: %(default)s)")
    parser.add_argument("--rate", type=int, default=2000, help="calls a second (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of whom is killed when")
    parser.add_argument("--registry", help="URL of another registry than rpcfw's own")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    show(f"seed {seed}")
    failed = twice = 0
    with tempfile.TemporaryDirectory(prefix="rpcfw-faults-") as name:
        folder = Path(name)

        async def both(registry: str) -> None:
            nonlocal failed, twice
            outcome = await rolling_restart(registry, folder, options.rounds, options.rate)
            twice += judge("rolling restart", outcome, folder / "ledger")
            failed += outcome.failed + outcome.unknown  # nobody was killed: nothing may be unknown
            outcome = await kill_at_random(registry, folder, options.kills, options.rate, random.Random(seed))
            twice += judge("kill -9", outcome, folder / "ledger")
            failed += outcome.failed

        if options.registry:
            await both(options.registry)
        else:
            async with registry_running() as registry:
                await both(registry)
    show(f"failed calls {failed}, calls run twice {twice}")
    return 1 if failed or twice else 0


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
