"""The failure experiment's EC2 mode beside real jobs; the instances are moto's."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.ec2 import Account
from tests.support.hosts import hosts

__all__ = ["hosts"]

EXAMPLES = Path(__file__).parents[2] / "examples"
SHOAL = Path(sys.executable).with_name("shoal")


def test_jobs_are_followed_and_their_outputs_compared(moto, hosts, tmp_path):
    account = Account(moto)
    account.instances(3, fleet="blue", role="services")
    shutil.copytree(EXAMPLES / "nap", hosts.host(1) / "apps" / "nap")
    hosts.start("api", 1)
    hosts.start("scheduler", 1, "--poll", "0.1")
    hosts.manager(1)
    command = [SHOAL, "--zookeeper", hosts.hosts, "experiment", "instances", "-n", "blue", "--yes"]
    command += ["--faults", "1", "--seconds", "2", "--down", "0.5", "--jobs", "4", "--seed", "5"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["line"] == "1 faults; 4 jobs acknowledged, 0 problems"
    assert len(report["events"]) == 1
    history = [json.loads(line) for line in (tmp_path / "out" / "history.jsonl").open()]
    records = [line for line in history if line["kind"] == "record"]
    assert [line["state"] for line in records] == ["SUCCEEDED"] * 4
    assert len(list((tmp_path / "out" / "outputs").glob("*/nap.json"))) == 4
