from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.results import (
    AWAITED,
    MAX_LATENCIES,
    RPCFW,
    Round,
    load,
    metric,
    percentile,
    save,
    selected,
    spread,
)
from benchmarks.subject import Sample, Workload
from tests.benchmarks.results import made_up

CALL = Workload.GET_ORDER


def test_ratio_is_taken_within_each_round_and_then_the_median() -> None:
    # the machine is twice as fast in the second round: medians of the figures alone would say 110 / 200
    results = made_up({(CALL, 64, RPCFW): [100, 220, 110], (CALL, 64, AWAITED): [200, 400, 110]})
    ours = results.cell(CALL, 64, RPCFW)
    assert ours is not None
    assert results.ratios(ours, results.reference(ours)) == [0.5, 0.55, 1.0]
    assert results.ratio(ours, results.reference(ours)) == 0.55


def test_round_that_failed_on_either_side_counts_for_no_ratio() -> None:
    results = made_up({(CALL, 64, RPCFW): [100, None, 300], (CALL, 64, AWAITED): [200, 400, None]})
    ours = results.cell(CALL, 64, RPCFW)
    assert ours is not None
    assert results.ratios(ours, results.reference(ours)) == [0.5]


def test_cell_without_a_round_is_as_good_as_absent() -> None:
    results = made_up({(CALL, 64, RPCFW): [None, None]})
    assert results.cell(CALL, 64, RPCFW) is None
    assert results.stages() == []
    assert results.ratio(None, None) is None


def test_lone_call_is_judged_by_its_latency_and_many_by_their_number() -> None:
    assert (metric(CALL, 1).unit, metric(CALL, 1).higher_is_better) == ("us", False)
    assert (metric(CALL, 64).unit, metric(CALL, 64).higher_is_better) == ("calls/s", True)
    assert metric(Workload.DOWNLOAD, 1).value(Round(2048, 2.0, 1024.0)) == 1024.0
    assert metric(Workload.IDLE, 1000).value(Round(1000, 1.0, 1.0, server_bytes=10 * 1024 * 1000)) == 10.0


def test_sample_is_reduced_to_percentiles_and_few_latencies() -> None:
    found = Round.of(Sample(2000, 2.0, [float(number) for number in range(2000, 0, -1)]))
    assert (found.per_s, found.p50, found.p99, found.p999) == (1000.0, 1001.0, 1981.0, 1999.0)
    assert len(found.latencies_us) == MAX_LATENCIES
    assert (found.latencies_us[0], found.latencies_us[-1]) == (1.0, 2000.0)


def test_percentile_of_nothing_is_none_and_of_one_value_is_that() -> None:
    assert percentile([], 0.5) is None
    assert percentile([7.0], 0.999) == 7.0
    assert selected([1.0, 2.0], 3) == [1.0, 2.0]


def test_spread_is_the_range_over_the_median() -> None:
    assert spread([0.9, 1.0, 1.2]) == pytest.approx(0.3)
    assert spread([]) == 0.0


def test_results_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    results = made_up({(CALL, 64, RPCFW): [100, None], (CALL, 1, AWAITED): [50]})
    results.cells[0].rounds[0] = Round(1, 1.0, 1.0, figures={"import_ms": 100.0}, latencies_us=[1.5])
    save(results, tmp_path / "new" / "results.json", {"acceptance": []})
    assert load(tmp_path / "new" / "results.json") == results


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"setting": {}}')
    with pytest.raises(ValueError, match="no results file"):
        load(path)
