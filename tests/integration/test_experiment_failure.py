"""The failure experiment in small: real jobs and faults, PostgreSQL where it is, the checker."""

import shutil

import pytest

from tests.support.databases import POSTGRES_ABSENT
from tests.support.experiments import check, is_picture, small

# On a machine without PostgreSQL there is one fault less.
STORE = "sqlite" if POSTGRES_ABSENT else "postgres"


@pytest.mark.timeout(420)
def test_thirty_jobs_survive_kills_a_pause_a_lost_host_and_a_killed_store(tmp_path):
    out = tmp_path / "failure"
    size = ("--jobs", "30", "--seconds", "40", "--store", STORE)
    last, report = small("failure", out, *size, timeout=400)

    assert last == "30 submitted, 30 succeeded, 0 failed, 0 lost, 0 twice"
    assert report["replicas_killed"] == 4
    assert report["hosts_killed"] >= 1
    assert report["attempts_lost"] >= 1
    assert report["retries"] >= 1
    told = [event["what"] for event in report["events"]]
    assert told.count("PostgreSQL killed") == (STORE == "postgres")
    assert len(told) == 6 + (STORE == "postgres")
    assert report["job_seconds"]["p50"] > 0.0
    assert is_picture(out / "throughput.png")

    # Judged again from what lies there, whatever has become of the fleet; then with a file less.
    shutil.rmtree(out / "fleet")
    again = check(out)
    assert again.returncode == 0, again.stdout + again.stderr
    next((out / "outputs").rglob("result.json")).unlink()
    assert check(out).returncode == 1
