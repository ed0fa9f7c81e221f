"""Rows, their targets and what is written of them."""

import json

import pytest

from benchmarks.paired import plots, report
from benchmarks.paired.bench import Bench, turned
from benchmarks.paired.load import Ended, Run, quantile
from benchmarks.paired.rows import Row, at_least, at_most, never_above, ratios

KEYS = {"case", "peer", "metric", "median", "min", "max", "rounds"}


def row(*values, target=None, metric="latency ÷ peer's"):
    return Row("serial latency", "core round robin", metric, values, target)


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (at_most(2.0), True),
        (at_most(1.9), False),
        (at_least(2.0), True),
        (at_least(2.1), False),
        (never_above(2.9), False),
        (never_above(3.0), True),
        (None, None),
    ],
)
def test_a_target_holds_for_the_median_or_for_every_round(target, met):
    assert row(1.0, 3.0, 2.0, target=target).met is met


def test_a_count_of_failures_is_met_by_none_in_any_round():
    assert str(never_above(0)) == "0 in every round"
    assert row(0, 0, 1, target=never_above(0)).met is False


def test_ratios_are_taken_round_by_round():
    assert ratios([2.0, 9.0], [1.0, 3.0]) == (2.0, 3.0)
    with pytest.raises(ValueError, match="longer than"):
        ratios([1.0], [1.0, 2.0])


def test_everyone_comes_first_in_turn():
    assert [turned("abc", number)[0] for number in range(4)] == ["a", "b", "c", "a"]


def test_a_report_holds_what_the_issue_asks_for(tmp_path):
    rows = [row(0.9, 1.1, 1.0, target=at_most(1.0)), row(5.0, metric="p99, ms")]
    bench = Bench(rounds=3)
    bench.remark("nginx is not installed")
    bench.remark("nginx is not installed")
    report.write(rows, bench, tmp_path)
    records = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [set(record) for record in records] == [KEYS, KEYS]
    assert records[0]["median"] == 1.0
    assert records[0]["rounds"] == 3
    rounds = json.loads((tmp_path / "rounds.json").read_text(encoding="utf-8"))
    assert rounds["rows"][0]["values"] == [0.9, 1.1, 1.0]
    assert rounds["remarks"] == ["nginx is not installed"]
    assert "| ≤ 1 | met |" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_pictures_are_drawn_of_what_there_is(tmp_path):
    calls = tuple(Ended("Echo", 0.01 * n, 0.001, None) for n in range(30))
    drawn = plots.draw(
        [row(0.9, 1.0)], {("SIGKILL one of three", "Shoal"): Run(calls, 1.0)}, tmp_path
    )
    assert [path.name for path in drawn] == ["ratios.png", "sigkill-one-of-three.png"]
    assert all(path.stat().st_size > 1000 for path in drawn)
    assert plots.draw([], {}, tmp_path) == []


def test_a_quantile_is_one_of_the_values():
    assert quantile(range(100), 0.99) == 99
    assert quantile([3.0], 0.5) == 3.0
