"""Tags, versions, canaries and zones: which nodes may take a call."""

from __future__ import annotations

import random
from collections.abc import Mapping

import msgspec
import pytest

from rpcfw.balancer import by_argument
from rpcfw.call import Route
from rpcfw.router import ByTag, ByVersion, Canary, PreferZone
from tests.balancer.nodes import PLAIN, FakeNode, keyed, many, names, plain
from tests.calls.virtual import virtual_time

# ---------------------------------------------------------------------------------------------- tags


def tagged() -> list[FakeNode]:
    return [
        FakeNode("a"),
        FakeNode("b", labels={"tag": "gray"}),
        FakeNode("c"),
        FakeNode("d", labels={"tag": "x"}),
    ]


def test_a_tagged_call_goes_to_the_nodes_with_its_tag_and_others_do_not() -> None:
    router, nodes = ByTag(), tagged()
    assert names(router.route(nodes, plain({"tag": "gray"}))) == "b"
    assert names(router.route(nodes, plain({"tag": b"gray"}))) == "b"
    assert names(router.route(nodes, PLAIN)) == "a c"


def test_a_tag_that_no_node_has_falls_back_to_the_untagged_ones_unless_told_not_to() -> None:
    assert names(ByTag().route(tagged(), plain({"tag": "lost"}))) == "a c"
    assert names(ByTag(fallback=False).route(tagged(), plain({"tag": "lost"}))) == ""


def test_an_untagged_call_never_goes_to_a_tagged_node() -> None:
    assert names(ByTag().route(tagged()[1::2], PLAIN)) == ""


def test_without_tags_the_nodes_pass_as_they_are() -> None:
    nodes = many(3)
    assert ByTag().route(nodes, PLAIN) is nodes


def test_names_of_metadata_and_label_can_be_others() -> None:
    nodes = [FakeNode("a", labels={"lane": "blue"}), FakeNode("b")]
    assert names(ByTag("x-lane", label="lane").route(nodes, plain({"x-lane": "blue"}))) == "a"
    with pytest.raises(ValueError, match="metadata='Lane': names of metadata are lower-case"):
        ByTag("Lane")


def test_a_tagged_node_that_is_drained_by_weight_counts_as_absent() -> None:
    nodes = tagged()
    nodes[1].reweigh(0)
    assert names(ByTag().route(nodes, plain({"tag": "gray"}))) == "a c"


# ---------------------------------------------------------------------------------------------- versions


def versions(*of: str) -> list[FakeNode]:
    return [FakeNode(f"{chr(ord('a') + index)}", version=version) for index, version in enumerate(of)]


@pytest.mark.parametrize(
    ("wanted", "expected"), [("2", "b c"), ("2.1", "c"), ("2.1.7", "c"), ("20.0", "d"), ("3", ""), ("2.", "")]
)
def test_a_version_admits_itself_and_what_begins_with_it(wanted: str, expected: str) -> None:
    nodes = versions("1.0", "2.0", "2.1.7", "20.0", "")
    assert names(ByVersion(wanted).route(nodes, PLAIN)) == expected
    assert names(ByVersion(metadata="version").route(nodes, plain({"version": wanted}))) == expected


def test_a_call_may_ask_for_another_version_where_that_is_allowed() -> None:
    nodes = versions("1.0", "2.0")
    assert names(ByVersion("1", metadata="version").route(nodes, PLAIN)) == "a"
    assert names(ByVersion("1", metadata="version").route(nodes, plain({"version": b"2"}))) == "b"
    assert names(ByVersion("1").route(nodes, plain({"version": "2"}))) == "a"
    assert ByVersion(metadata="version").route(nodes, PLAIN) is nodes


def test_a_version_that_admits_all_is_told() -> None:
    with pytest.raises(ValueError, match="give it a version"):
        ByVersion()


# ---------------------------------------------------------------------------------------------- canary


def shares(router: Canary, nodes: list[FakeNode], count: int = 10_000) -> Mapping[str, float]:
    counts = {"1.0": 0, "2.0": 0, "3.0": 0}
    for number in range(count):
        versions_ = {node.version for node in router.route(nodes, keyed(f"user-{number}"))}
        assert len(versions_) == 1
        counts[versions_.pop()] += 1
    return {version: counted / count for version, counted in counts.items()}


@pytest.mark.parametrize("sticky", [False, True])
def test_five_percent_of_calls_go_to_the_canary(sticky: bool) -> None:
    key = by_argument("user") if sticky else None
    found = shares(Canary({"2.0": 0.05}, key=key, rng=random.Random(1)), versions("1.0", "2.0", "1.0"))
    print(found)
    assert found["2.0"] == pytest.approx(0.05, abs=0.009)  # four standard deviations


def test_several_canaries_have_their_shares() -> None:
    found = shares(
        Canary({"2.0": 0.2, "3.0": 0.1}, rng=random.Random(1)), versions("1.0", "2.0", "3.0", "1.0")
    )
    assert found["2.0"] == pytest.approx(0.2, abs=0.02)
    assert found["3.0"] == pytest.approx(0.1, abs=0.02)


def test_one_key_sees_one_version_and_keeps_it_while_the_share_grows() -> None:
    nodes = versions("1.0", "2.0")

    def chosen(share: float) -> set[int]:
        router = Canary({"2.0": share}, key=by_argument("user"))
        return {
            number for number in range(2_000) if router.route(nodes, keyed(f"{number}"))[0].version == "2.0"
        }

    small, large = chosen(0.05), chosen(0.3)
    assert small == chosen(0.05)
    assert small < large
    assert chosen(0.0) == set()
    assert len(chosen(1.0)) == 2_000


def test_before_the_canary_is_there_and_when_all_have_its_version_every_call_is_taken() -> None:
    router = Canary({"2.0": 0.5}, rng=random.Random(1))
    old, new = versions("1.0", "1.0"), versions("2.0", "2.0")
    assert all(names(router.route(old, PLAIN)) == "a b" for _ in range(100))
    assert all(names(router.route(new, PLAIN)) == "a b" for _ in range(100))


def test_a_canary_drained_by_weight_gets_no_calls() -> None:
    nodes = versions("1.0", "2.0")
    nodes[1].reweigh(0)
    router = Canary({"2.0": 0.5}, rng=random.Random(1))
    assert all(names(router.route(nodes, PLAIN)) == "a" for _ in range(100))


@pytest.mark.parametrize("wrong", [{}, {"2.0": 1.5}, {"2.0": -0.1}, {"2.0": 0.6, "3.0": 0.6}])
def test_shares_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Canary: the share"):
        Canary(wrong)


# ---------------------------------------------------------------------------------------------- zones


def zones(**counts: int) -> list[FakeNode]:
    return [
        FakeNode(f"{zone}{number}", labels={"zone": zone})
        for zone, count in counts.items()
        for number in range(count)
    ]


def test_calls_stay_in_the_zone() -> None:
    assert names(PreferZone("a").route(zones(a=2, b=2, c=2), PLAIN)) == "a0 a1"


def test_calls_leave_a_zone_with_fewer_than_half_of_its_due_nodes() -> None:
    router = PreferZone("a")
    assert len(router.route(zones(a=5, b=10, c=10), PLAIN)) == 5
    nodes = zones(a=3, b=10, c=10)
    assert router.route(nodes, PLAIN) is nodes
    assert len(PreferZone("a", min_share=0.0).route(nodes, PLAIN)) == 3


def test_calls_leave_a_zone_with_fewer_nodes_than_it_takes() -> None:
    assert len(PreferZone("a", min_nodes=2).route(zones(a=1, b=1), PLAIN)) == 2


@pytest.mark.parametrize("nodes", [zones(b=3, c=3), many(4)])
def test_where_the_zone_is_empty_or_unknown_all_nodes_may_take_the_call(nodes: list[FakeNode]) -> None:
    assert PreferZone("a").route(nodes, PLAIN) is nodes


def test_a_zone_drained_by_weight_takes_no_calls() -> None:
    nodes = zones(a=2, b=2)
    for node in nodes[:2]:
        node.reweigh(0)
    assert PreferZone("a").route(nodes, PLAIN) is nodes


def test_measures_of_a_zone_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="name of the zone"):
        PreferZone("")
    with pytest.raises(ValueError, match="min_nodes=0 must be at least 1"):
        PreferZone("a", min_nodes=0)
    with pytest.raises(ValueError, match=r"min_share=1\.5 must be from 0 to 1"):
        PreferZone("a", min_share=1.5)


# ---------------------------------------------------------------------------------------------- what routes are told


@virtual_time
async def test_a_route_says_that_a_canary_or_a_zone_has_fallen_back_to_all_nodes() -> None:
    canary, zone = Canary({"2.0": 1.0}), PreferZone("eu")
    old, new, both = versions("1.0"), versions("2.0"), versions("1.0", "2.0")
    near = [FakeNode("a", labels={"zone": "eu"}), FakeNode("b", labels={"zone": "eu"})]
    far = [FakeNode(name, labels={"zone": "us"}) for name in "cdefg"]
    for router, nodes, notes in (
        (canary, old, ["Canary: it falls to version 2.0, of which no node is there"]),
        (Canary({"2.0": 0.0}), new, ["Canary: no node of another version is there, so any node may take it"]),
        (canary, both, []),
        (canary, new, []),
        (
            zone,
            [*near[:1], *far],
            ["PreferZone: 1 of 6 nodes are in 'eu', too few for its calls, so any node may take it"],
        ),
        (zone, far, ["PreferZone: 0 of 5 nodes are in 'eu', too few for its calls, so any node may take it"]),
        (zone, [*near, *far[:2]], []),
        (zone, near, []),
    ):
        route = Route()
        for call in (PLAIN, msgspec.structs.replace(PLAIN, route=route)):
            router.route(nodes, call)
        assert [note.what for note in route.notes] == notes
