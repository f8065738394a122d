"""What a registry keeps, step by step, the time passed in."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from rpcfw.errors import Code, RpcError
from rpcfw.naming.interface import Claim, Refusal
from rpcfw.naming.table import Bounds, Table
from rpcfw.registry import Registration
from rpcfw.testing.registry_places import ORDERS, STOCK, registration


class Place:
    """A table, its news, and short words for what is done with it."""

    def __init__(self, **bounds: Any) -> None:
        self.news: list[str] = []
        self.table = Table(10.0, Bounds(**bounds), self.news.append)
        self._number = 0

    def register(
        self,
        lease: str,
        *registrations: Registration,
        names: list[Claim] | None = None,
        now: float = 0.0,
        client: str = "10.0.0.1",
        number: int | None = None,
    ) -> list[Refusal]:
        self._number += 1
        texts = [(one.to_json().decode(), one) for one in registrations]
        return self.table.register(now, client, (lease, number or self._number), texts, names or [])

    def renew(self, lease: str, now: float) -> list[Refusal] | None:
        held = self.table._leases.get(lease)
        return self.table.renew(now, lease, held.number if held else 0)

    def shown(self, service: str = ORDERS) -> set[Registration]:
        return {Registration.from_json(listed.registration) for listed in self.table.listed(service)}

    def name(self, name: str) -> str:
        binding = self.table.names.get(name)
        return Registration.from_json(binding.registration).endpoint.address if binding else ""


@pytest.fixture
def place() -> Place:
    return Place()


def claim(name: str, port: int, *, number: int = 1, replace: bool = False) -> Claim:
    return Claim(name, number, registration(port).to_json().decode(), replace)


ONE, OTHER, LIGHTER = registration(7001), registration(7002), registration(7001, weight=10)


def test_a_registration_goes_when_its_lease_ends_and_not_before(place: Place) -> None:
    place.register("a", ONE)
    assert place.table.next_end() == 10.0
    place.table.expire(9.999)
    assert place.shown() == {ONE}
    place.table.expire(10.0)
    assert place.shown() == set()
    assert place.table.services() == []
    assert place.table.next_end() == math.inf


def test_a_renewal_begins_the_lease_anew_and_tells_nobody(place: Place) -> None:
    place.register("a", ONE)
    place.register("b", OTHER)
    place.news.clear()
    assert place.renew("a", 6.0) == []
    assert place.news == []
    place.table.expire(10.0)
    assert place.shown() == {ONE}
    place.table.expire(16.0)
    assert place.shown() == set()


def test_a_lease_that_is_not_known_is_not_renewed(place: Place) -> None:
    assert place.renew("a", 1.0) is None
    place.register("a", ONE, number=4)
    assert place.table.renew(1.0, "a", 3) is None
    place.table.expire(10.0)
    assert place.table.renew(11.0, "a", 4) is None


def test_what_is_not_mentioned_any_more_goes(place: Place) -> None:
    stock = registration(7001, service=STOCK)
    place.register("a", ONE, stock)
    assert place.table.services() == [ORDERS, STOCK]
    place.register("a", stock)
    assert place.table.services() == [STOCK]


def test_a_request_that_comes_late_changes_nothing(place: Place) -> None:
    place.register("a", ONE, number=1)
    place.register("a", number=2)
    with pytest.raises(RpcError) as caught:
        place.register("a", ONE, number=1)
    assert caught.value.code is Code.ABORTED
    assert place.shown() == set()
    assert place.register("a", OTHER, number=2) == []  # the same request once more, as a retry makes it
    place.table.expire(10.0)
    assert len(place.table._leases) == 0


def test_the_same_request_twice_is_one_change(place: Place) -> None:
    place.register("a", ONE, number=1)
    revision = place.table.revision(ORDERS)
    place.register("a", ONE, number=1)
    assert place.table.revision(ORDERS) == revision
    assert place.news == [ORDERS]


def test_the_last_to_register_has_the_place_and_the_former_does_not_take_it_back(place: Place) -> None:
    place.register("a", ONE)
    place.register("b", LIGHTER)
    assert place.shown() == {LIGHTER}
    place.register("a", ONE, OTHER)  # of which only the other is new
    assert place.shown() == {LIGHTER, OTHER}
    assert place.renew("a", 1.0) == []
    assert place.shown() == {LIGHTER, OTHER}
    place.register("a", OTHER)
    assert place.shown() == {LIGHTER, OTHER}


def test_a_place_that_becomes_free_is_given_back_to_who_still_wants_it_when_that_one_renews(
    place: Place,
) -> None:
    place.register("a", ONE)
    place.register("b", LIGHTER)
    place.register("b")
    assert place.shown() == set()
    place.renew("a", 1.0)
    assert place.shown() == {ONE}


def test_a_dead_one_never_comes_back_when_its_successor_goes(place: Place) -> None:
    place.register("dead", ONE)
    place.register("next", LIGHTER)
    place.register("next")
    assert place.shown() == set()


def test_revisions_differ_between_states_even_when_a_service_was_gone_in_between(place: Place) -> None:
    place.register("a", ONE)
    first = place.table.revision(ORDERS)
    place.register("a")
    assert place.table.revision(ORDERS) == 0
    place.register("a", ONE)
    assert place.table.revision(ORDERS) > first


# ------------------------------------------------------------------------------------------------ names


def test_a_name_belongs_to_who_bound_it_first(place: Place) -> None:
    assert place.register("a", names=[claim("orders", 7001)]) == []
    (refusal,) = place.register("b", names=[claim("orders", 7002)])
    assert (refusal.what, refusal.code) == ("orders", Code.ALREADY_EXISTS)
    assert "shop.Orders at tcp://127.0.0.1:7001" in refusal.message
    assert place.name("orders") == "tcp://127.0.0.1:7001"


def test_a_name_lives_as_long_as_the_lease_of_its_binder(place: Place) -> None:
    place.register("a", names=[claim("orders", 7001)])
    place.renew("a", 5.0)
    place.table.expire(14.9)
    assert place.name("orders")
    place.table.expire(15.0)
    assert place.name("orders") == ""
    assert place.register("b", names=[claim("orders", 7002)], now=15.0) == []


def test_who_lost_a_name_hears_of_it_and_never_takes_it_back(place: Place) -> None:
    place.register("a", names=[claim("orders", 7001, replace=True)])
    assert place.register("b", names=[claim("orders", 7002, replace=True)]) == []
    (lost,) = place.renew("a", 1.0) or []
    assert (lost.what, lost.is_name, lost.code) == ("orders", True, Code.ABORTED)
    assert "bound anew, to shop.Orders at tcp://127.0.0.1:7002" in lost.message
    (again,) = place.register("a", names=[claim("orders", 7001, replace=True)])  # it has not heard yet
    assert again == lost
    assert place.name("orders") == "tcp://127.0.0.1:7002"
    place.register("a")
    assert place.renew("a", 2.0) == []
    assert place.register("a", names=[claim("orders", 7003, number=2, replace=True)]) == []
    assert place.name("orders") == "tcp://127.0.0.1:7003"


def test_an_unbound_name_is_free_and_its_binder_hears_of_it(place: Place) -> None:
    place.register("a", names=[claim("orders", 7001)])
    assert place.table.unbind("orders")
    assert not place.table.unbind("orders")
    (lost,) = place.renew("a", 1.0) or []
    assert "'orders' was unbound" in lost.message
    assert place.register("b", names=[claim("orders", 7002)]) == []


def test_leaving_gives_back_only_ones_own_names(place: Place) -> None:
    place.register("a", names=[claim("orders", 7001), claim("stock", 7001)])
    place.register("b", names=[claim("orders", 7002, replace=True)])
    place.register("a")
    assert place.name("orders") == "tcp://127.0.0.1:7002"
    assert place.name("stock") == ""


# ------------------------------------------------------------------------------------------------ bounds


def test_one_client_cannot_fill_a_registry() -> None:
    place = Place(max_registrations=8, per_client=0.5)
    flood = [registration(port) for port in range(7000, 7020)]
    refused = place.register("a", *flood, client="10.0.0.66")
    assert len(refused) == 16
    assert refused[0].code == Code.RESOURCE_EXHAUSTED
    assert "10.0.0.66 has 4 registrations" in refused[0].message
    assert place.register("b", registration(7101), client="10.0.0.2") == []
    assert len(place.table) == 5


def test_a_client_does_not_gain_by_many_leases() -> None:
    place = Place(max_leases=8, max_registrations=8, per_client=0.5)
    for number in range(4):
        place.register(f"lease {number}", registration(7000 + number), client="10.0.0.66")
    with pytest.raises(RpcError) as caught:
        place.register("lease 5", client="10.0.0.66")
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    place.register("mine", ONE, client="10.0.0.2")
    place.table.expire(10.0)
    assert place.register("lease 5", registration(7009), client="10.0.0.66", now=10.0) == []


def test_what_is_refused_does_not_harm_what_is_kept() -> None:
    place = Place(max_registrations=2, per_client=1.0)
    place.register("a", ONE)
    (refusal,) = place.register("a", ONE, OTHER, registration(7003))
    assert refusal.what == registration(7003).key
    assert place.shown() == {ONE, OTHER}
    (refusal,) = place.register("a", ONE, registration(7003), registration(7004))
    assert refusal.what == registration(7004).key
    assert place.shown() == {ONE, registration(7003)}


def test_one_service_is_bounded_in_number_and_bytes() -> None:
    size = len(ONE.to_json())
    by_number, by_bytes = Place(max_per_service=2), Place(max_service_bytes=2 * size + 20)
    for place in (by_number, by_bytes):
        (refusal,) = place.register("a", ONE, OTHER, registration(7003))
        assert "which is the limit" in refusal.message
        assert place.register("a", LIGHTER, OTHER) == []  # one that is there may change, within the limit
        assert place.register("b", registration(7003, service=STOCK)) == []


def test_names_are_bounded_for_one_client_and_for_all() -> None:
    place = Place(max_names=4, per_client=0.5)
    refused = place.register("a", names=[claim(str(number), 7001) for number in range(5)])
    assert [refusal.what for refusal in refused] == ["2", "3", "4"]
    place.register("b", names=[claim("x", 7001), claim("y", 7001)], client="10.0.0.2")
    (refusal,) = place.register("c", names=[claim("z", 7001)], client="10.0.0.3")
    assert "has 4 names" in refusal.message


def test_nothing_is_left_of_who_has_come_and_gone_in_any_order() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng, place, now = random.Random(seed), Place(max_registrations=40, max_names=6, per_client=0.4), 0.0
    ports = range(7000, 7012)
    for number in range(1, 2000):
        now += rng.expovariate(1.0)
        place.table.expire(now)
        lease = f"lease {rng.randrange(8)}"
        if rng.random() < 0.3:
            place.renew(lease, now)
        elif rng.random() < 0.1:
            place.table.unbind(rng.choice("abcdefgh"))
        else:
            wanted = [
                registration(port, weight=rng.randrange(3)) for port in rng.sample(ports, rng.randrange(6))
            ]
            names = [
                claim(name, rng.choice(ports), number=number, replace=rng.random() < 0.5)
                for name in rng.sample("abcdefgh", rng.randrange(4))
            ]
            place.register(lease, *wanted, names=names, now=now, client=f"10.0.0.{lease[-1]}")
        table = place.table
        assert table._declared == sum(len(held.declared) for held in table._leases.values())
        claimed = {name for held in table._leases.values() for name in held.claims}
        assert set(table.names) == claimed
        for shelf in table._shelves.values():
            assert shelf.size == sum(len(listed.registration) for listed, _ in shelf.entries.values())
            assert all(key in held.declared for key, (_, held) in shelf.entries.items())
        ends = [held.ends_at for held in table._leases.values()]
        assert ends == sorted(ends)
    place.table.expire(now + 10.0)
    assert len(place.table) == len(place.table.names) == len(place.table._leases) == 0
    assert not place.table._declared_of
    assert not place.table._leases_of
    assert not place.table._names_of
