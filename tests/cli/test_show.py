"""`rpcfw list` and `rpcfw describe` against a running server."""

from __future__ import annotations

import json
from pathlib import Path

from rpcfw.interface import compare_all
from tests.cli.conftest import Rpcfw


def test_services_are_listed_in_aligned_columns(at_shop: Rpcfw) -> None:
    heads, _, row = at_shop("list").out.splitlines()
    assert row.split() == ["shop.Orders", "2.1", "15", "Takes", "orders."]
    for head, cell in (("VERSION", "2.1"), ("METHODS", "15"), ("ABOUT", "Takes")):
        assert heads.index(head) == row.index(cell)


def test_a_listing_for_programs_names_the_methods(at_shop: Rpcfw) -> None:
    (service,) = json.loads(at_shop("list", "--json").out)
    assert service["methods"][:2] == ["get", "place"]


def test_a_service_is_described_as_python_with_its_messages(at_shop: Rpcfw) -> None:
    text = at_shop("describe", "shop.Orders").out
    assert text.startswith("service shop.Orders 2.1\n\n    Takes orders.\n\n    Of all kinds.\n")
    assert (
        "    async def get(order_id: int, color: Color = 'red') -> Item\n        One order.\n        [idempotent]"
        in text
    )
    assert "    def watch(count: int = 3) -> AsyncIterator[Item]\n        Orders as they come in.\n" in text
    assert "    def double(numbers: AsyncIterator[int]) -> AsyncIterator[int]\n" in text
    assert "        [raises OutOfStock, Closed; timeout 2.5 s]\n" in text
    assert "    class Item:\n        sku: str\n        count: int = 1\n        picture: bytes = b''\n" in text
    assert "    class Color(Enum):\n        'blue' | 'red'\n" in text
    assert "    class Card:\n        type: Literal['Card']\n        number: bytes\n" in text
    assert "    class OutOfStock(Exception):\n        sku: str\n        left: int = 0\n" in text


def test_one_method_is_described_with_its_own_messages_alone(at_shop: Rpcfw) -> None:
    text = at_shop("describe", "shop.Orders.watch").out
    present = [part for part in ("def watch(", "def get(", "class Item:", "class Card:") if part in text]
    assert present == ["def watch(", "class Item:"]
    described = json.loads(at_shop("describe", "shop.Orders/watch", "--json").out)
    assert list(described["methods"]) == ["watch"]


def test_a_schema_is_what_check_compares(at_shop: Rpcfw, rpcfw: Rpcfw, folder: Path) -> None:
    schema = at_shop("describe", "shop.Orders", "--schema").out
    assert at_shop("describe", "--schema").out == schema  # it is the only service
    services = json.loads(schema)["services"]
    assert compare_all(services, services) == []
    (folder / "released.json").write_text(schema)
    same = rpcfw("check", "released.json", "shop.py")
    assert (same.code, same.err) == (0, "")


def test_what_is_not_there_exits_with_4_and_names_what_is(at_shop: Rpcfw) -> None:
    for name, said in (("shop.Nothing", "it serves shop.Orders"), ("shop.Orders.nope", "it has get, place")):
        done = at_shop("describe", name)
        assert done.code == 4
        assert said in done.err


def test_the_schema_of_one_method_is_refused(at_shop: Rpcfw) -> None:
    done = at_shop("describe", "shop.Orders.get", "--schema")
    assert done.code == 2
    assert "rpcfw describe shop.Orders --schema" in done.err
