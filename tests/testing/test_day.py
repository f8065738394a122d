"""A few hours of the day of `tests.sim.day`, as the suite has no time for all of it."""

from __future__ import annotations

import pytest

from rpcfw.testing.simulation import Simulation
from tests.sim import day
from tests.testing.world import SEED


@pytest.mark.parametrize("number", range(2))
def test_after_hours_of_faults_there_is_no_more_of_anything_than_after_the_first(number: int) -> None:
    seed = SEED + number
    print(f"replay with RPCFW_TEST_SEED={seed}")
    simulation = Simulation(seed, keep_events=1000)
    lived = simulation.run(lambda simulation: day.scenario(simulation, hours=3))
    first, last = lived.counts
    assert last.all_objects < 1.02 * first.all_objects
    assert (last.connections, last.open_ends) == (3, 6)
    assert (last.handlers, last.calls) == (0, 0)
    assert sum(host.crashes for host in simulation.hosts.values()) > 0
    assert set(lived.ends) == {"reply", "declared error", "given up", "UNAVAILABLE", "DEADLINE_EXCEEDED"}
