"""One list out of what several registries say."""

from __future__ import annotations

import math

from rpcfw.naming.view import View
from rpcfw.registry import Registration
from rpcfw.testing.registry_places import registration

ONE, OTHER = registration(7001), registration(7002)


def entries(*registrations: Registration, put_at: float = 0.0) -> dict[str, tuple[Registration, float]]:
    return {one.endpoint.address: (one, put_at) for one in registrations}


def test_the_union_of_what_registries_say_is_what_is_there() -> None:
    view = View()
    view.heard("a", entries(ONE), 0.0)
    view.heard("b", entries(OTHER), 0.0)
    assert view.merged(1.0) == frozenset({ONE, OTHER})
    assert view.next_look(1.0) == math.inf


def test_nobody_is_not_believed_of_a_registry_that_has_just_started() -> None:
    view = View()
    view.heard("a", {}, 10.0)
    assert view.merged(9.9) is None
    assert view.next_look(9.9) == 10.0
    assert view.merged(10.0) == frozenset()


def test_nobody_is_believed_when_another_registry_knows_it() -> None:
    view = View()
    view.heard("a", {}, 10.0)
    view.heard("b", {}, 0.0)
    assert view.merged(1.0) == frozenset()


def test_what_a_registry_knew_before_it_was_started_anew_stays_until_it_has_settled() -> None:
    view = View()
    view.heard("a", entries(ONE, OTHER), 0.0)
    view.went("a", 15.0)
    view.restarted("a")
    view.heard("a", entries(ONE), 20.0)
    assert view.merged(19.9) == frozenset({ONE, OTHER})
    assert view.merged(20.0) == frozenset({ONE})


def test_who_registered_anew_and_left_is_not_brought_back_by_what_was_known_before() -> None:
    view = View()
    view.heard("a", entries(ONE, OTHER), 0.0)
    view.restarted("a")
    view.heard("a", entries(ONE, OTHER), 20.0)
    view.heard("a", entries(OTHER), 20.0)
    assert view.merged(1.0) == frozenset({OTHER})


def test_two_restarts_in_a_row_forget_nothing() -> None:
    view = View()
    view.heard("a", entries(ONE, OTHER), 0.0)
    view.restarted("a")
    view.heard("a", entries(ONE), 10.0)
    view.restarted("a")
    view.heard("a", {}, 12.0)
    assert view.merged(11.0) == frozenset({ONE, OTHER})
    assert view.merged(12.0) == frozenset()


def test_the_only_registry_is_believed_for_as_long_as_it_is_away() -> None:
    view = View()
    view.heard("a", entries(ONE), 0.0)
    view.went("a", 15.0)
    assert view.merged(1e6) == frozenset({ONE})


def test_one_that_is_away_is_believed_for_a_lease_where_another_knows_better() -> None:
    view = View()
    view.heard("a", entries(ONE), 0.0)
    view.heard("b", entries(OTHER), 0.0)
    view.went("a", 15.0)
    assert view.merged(14.9) == frozenset({ONE, OTHER})
    assert view.next_look(14.9) == 15.0
    assert view.merged(15.0) == frozenset({OTHER})
    view.went("a", 99.0)  # once more unsuccessful
    assert view.merged(16.0) == frozenset({OTHER})
    view.went("b", 30.0)
    assert view.merged(1e6) == frozenset({ONE, OTHER})


def test_of_two_words_about_one_server_the_later_counts_wherever_it_was_heard_first() -> None:
    lighter = registration(7001, weight=10)
    for first, then in (("a", "b"), ("b", "a")):
        view = View()
        view.heard(first, entries(ONE, put_at=5.0), 0.0)
        view.heard(then, entries(lighter, put_at=6.0), 0.0)
        assert view.merged(7.0) == frozenset({lighter})
        view.heard(first, None, 0.0)
        assert view.merged(7.0) == frozenset({lighter})
