"""The capacity experiment, reduced: a real fleet of three hosts, real Locust."""

import json

import pytest

from shoal_gateway.experiments.capacity import run
from shoal_gateway.experiments.settings import Settings
from tests.support.experiments import check


@pytest.mark.timeout(300)
def test_a_reduced_run_measures_a_fleet_and_the_checker_finds_each_job(tmp_path, capsys):
    # So long a patience that a slow machine changes figures and no verdict.
    assert run(Settings(30, 5, tmp_path, small=True), patience=200.0, celery=False) == 0

    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last == "30 submitted, 30 succeeded, 0 failed, 0 lost, 0 twice"
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["offered"] == report["succeeded_in_time"] == report["succeeded"] == 30
    assert report["not_in_time"] == {}
    assert report["good"]
    assert set(report["series"]) == {"wait-3"}
    for series in report["series"].values():
        for step in series["by_rate"] + series["by_n"]:
            assert step["achieved"] > 0.0
            load = step["load"]
            assert load["slots"] == 2 * series["replicas"]
            assert 0.0 < load["slots_used"] <= 1.0
            assert load["services"]["jobs"] > 0.0
            assert load["services"]["registry"] > 0.0
            # Each submit is known by the replica that served it.
            assert sum(row["calls"] for row in step["spread"]) == step["jobs"]
        # In a burst more jobs come than there are slots.
        assert series["by_n"][0]["load"]["most_queued"] > 0
    assert len(list(tmp_path.glob("*.png"))) == 4
    # Fleets end with the run.
    assert not list(tmp_path.glob("fleet-*/fleet.json"))

    # Judged again from what lies there; then with an end less, which is an end that nobody saw.
    assert check(tmp_path).returncode == 0
    path = tmp_path / "history.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    lines.remove(next(each for each in lines if json.loads(each)["kind"] == "terminal"))
    path.write_text("".join(lines))
    again = check(tmp_path)
    assert again.returncode == 1
    assert "no follower was told" in again.stdout
