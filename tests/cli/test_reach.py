"""Commands that find their servers by a registry, and what `rpcfw call --why` tells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trustme

from rpcfw.endpoint import Endpoint
from rpcfw.registry import Registration
from tests.cli.conftest import Rpcfw, Start

NOBODY = "tcp://127.0.0.1:1"


def enlist(listed: Path, endpoint: str, service: str = "shop.Orders") -> None:
    registration = Registration(service, Endpoint.parse(endpoint), "2.1")
    (listed / f"{len([*listed.iterdir()])}").write_bytes(registration.to_json())


@pytest.fixture
def tls_shop(start: Start, tmp_path: Path) -> tuple[str, Path]:
    """The address of a server behind TLS, and the file of its private authority."""
    authority, ca = trustme.CA(), tmp_path / "private-ca.pem"
    authority.cert_pem.write_to_path(ca)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    running = start("run", "shop.py", "--listen", f"tls://127.0.0.1:0?cert={tmp_path}/own.pem")
    return running.serving()[0], ca


@pytest.fixture
def at_list(rpcfw: Rpcfw, shop: str, listed: Path) -> Rpcfw:
    """Runs a command that asks a registry, which lists the module's server."""
    enlist(listed, shop)

    def run(*arguments: str, stdin: str = "") -> object:
        return rpcfw(*arguments, stdin=stdin, RPCFW_ENDPOINT=f"folder://{listed}")

    return run  # type: ignore[return-value]  # what Rpcfw calls Done


def test_a_method_is_called_at_a_server_that_the_registry_lists(at_list: Rpcfw) -> None:
    for name in ("shop.Orders.get", "shop.Orders/get"):
        done = at_list("call", name, "order_id=7", "--json")
        assert (done.code, done.err) == (0, "")
        assert json.loads(done.out)["sku"] == "red-7"
    assert at_list("call", "shop.Orders.double", stdin="1\n2\n").out == "2\n4\n"


def test_a_call_goes_round_a_server_that_cannot_be_reached(at_list: Rpcfw, listed: Path) -> None:
    enlist(listed, NOBODY)
    assert at_list("call", "shop.Orders.get", "order_id=7", "--json").code == 0


def test_services_of_a_registry_are_listed_and_described_by_their_servers(
    at_list: Rpcfw, listed: Path
) -> None:
    enlist(listed, NOBODY, "shop.Stock")
    stock, orders = at_list("list", "--timeout", "1").out.splitlines()[-1:-3:-1]
    assert orders.split()[:4] == ["shop.Orders", "2.1", "15", "Takes"]
    assert stock.startswith("shop.Stock")
    assert "no server of it can be asked: " in stock
    assert [service["name"] for service in json.loads(at_list("list", "--json").out)] == [
        "shop.Orders",
        "shop.Stock",
    ]
    text = at_list("describe", "shop.Orders.get").out
    assert "async def get(order_id: int" in text
    assert f"--endpoint folder://{listed}" in text


def test_what_a_registry_does_not_list_exits_with_4_and_names_what_it_does(
    at_list: Rpcfw, listed: Path
) -> None:
    done = at_list("call", "shop.Stock.left")
    assert done.code == 4
    assert done.err == (
        f"error: there is no service 'shop.Stock' at folder://{listed}, which lists shop.Orders\n"
    )


def test_a_registry_without_names_is_asked_for_each_part_of_the_name(rpcfw: Rpcfw, shop: str) -> None:
    url = f"static://{shop.removeprefix('tcp://')}"
    assert json.loads(rpcfw("call", "shop.Orders.get", "order_id=7", "-e", url).out)["sku"] == "red-7"
    assert "shop.Orders" in rpcfw("list", "-e", url).out
    assert rpcfw("call", "shop.Stock.left", "-e", url).code == 4


def test_a_registry_that_is_away_exits_with_3(rpcfw: Rpcfw, listed: Path) -> None:
    listed.rmdir()
    done = rpcfw("call", "shop.Orders.get", "order_id=7", "-e", f"folder://{listed}")
    assert done.code == 3
    assert "there is no folder" in done.err


def test_a_service_whose_servers_are_gone_exits_with_3(rpcfw: Rpcfw, listed: Path) -> None:
    enlist(listed, NOBODY)
    done = rpcfw("call", "shop.Orders.get", "order_id=7", "-e", f"folder://{listed}")
    assert done.code == 3
    assert NOBODY in done.err


@pytest.mark.parametrize("url", ["nowhere://", "static://", "file://here"])
def test_a_url_that_cannot_be_used_exits_with_2(rpcfw: Rpcfw, url: str) -> None:
    assert rpcfw("list", "-e", url).code == 2


def test_an_unknown_scheme_is_told_with_those_of_servers_and_registries(rpcfw: Rpcfw) -> None:
    done = rpcfw("list", "-e", "zerconf://")
    assert done.code == 2
    assert "neither an endpoint nor a registry" in done.err
    assert "tcp://" in done.err
    assert done.err.rstrip().endswith("for a registry; did you mean zeroconf://?")


def test_a_registry_that_cannot_be_asked_is_told_once(rpcfw: Rpcfw, caplog: pytest.LogCaptureFixture) -> None:
    done = rpcfw("list", "-e", "file:///nowhere/services.toml")
    assert done.err == "error: UNAVAILABLE: /nowhere/services.toml does not exist\n"
    assert not caplog.records


def test_a_registry_of_ours_that_is_away_is_named_once_with_the_mend(rpcfw: Rpcfw) -> None:
    done = rpcfw("list", "-e", "rpcfw://127.0.0.1:1")
    assert done.err == (
        "error: UNAVAILABLE: the registry rpcfw://127.0.0.1:1 cannot be reached: connection refused; "
        "is rpcfw registry running there?\n"
    )


@pytest.mark.parametrize(
    "command", [["call", "shop.Orders.get", "order_id=7"], ["list"], ["describe", "shop.Orders"]]
)
def test_servers_with_a_private_authority_are_reached_through_a_registry(
    command: list[str], tls_shop: tuple[str, Path], rpcfw: Rpcfw, listed: Path
) -> None:
    address, ca = tls_shop
    enlist(listed, address)
    where = ("-e", f"folder://{listed}")
    assert rpcfw(*command, *where, "--ca", str(ca)).code == 0
    assert rpcfw(*command, "-e", address, "--ca", str(ca)).code == 0
    done = rpcfw("services", "-r", f"folder://{listed}", "--ca", str(ca))
    assert " SERVING " in done.out


def test_files_for_tls_that_cannot_be_used_exit_with_2(rpcfw: Rpcfw, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.pem"
    assert rpcfw("list", "--ca", str(nothing)).code == 2
    nothing.write_text("nothing")
    done = rpcfw("list", "--ca", str(nothing))
    assert done.code == 2
    assert f"cannot use roots {nothing}" in done.err
    assert "give --cert as well" in rpcfw("list", "--key", str(nothing)).err


def test_why_tells_on_stderr_who_decided_what(at_list: Rpcfw, shop: str) -> None:
    done = at_list("call", "shop.Orders.nothing", "--why")
    assert done.out == "null\n"
    assert f"balancer  {shop}: the only one" in done.err
    notes = json.loads(at_list("call", "shop.Orders.nothing", "--why", "--json").err)
    assert notes[0]["at_ms"] == 0
    assert [note["what"].split(";")[0] for note in notes if note["who"] == "balancer"] == [
        f"{shop}: the only one"
    ]


def test_why_is_told_of_a_call_that_fails_as_well(at_list: Rpcfw, shop: str) -> None:
    done = at_list("call", "shop.Orders.fail", "--why", "--json")
    notes, error = map(json.loads, done.err.splitlines())
    assert done.code == 1
    assert any(shop in note["what"] for note in notes)
    assert error["error"] == "UNKNOWN"


def test_why_of_a_call_to_one_endpoint_is_that_there_was_nothing_to_decide(at_shop: Rpcfw) -> None:
    done = at_shop("call", "shop.Orders.nothing", "--why")
    assert done.err == "nothing was decided: the call had one endpoint to go to\n"
    assert at_shop("call", "shop.Orders.nothing", "--why", "--json").err == "[]\n"


def test_the_health_that_every_server_tells_can_be_called_and_is_not_listed(at_shop: Rpcfw) -> None:
    assert at_shop("call", "rpcfw.Health.check").out == "SERVING\n"
    assert at_shop("call", "rpcfw.Health.check", "service=shop.Orders").out == "SERVING\n"
    assert at_shop("call", "rpcfw.Health.check", "service=shop.Tea").code != 0
    assert "async def check(service: str = '') -> Status" in at_shop("describe", "rpcfw.Health").out
    assert "rpcfw." not in at_shop("list", "--json").out
