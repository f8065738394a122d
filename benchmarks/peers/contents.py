"""What peers send: the same values for each, as plain fields from which a peer builds objects of its own kind."""

from __future__ import annotations

from typing import Any

from benchmarks.subject import LARGE_BYTES

KEPT = 1000
"""Orders, and ticks, that a server has in memory; a stream goes round them."""
ORDER_NUMBER = 7
"""The order that calls ask for."""
BLOB = bytes(LARGE_BYTES)
"""What a download is cut from."""


def order_fields(number: int) -> dict[str, Any]:
    """An order of five items, as benchmarks/orders.py has it."""
    items = [{"sku": f"sku-{line}", "qty": line, "price": 1.25 * line} for line in range(5)]
    return {"id": number, "user": "ada", "items": items, "note": "n" * 64}


def tick_fields(number: int) -> dict[str, Any]:
    """A small item of a stream: two ints, a float, a short text."""
    return {"number": number, "size": 100 + number, "price": 0.25 * number, "symbol": "ACME"}


def check_order(order: object, kind: type, number: int) -> None:
    """Raise RuntimeError unless this is that order, an object of that kind with every field as it was sent."""
    if not isinstance(order, kind):
        raise RuntimeError(f"an order came as {type(order)}, not {kind}")
    wanted = order_fields(number)
    found = {name: _field(order, name) for name in wanted}
    found["items"] = [
        {name: _field(item, name) for name in ("sku", "qty", "price")} for item in found["items"]
    ]
    if found != wanted:
        raise RuntimeError(f"an order came as {found}, not {wanted}")


def check_tick(tick: object, number: int) -> None:
    """Raise RuntimeError unless every field is as it was sent."""
    wanted = tick_fields(number)
    found = {name: _field(tick, name) for name in wanted}
    if found != wanted:
        raise RuntimeError(f"a tick came as {found}, not {wanted}")


def _field(record: Any, name: str) -> Any:
    return record[name] if isinstance(record, dict) else getattr(record, name)
