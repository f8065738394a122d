"""What is made of what the network says: bounds, times and refusals, without a network and with the time passed in."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcfw.endpoint import Endpoint
from rpcfw.registry import Registration
from rpcfw.registry.zeroconf_network import credible
from rpcfw.registry.zeroconf_records import Address, Parts, Said, registration_of, txt_of
from rpcfw.registry.zeroconf_table import MAX_IN_ALL, MAX_INCOMPLETE, MAX_OF_A_SERVICE, Table
from rpcfw.testing.registry_places import registration

HERE = ipaddress.ip_address("127.0.0.1")


def said(
    entry: Registration, *, ttl_s: float = 15.0, group: str = "", addresses: tuple[Address, ...] = (HERE,)
) -> Said:
    """All that an announcement says."""
    return Said(Parts(txt_of(entry, group), entry.endpoint.port, addresses), ttl_s)


@pytest.fixture
def table() -> Table:
    return Table("", credible("127.0.0.1"))


def test_what_is_repeated_stays_and_what_is_not_goes(table: Table) -> None:
    one, two = registration(7001), registration(7002)
    assert table.hear({"one": said(one), "two": said(two)}, 100.0) == {"shop.Orders"}
    assert table.next_expiry() == 115.0
    assert table.hear({"one": said(one)}, 110.0) == set()
    assert table.expire(115.0) == {"shop.Orders"}
    assert table.of("shop.Orders") == {one}
    assert table.expire(125.0) == {"shop.Orders"}
    assert table.services() == frozenset()
    assert table.next_expiry() is None


@pytest.mark.parametrize(("told_s", "believed_s"), [(4_000_000.0, 120.0), (0.001, 1.0), (15.0, 15.0)])
def test_how_long_something_lives_is_not_for_the_network_to_say(
    table: Table, told_s: float, believed_s: float
) -> None:
    table.hear({"one": said(registration(), ttl_s=told_s)}, 100.0)
    assert table.next_expiry() == 100.0 + believed_s


def test_a_goodbye_is_heard_at_once(table: Table) -> None:
    table.hear({"one": said(registration())}, 100.0)
    assert table.hear({"one": Said(goodbye=True)}, 100.0) == {"shop.Orders"}
    assert table.hear({"one": Said(goodbye=True)}, 100.0) == set()


def test_records_may_come_in_several_packets(table: Table) -> None:
    whole = said(registration())
    assert table.hear({"one": Said(Parts(txt=whole.parts.txt), 15.0)}, 100.0) == set()
    assert table.hear({"one": Said(Parts(addresses=(HERE,)), 15.0)}, 100.0) == set()
    assert table.of("shop.Orders") == frozenset()
    assert table.hear({"one": Said(Parts(port=7001), 15.0)}, 100.0) == {"shop.Orders"}
    assert table.of("shop.Orders") == {registration()}


def test_a_change_under_a_label_replaces_what_was_there(table: Table) -> None:
    table.hear({"one": said(registration(weight=1))}, 100.0)
    assert table.hear({"one": said(registration(weight=2))}, 100.0) == {"shop.Orders"}
    assert table.of("shop.Orders") == {registration(weight=2)}
    other = registration(service="shop.Stock")
    assert table.hear({"one": said(other)}, 100.0) == {"shop.Orders", "shop.Stock"}
    assert table.services() == {"shop.Stock"}


def test_of_two_runs_of_a_server_the_later_one_counts(table: Table) -> None:
    entry = registration(weight=1)
    later = Registration(entry.service, registration(weight=2).endpoint, started_at=entry.started_at + 1)
    table.hear({"later": said(later)}, 100.0)
    table.hear({"dead": said(entry)}, 100.0)
    assert table.of("shop.Orders") == {later}


def test_nothing_is_forgotten_while_packets_are_dropped(table: Table) -> None:
    table.hear({"one": said(registration())}, 100.0)
    table.freeze(200.0)
    assert table.next_expiry() == 200.0
    assert table.expire(199.0) == set()
    assert table.expire(200.0) == {"shop.Orders"}


def test_one_service_has_its_bound_and_what_is_known_stays(
    table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    known = registration()
    table.hear({"known": said(known)}, 100.0)
    with caplog.at_level(logging.WARNING, logger="rpcfw.registry"):
        for number in range(2 * MAX_OF_A_SERVICE):
            table.hear({f"flood-{number}": said(registration(8000 + number))}, 100.0)
    assert len(table.of("shop.Orders")) == MAX_OF_A_SERVICE
    assert known in table.of("shop.Orders")
    assert table.hear({"known": said(registration(weight=5))}, 100.0) == {"shop.Orders"}, (
        "news of it is heard"
    )
    assert len(caplog.records) == 1
    assert table.hear({"other": said(registration(service="shop.Stock"))}, 100.0) == {"shop.Stock"}


def test_all_services_have_a_bound_together(table: Table, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="rpcfw.registry"):
        for number in range(MAX_IN_ALL + 1000):
            table.hear({f"flood-{number}": said(registration(service=f"shop.S{number}"))}, 100.0)
    assert len(table.services()) == MAX_IN_ALL
    assert len(caplog.records) == 1


def test_what_is_incomplete_has_a_bound(table: Table) -> None:
    for number in range(3 * MAX_INCOMPLETE):
        table.hear({f"flood-{number}": Said(Parts(port=7001), 15.0)}, 100.0)
    assert len(table) == MAX_INCOMPLETE


def test_bad_records_are_told_once_each_and_not_for_ever(
    table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="rpcfw.registry"):
        for number in range(3000):
            label = f"bad-{number % 1000}"
            assert table.hear({label: Said(Parts(b"\x05hello", 7001, (HERE,)), 15.0)}, 100.0) == set()
    assert len(caplog.records) == 100
    assert len(table) == 0


@pytest.mark.parametrize(
    ("interface", "address", "is_credible"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "10.0.0.5", True),
        ("10.0.0.1", "10.0.0.5", True),
        ("10.0.0.1", "127.0.0.1", False),
        ("all", "127.0.0.1", False),
        ("all", "::1", False),
        ("all", "fd00::2", True),
        ("all", "fe80::1", False),
        ("127.0.0.1", "0.0.0.0", False),
        ("127.0.0.1", "224.0.0.251", False),
        ("127.0.0.1", "255.255.255.255", False),
    ],
)
def test_an_address_has_to_be_one_that_a_server_can_have(
    interface: str, address: str, is_credible: bool
) -> None:
    assert credible(interface)(ipaddress.ip_address(address)) is is_credible


def test_the_address_is_that_of_the_records_and_ipv4_comes_first(table: Table) -> None:
    addresses = (ipaddress.ip_address("fd00::2"), ipaddress.ip_address("10.0.0.9"))
    table.hear({"one": said(registration(7001), addresses=addresses)}, 100.0)
    (found,) = table.of("shop.Orders")
    assert found.endpoint.address == "tcp://10.0.0.9:7001"


def strings(**facts: str) -> bytes:
    """A TXT record."""
    all_of_them = {"txtvers": "1", "service": "shop.Orders", "scheme": "tcp", **facts}
    encoded = [f"{name.replace('_', '.', 1)}={value}".encode() for name, value in all_of_them.items()]
    return b"".join(bytes([len(string)]) + string for string in encoded)


@pytest.mark.parametrize(
    ("txt", "why"),
    [
        (strings(txtvers="2"), "txtvers is '2' instead of '1'"),
        (strings(service=""), "names no service"),
        (strings(scheme="unix"), "'unix' is not a scheme of a network"),
        (strings(weight="-1"), "weight='-1' must be a whole number"),
        (strings(weight="9" * 10), "must be a whole number"),
        (strings(started="nan"), "nan is not a time"),
        (strings(started="soon"), "could not convert"),
        (strings() + b"\x0fservice=another", "has 'service' twice"),
        (strings() + b"\xffservice", "is cut off"),
        (strings() + b"\x03\xff=x", "utf-8"),
        (strings(**{f"l_x{n}": "1" for n in range(33)}), "33 labels, more than 32"),
        (strings() + b"\xff" * 1300, "is over 1,300"),
    ],
)
def test_what_a_record_says_wrongly_is_named(txt: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        registration_of(txt, HERE, 7001, "")


def test_a_record_cannot_name_files_of_this_host_or_whom_to_trust() -> None:
    found = registration_of(
        strings(scheme="tls", l_ca="/etc/evil.pem", l_hostname="evil", l_zone="a"), HERE, 7001, ""
    )
    assert found is not None
    assert str(found.endpoint) == "tls://127.0.0.1:7001?zone=a"


@given(st.binary(max_size=1400), st.integers(-1, 70_000))
def test_no_record_does_more_than_be_refused(txt: bytes, port: int) -> None:
    with contextlib.suppress(ValueError):
        registration_of(txt, HERE, port, "")


names = st.text(min_size=1, max_size=12)


@given(st.dictionaries(names, st.text(max_size=20), max_size=8), names, st.integers(0, 999_999_999))
def test_what_is_said_is_heard_as_it_was(labels: dict[str, str], service: str, weight: int) -> None:
    trusted = {"ca", "cert", "key", "verify_client", "hostname"}
    kept = MappingProxyType({name: value for name, value in labels.items() if name not in trusted})
    entry = Registration(service, Endpoint("tcp", str(HERE), 7001, weight=weight, labels=kept), "2", "i", 0.1)
    assert registration_of(txt_of(entry, "g"), HERE, 7001, "g") == entry
    assert registration_of(txt_of(entry, "g"), HERE, 7001, "other") is None
