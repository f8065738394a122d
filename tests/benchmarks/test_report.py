from __future__ import annotations

from benchmarks.acceptance import Criterion, criteria
from benchmarks.catalog import Kind
from benchmarks.figures import THROUGHPUT, shown
from benchmarks.report import whole
from benchmarks.results import AWAITED, RPCFW, Failure, Results, Round
from benchmarks.subject import Workload
from benchmarks.tables import Table, number, times
from tests.benchmarks.results import made_up

CALL = Workload.GET_ORDER


def example() -> Results:
    results = made_up(
        {
            (CALL, 64, AWAITED): [100, 200, 300],
            (CALL, 64, RPCFW): [120, 240, 360],
            (CALL, 64, "grpc.aio"): [4, 8, 12],
            (CALL, 64, "nats-py"): [50, 100, 150],
            (CALL, 1, AWAITED): [50, 50, 50],
            (CALL, 1, RPCFW): [60, 60, 60],
            (CALL, 1, "nats-py"): [90, 90, 90],
        }
    )
    results.failures.append(Failure("zerorpc", Kind.PEER, "start", "No module named 'zerorpc'"))
    return results


def found(results: Results, id: str) -> dict[str, Criterion]:
    return {criterion.what: criterion for criterion in criteria(results) if criterion.id == id}


def test_every_figure_stands_beside_its_ratios() -> None:
    row = next(line for line in whole(example()).splitlines() if line.strip().startswith("grpc.aio"))
    assert row.split() == ["grpc.aio", "8.00", "0.040x", "30.0x", "0%"]


def test_best_comes_first_whether_high_or_low_is_good() -> None:
    text = whole(example())
    for title, order in (
        ("get order, 64 in flight", [RPCFW, AWAITED, "nats-py", "grpc.aio"]),
        ("get order, 1 in flight", [AWAITED, RPCFW, "nats-py"]),
    ):
        rows = text.split(title)[1].splitlines()[2 : 2 + len(order)]
        assert [row.strip().startswith(name) for row, name in zip(rows, order, strict=True)] == [True] * len(
            order
        )


def test_what_could_not_be_measured_is_told_with_its_reason() -> None:
    assert "No module named 'zerorpc'" in whole(example())
    assert "### not measured" in whole(example(), markdown=True)


def test_markdown_has_a_rule_with_the_numbers_at_the_right() -> None:
    table = Table("title", ["subject", "calls/s"], [["rpcfw", "7"]], "note")
    assert table.markdown().splitlines() == [
        "### title",
        "",
        "| subject | calls/s |",
        "| --- | --: |",
        "| rpcfw | 7 |",
        "",
        "note",
    ]
    assert table.text().splitlines() == ["title", "  subject  calls/s", "  rpcfw          7", "  note"]


def test_throughput_criteria_take_the_fastest_peer_and_the_ratio_of_each_round() -> None:
    first = found(example(), "C1")
    assert first["64 in flight, of raw uvloop awaited"].measured == 1.2
    assert first["64 in flight, of raw uvloop awaited"].met
    assert first["the aim beyond, of the same"].met is False
    assert first["64 in flight, over grpc.aio"].measured == 30.0
    assert first["64 in flight, over the fastest peer (nats-py)"].measured == 2.4


def test_latency_criteria_ask_for_at_most() -> None:
    second = found(example(), "C2")
    assert second["p50 alone, of raw uvloop awaited"].met is False
    assert second["p50 alone, of the quickest peer (nats-py)"].met


def test_criterion_that_was_not_measured_is_neither_met_nor_missed() -> None:
    assert all(criterion.met is None for criterion in found(example(), "C7").values())
    assert "not measured" in whole(example())


def test_overload_is_judged_by_its_own_peak() -> None:
    results = made_up({(Workload.OVERLOAD, 1, "rpcfw, overloaded"): [1]})
    figures = {"peak_per_s": 1000.0, "goodput_per_s": 900.0, "refused_p99_ms": 60.0, "other_failures": 0.0}
    results.cells[0].rounds[0] = Round(900, 1.0, 900.0, p50=10_000, p99=40_000, figures=figures)
    assert [criterion.met for criterion in found(results, "C9").values()] == [True, True, False, True]


def test_limits_far_above_all_else_are_left_out_of_the_picture_and_named() -> None:
    results = example()
    extra = made_up({(CALL, 64, "blocking sockets"): [900, 1800, 2700]})
    results.cells += extra.cells
    cells, beyond = shown(results, THROUGHPUT[0])
    assert [cell.subject for cell in beyond] == ["blocking sockets"]
    assert [cell.subject for cell in cells] == [RPCFW, AWAITED, "nats-py", "grpc.aio"]


def test_figures_have_three_digits_that_count() -> None:
    assert [times(value) for value in (None, 0.0123, 0.456, 1.0, 12.34, 123.4)] == [
        "-",
        "0.012x",
        "0.46x",
        "1.00x",
        "12.3x",
        "123x",
    ]
    assert [number(value) for value in (None, 1.234, 12.34, 1234.5)] == ["-", "1.23", "12.3", "1,234"]
