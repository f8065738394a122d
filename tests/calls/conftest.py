"""A place on each transport, and a server with its client and stub there."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import trustme

from rpcfw import Client, Server, TlsConfig
from tests.calls.contract import Contract, Service
from tests.calls.place import SCHEMES, Place


@dataclasses.dataclass
class Served:
    """The contract being served: its stub, the server, the client, and the implementation itself."""

    stub: Contract
    server: Server
    client: Client
    service: Service


@pytest.fixture(scope="session")
def mutual_tls(tmp_path_factory: pytest.TempPathFactory) -> TlsConfig:
    """One certificate for both sides, which both ask for."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1", common_name="both sides")
    certificate, ca = folder / "cert.pem", folder / "ca.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))
    authority.cert_pem.write_to_path(str(ca))
    return TlsConfig(certificate=certificate, ca=ca, require_client_certificate=True)


@pytest_asyncio.fixture(params=SCHEMES)
async def place(
    request: pytest.FixtureRequest, tmp_path: Path, mutual_tls: TlsConfig
) -> AsyncIterator[Place]:
    """A place on each transport in turn."""
    place = Place(request.param, tmp_path, mutual_tls)
    yield place
    await place.close()


@pytest_asyncio.fixture
async def here() -> AsyncIterator[Place]:
    """One place, over TCP, for what does not depend on the transport."""
    place = Place("tcp")
    yield place
    await place.close()


@pytest_asyncio.fixture
async def served(place: Place) -> Served:
    """The contract, served and called with the standard limits and options."""
    service = Service()
    server = await place.serve(service)
    client = place.connect(server)
    return Served(client.stub(Contract), server, client, service)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Nothing here may take long: a test that does hangs."""
    if item.get_closest_marker("time_limit") is None:
        item.add_marker(pytest.mark.time_limit(20))
