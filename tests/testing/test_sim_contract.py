"""What `make sim` plays: the contract suite with every seed, and each test of the other suites as often as any."""

from __future__ import annotations

from collections import Counter

from tests.calls import test_contract
from tests.sim import contract


def test_every_seed_plays_the_contract_suite_but_what_is_left_out_by_name() -> None:
    played = {name.partition("[")[0] for name, _ in contract._cases(test_contract)}
    suite = {name for name in vars(test_contract) if name.startswith("test_")}
    assert suite - played == contract.NOT_HERE
    assert suite >= contract.IN_ORDER


def test_the_tests_of_the_other_suites_take_turns() -> None:
    cases = Counter(name for name, _ in contract._cases(*contract.OTHERS))
    assert max(cases.values()) == 1
    shares = -(-len(cases) // contract.SHARE)
    for first in (0, shares, 40 * shares):
        dealt = [[name for name, _ in contract._share(seed)] for seed in range(first, first + shares)]
        assert Counter(name for share in dealt for name in share) == cases
        assert max(map(len, dealt)) <= contract.SHARE
    assert contract._share(0)[0][0] != contract._share(shares)[0][0]


def test_no_suite_that_can_be_played_is_forgotten() -> None:
    for suite in contract.OTHERS:
        assert contract._cases(suite), suite.__name__
