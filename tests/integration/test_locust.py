"""Locust drives a fleet through the SDK, under gevent, from one process and from several."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

from shoal.testing.zookeeper import free_port
from tests.support.replica import ReplicaProcess

ROW = re.compile(r"^shoal +(.+?) +(\d+) +(\d+)\(.*%\) +\|", re.MULTILINE)
FILES = Path(__file__).parents[2] / "locustfiles"


def meeting():
    """Where the processes of one run meet: Locust's own port is the same for all runs."""
    port = str(free_port())
    return ["--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port]


def locust(files, zookeeper, out, *options):
    """Runs Locust to its end; its table by name, and the spread over replicas."""
    command = [sys.executable, "-m", "locust", "--headless", "--only-summary"]
    command += ["-f", ",".join(str(FILES / name) for name in files), "--host", zookeeper]
    command += [*meeting(), "--spread", str(out / "spread"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    # From the table that the leading process prints at the very end: Locust's files are written
    # before that, or by each worker too.
    rows = {name: int(count) for name, count, failed in ROW.findall(said) if failed == "0"}
    assert len(rows) == len(ROW.findall(said)) > 0, said
    spread = json.loads((out / "spread.json").read_text())
    assert [row["replica"] for row in csv.DictReader((out / "spread.csv").open())] == [
        row["replica"] for row in spread
    ]
    assert "Calls by replica" in done.stdout
    return rows, spread


def test_a_shape_leads_users_of_several_processes_and_they_say_who_served_them(fleet, tmp_path):
    options = ["--step-users", "4", "--steps", "2", "--hold", "1", "--processes", "2"]
    options += ["--seconds", "0.05", "--stop-timeout", "30"]
    rows, spread = locust(
        ["calls.py", "jobs.py", "steps.py"],
        fleet.zookeeper,
        tmp_path,
        *("GatewayReader", "Submitter"),
        *options,
    )

    # Half of the first step's four users submit, and each ends what it has begun.
    assert rows["submit"] >= 2
    assert rows["job"] >= 2
    # Each call was served by somebody known, and none is missing in the sum.
    named = {f"{service}-{number}" for service in ("api", "registry") for number in (1, 2, 3)}
    assert {row["replica"] for row in spread} <= named
    for service, also in (("api", {"submit"}), ("registry", set())):
        calls = sum(row["calls"] for row in spread if row["service"] == service)
        assert calls > 0
        assert calls == sum(
            count for name, count in rows.items() if name in also or name.startswith(f"{service} ")
        )
    assert all(row["p95_ms"] >= row["median_ms"] > 0.0 for row in spread)


def test_echoes_are_called_without_a_gateway(chroot, tmp_path):
    with ReplicaProcess(chroot, "echo-1", "sync"), ReplicaProcess(chroot, "echo-2", "aio"):
        options = ["--base", "1", "--peak", "8", "--hold", "0.5"]
        rows, spread = locust(["calls.py", "spike.py"], chroot, tmp_path, "EchoCaller", *options)

    assert sum(row["calls"] for row in spread) == rows["echo"]
    assert {row["replica"] for row in spread} == {"echo-1", "echo-2"}


def test_an_open_loop_of_two_processes_writes_each_job_down(fleet, tmp_path):
    history = tmp_path / "history.jsonl"
    options = ["--processes", "2", "--users", "2", "--rate", "8", "--count", "12", "--seed", "3"]
    options += ["--parameter", "seconds=0.05", "--patience", "100", "--history", str(history)]
    rows, spread = locust(["open_loop.py"], fleet.zookeeper, tmp_path, *options)

    assert rows["submit"] == rows["job"] == 12
    assert sum(row["calls"] for row in spread) == 12
    records = [json.loads(line) for line in history.read_text().splitlines()]
    by_kind = {
        kind: {each["number"]: each for each in records if each["kind"] == kind}
        for kind in ("submit", "acknowledged", "terminal")
    }
    assert all(set(found) == set(range(12)) for found in by_kind.values())
    assert len(records) == 36
    for number, ended in by_kind["terminal"].items():
        assert ended["state"] == "SUCCEEDED"
        assert ended["job_id"] == by_kind["acknowledged"][number]["job_id"]
        assert ended["at"] > ended["scheduled"] == by_kind["submit"][number]["scheduled"]


def test_an_open_loop_without_its_application_is_void(fleet):
    command = [sys.executable, "-m", "locust", "--headless", "-f", str(FILES / "open_loop.py")]
    command += [*meeting(), "--host", fleet.zookeeper]
    command += ["--application", "nothing", "--processes", "2", "-u", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)

    assert done.returncode == 4, done.stdout + done.stderr
    assert "nothing is no application" in done.stdout + done.stderr
