"""One seed, one run: the scenario of `make sim` in two processes that hash strings differently.

`python -m tests.testing.test_same` does it for 200 seeds, and counts those that differ.
"""

from __future__ import annotations

import sys

from rpcfw.testing.seeds import Different, check_same
from tests.testing.world import SEED

SCENARIO = "tests.sim.contract:scenario"
AT_ONCE = 20


def test_a_seed_gives_the_same_run_whatever_the_hashes_and_another_seed_another_run() -> None:
    seeds = [SEED + number for number in range(5)]
    print(f"replay with RPCFW_TEST_SEED={SEED}")
    outcomes = check_same(SCENARIO, *seeds)
    assert [outcome.error for outcome in outcomes] == [None] * len(seeds)
    assert len({outcome.digest for outcome in outcomes}) == len(seeds)
    assert min(outcome.events for outcome in outcomes) > 100


def differing(seeds: range) -> tuple[set[str], list[int]]:
    """The digests of all seeds, and those seeds that gave two."""
    try:
        return {outcome.digest for outcome in check_same(SCENARIO, *seeds)}, []
    except Different as error:
        if len(seeds) == 1:
            print(error)
            return set(), [seeds.start]
        middle = seeds.start + len(seeds) // 2
        digests, found = differing(range(seeds.start, middle))
        more, others = differing(range(middle, seeds.stop))
        return digests | more, found + others


def main(count: int) -> bool:
    """Play that many seeds twice each; say how many of them differ, and whether any two are alike."""
    digests: set[str] = set()
    found: list[int] = []
    for start in range(0, count, AT_ONCE):
        more, others = differing(range(start, min(start + AT_ONCE, count)))
        digests |= more
        found += others
    print(f"different digests {len(digests)}")
    print(f"scenarios {count}, differing {len(found)}")
    return not found and len(digests) == count


if __name__ == "__main__":
    sys.exit(0 if main(int(sys.argv[1]) if len(sys.argv) > 1 else 200) else 1)
