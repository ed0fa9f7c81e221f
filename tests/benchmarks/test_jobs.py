"""`make bench-jobs`, as small as it goes: every part runs, and kills cost Shoal no job."""

import json
import shutil
from operator import truediv as div

import pytest

from benchmarks.jobs.__main__ import main
from shoal_gateway.experiments import capacity, capacity_plots
from shoal_gateway.experiments.peers import celery_side, comparison, losses, shoal_side
from shoal_gateway.experiments.settings import Settings

needs_redis = pytest.mark.skipif(
    not (shutil.which("redis-server") or shutil.which("redis-server", path="/usr/bin")),
    reason="needs Redis' server",
)


def report(tmp_path, *arguments):
    code = main([*arguments, "--out", str(tmp_path)])
    # 1: slower than wanted, which is nothing to be judged here.
    assert code in (0, 1)
    assert (tmp_path / "jobs.md").read_text().startswith("|")
    return json.loads((tmp_path / "jobs.json").read_text())


@needs_redis
def test_both_sides_do_rounds_of_jobs_and_are_set_against_each_other(tmp_path):
    found = report(tmp_path, "--only", "rate", "--rounds", "2", "--jobs", "30")
    rates = {
        (row["case"], row["peer"]): row["values"]
        for row in found["rows"]
        if row["metric"] == "jobs/s"
    }
    assert {side for _, side in rates} == {"Shoal", "Celery + Redis"}
    assert len(rates) == 3
    assert all(len(values) == 2 and min(values) > 0 for values in rates.values())
    # Every process that takes part is metered.
    spent = found["cpu_ms_per_job"]
    assert {"registry-1", "scheduler-1", "api-1", "local-1", "workers"} <= spent["together"].keys()
    assert {"redis", "worker", "workers"} <= spent["Celery"].keys()


def test_a_job_costs_something_beside_those_that_are_stored(tmp_path):
    sizes = ["30", "1100"]
    found = report(
        tmp_path, "--only", "stored", "--rounds", "1", "--jobs", "40", "--stored", *sizes
    )
    cases = {row["case"] for row in found["rows"]}
    assert cases == {f"{size} stored jobs" for size in sizes}
    ends = [row["values"] for row in found["rows"] if row["metric"] == "ms a job, end to end"]
    assert len(ends) == 2
    assert all(value > 0 for values in ends for value in values)


def test_shoal_loses_no_acknowledged_job_whatever_is_killed(tmp_path):
    # That of a host is in tests of the gateway.
    with shoal_side.running(tmp_path / "fleet") as shoal:
        for killed in ("worker", "manager", "store"):
            loss = losses.of_shoal(shoal, killed, 40)
            assert (loss.succeeded, loss.failed, loss.lost) == (40, 0, 0), loss


@needs_redis
def test_what_becomes_of_the_peers_tasks_is_counted_in_the_capacity_experiment(tmp_path):
    # In small: the other kills take Celery as long as its visibility timeout.
    told = []
    found = comparison.compare(tmp_path, small=True, tell=told.append)
    assert all(min(its["rounds"]) > 0 for its in found["rates"].values())
    shoal, celery = found["rates"]["Shoal"]["rounds"], found["rates"]["Celery"]["rounds"]
    assert found["ratio"]["least"] == pytest.approx(min(map(div, shoal, celery)), rel=0.02)
    ours, theirs = found["losses"]
    assert (ours["side"], theirs["side"]) == ("Shoal", "Celery")
    assert (ours["succeeded"], ours["failed"], ours["lost"]) == (24, 0, 0)
    assert theirs["succeeded"] + theirs["failed"] + theirs["lost"] == theirs["acknowledged"] == 24
    assert theirs["succeeded"] >= 6
    assert len(told) == 3
    picture = capacity_plots.draw_celery(tmp_path / "beside.png", found)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_without_redis_the_rest_of_the_experiment_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(celery_side.shutil, "which", lambda *_, **__: None)
    (reason,) = capacity.beside(Settings(10, 1, tmp_path, small=True)).values()
    assert "redis" in reason
    assert "left out: redis-server is not installed" in capsys.readouterr().err
