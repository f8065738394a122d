from __future__ import annotations

import ast
from pathlib import Path

import pytest

from benchmarks import catalog
from benchmarks.catalog import Entry, Kind, chosen, entries
from benchmarks.plan import stages
from benchmarks.processes import Description
from benchmarks.results import REFERENCES
from benchmarks.subject import Workload

AMONG = [
    Entry("limits.echo:awaited", Kind.LIMIT, "raw uvloop, awaited"),
    Entry("ours.orders:rpcfw", Kind.OURS, "rpcfw"),
    Entry("ours.orders:tls", Kind.OURS, "rpcfw, TLS"),
    Entry("peers.on_grpc_aio", Kind.PEER, "grpc.aio"),
]


def names(*asked: str) -> list[str]:
    return [entry.name for entry in chosen(AMONG, asked)]


def test_limits_and_plain_rpcfw_always_run() -> None:
    assert names("grpc.aio") == ["raw uvloop, awaited", "rpcfw", "grpc.aio"]
    assert names("tls") == ["raw uvloop, awaited", "rpcfw", "rpcfw, TLS"]


def test_all_of_a_kind_may_be_asked_for_and_nothing_asks_for_all() -> None:
    assert names("ours") == ["raw uvloop, awaited", "rpcfw", "rpcfw, TLS"]
    assert names() == [entry.name for entry in AMONG]


def test_name_that_no_subject_has_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'grpcio'.*'grpc\.aio'"):
        names("grpcio")


def test_no_two_subjects_have_a_name_and_each_reference_is_one() -> None:
    found = [entry.name for entry in entries()]
    assert len(found) == len(set(found))
    assert set(REFERENCES.values()) <= set(found)


def test_names_of_peers_are_read_from_their_files_without_importing_them() -> None:
    peers = [entry for entry in entries() if entry.kind is Kind.PEER]
    assert peers
    for peer in peers:
        path = Path(catalog.__file__).parent / f"{peer.module.replace('.', '/')}.py"
        constants = [
            node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)
        ]
        assert peer.name in constants
        assert peer.name != path.stem


def test_variant_takes_part_at_its_own_depths_and_a_peer_not_where_peers_do_not() -> None:
    every = frozenset(Workload)
    variant, peer = Description("a", every, (1, 64), "", {}), Description("b", every, (1, 8, 64, 256), "", {})
    plan = stages(quick=False)
    calls = [stage for stage in plan if stage.workload is Workload.GET_ORDER]
    assert [stage.depth for stage in calls if stage.takes(Kind.OURS, variant)] == [1, 64]
    assert [stage.depth for stage in calls if stage.takes(Kind.PEER, peer)] == [1, 8, 64, 256]
    idle = [stage.depth for stage in plan if stage.workload is Workload.IDLE and stage.takes(Kind.PEER, peer)]
    assert idle == [1_000]


def test_every_workload_is_in_the_plan_and_only_those_asked_for() -> None:
    for quick in (False, True):
        assert {stage.workload for stage in stages(quick=quick)} == set(Workload)
    assert {stage.workload for stage in stages(quick=True, only=[Workload.ECHO])} == {Workload.ECHO}
