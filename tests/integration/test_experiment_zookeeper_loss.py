"""The ZooKeeper-loss experiment in small: three real servers die, jobs and calls go on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SHOAL = Path(sys.executable).with_name("shoal")


@pytest.mark.timeout(300)
def test_jobs_and_calls_go_on_without_zookeeper_and_everybody_comes_back(tmp_path):
    out = tmp_path / "loss"
    done = subprocess.run(
        [SHOAL, "experiment", "zookeeper-loss", "--jobs", "40", "--seconds", "24", "--small",
         "--seed", "3", "--out", out],
        capture_output=True,
        text=True,
        timeout=280,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    # The newcomer's job is one more.
    last = done.stdout.strip().splitlines()[-1]
    assert last == "41 submitted, 41 succeeded, 0 failed, 0 lost, 0 twice"
    report = json.loads((out / "report.json").read_text())
    assert [each["what"] for each in report["events"]] == [
        "ZooKeeper's leader killed",
        "all 3 ZooKeeper servers killed",
    ]
    assert report["plain_calls"]["failed"] == 0
    assert report["plain_calls"]["seconds_without_zookeeper"]["p50"] > 0.0
    assert report["registered"] == 10
    assert report["registered_again"]["seconds"] is not None
    assert report["registered_again"]["peak"] >= 1
    assert "no snapshot on disk" in report["new_callers"]["without a snapshot"]["error"]
    assert (out / "zookeeper.png").read_bytes().startswith(b"\x89PNG")
