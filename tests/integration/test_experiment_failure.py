"""The failure experiment in small: real jobs and faults, PostgreSQL where it is, the checker."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.databases import POSTGRES_ABSENT

# On a machine without PostgreSQL there is one fault less.
STORE = "sqlite" if POSTGRES_ABSENT else "postgres"
SHOAL = Path(sys.executable).with_name("shoal")


@pytest.mark.timeout(420)
def test_sixty_jobs_survive_kills_a_pause_a_lost_host_and_a_killed_store(tmp_path):
    out = tmp_path / "failure"
    done = subprocess.run(
        [SHOAL, "experiment", "failure", "--jobs", "60", "--seconds", "40", "--small",
         "--store", STORE, "--seed", "3", "--out", out],
        capture_output=True,
        text=True,
        timeout=400,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert last == "60 submitted, 60 succeeded, 0 failed, 0 lost, 0 twice"
    report = json.loads((out / "report.json").read_text())
    assert report["replicas_killed"] == 4
    assert report["hosts_killed"] >= 1
    assert report["attempts_lost"] >= 1
    assert report["retries"] >= 1
    told = [event["what"] for event in report["events"]]
    assert told.count("PostgreSQL killed") == (STORE == "postgres")
    assert len(told) == 6 + (STORE == "postgres")
    assert report["job_seconds"]["p50"] > 0.0
    assert (out / "throughput.png").read_bytes().startswith(b"\x89PNG")

    # Judged again from what lies there, whatever has become of the fleet; then with a file less.
    shutil.rmtree(out / "fleet")
    again = check(out)
    assert again.returncode == 0, again.stdout + again.stderr
    next((out / "outputs").rglob("result.json")).unlink()
    assert check(out).returncode == 1


def check(out):
    return subprocess.run([SHOAL, "experiment", "check", out], capture_output=True, text=True)
