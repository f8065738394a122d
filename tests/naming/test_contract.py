"""rpcfw's own registry keeps the contract: as a real process that is killed, and in simulation, one and two of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from rpcfw.naming import NamingRegistry
from rpcfw.testing import Simulation, registry_contract, simulate
from rpcfw.testing.registry_contract import Check, Store
from tests.naming.places import RegistryProcess, SimulatedPlace
from tests.registry.servers import ServerPlace, owned


@pytest.fixture(scope="module")
def process() -> Iterator[RegistryProcess]:
    with owned(RegistryProcess()) as server:
        yield server


@pytest.fixture
async def place(process: RegistryProcess) -> AsyncIterator[ServerPlace]:
    def make(port: int) -> NamingRegistry:
        return NamingRegistry.from_url(f"rpcfw://127.0.0.1:{port}?timeout_s=1")

    async with ServerPlace(process, make, forgets=True) as place:
        yield place


@pytest.mark.parametrize("check", registry_contract.ALL, ids=registry_contract.name_of)
async def test_contract_at_a_real_process(check: Check[Store], place: ServerPlace) -> None:
    await check(place)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("check", registry_contract.ALL, ids=registry_contract.name_of)
def test_contract_in_simulation(check: Check[Store], seed: int, count: int) -> None:
    async def scenario(simulation: Simulation) -> None:
        await check(SimulatedPlace(simulation, count))

    simulate(scenario, seed=seed)
