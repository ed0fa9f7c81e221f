"""Locust drives the gateway through the SDK, under gevent."""

import csv
import subprocess
import sys
from pathlib import Path

LOCUSTFILE = Path(__file__).parents[2] / "locustfiles" / "jobs.py"


def test_users_submit_jobs_through_the_sdk_under_gevent(fleet, tmp_path):
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless"]
    command += ["--users", "4", "--spawn-rate", "4", "--run-time", "8s", "--stop-timeout", "30"]
    command += ["--host", fleet.zookeeper, "--seconds", "0.05"]
    command += ["--csv", str(tmp_path / "out"), "--only-summary"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["Name"]: row for row in csv.DictReader((tmp_path / "out_stats.csv").open())}
    for name in ("submit", "job"):
        assert int(rows[name]["Request Count"]) >= 4, done.stdout + done.stderr
        assert int(rows[name]["Failure Count"]) == 0, done.stdout + done.stderr
