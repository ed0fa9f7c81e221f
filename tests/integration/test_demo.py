"""A small run of the demo: kills, host loss, checks and all."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SHOAL = Path(sys.executable).with_name("shoal")


@pytest.mark.timeout(420)
def test_forty_jobs_survive_the_loss_of_replicas_and_a_host(tmp_path):
    out = tmp_path / "demo"
    done = subprocess.run(
        [SHOAL, "demo", "--jobs", "40", "--seed", "3", "--out", out],
        capture_output=True,
        text=True,
        timeout=400,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert last == "40 submitted, 40 succeeded, 0 failed, 0 lost, 0 twice"
    report = json.loads((out / "report.json").read_text())
    assert report["submitted"] == report["succeeded"] == 40
    assert report["attempts_lost"] >= 1
    assert report["retries"] >= 1
    assert report["replicas_killed"] >= 4
    assert report["hosts_killed"] >= 1
    assert (out / "throughput.png").read_bytes().startswith(b"\x89PNG")
