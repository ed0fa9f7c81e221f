"""The upgrade experiment in small: two services in two ways, and a broken version rolled back."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SHOAL = Path(sys.executable).with_name("shoal")


@pytest.mark.timeout(300)
def test_sixty_jobs_do_not_notice_two_upgrades_and_a_rollback(tmp_path):
    out = tmp_path / "upgrade"
    done = subprocess.run(
        [SHOAL, "experiment", "upgrade", "--jobs", "60", "--seconds", "18", "--small",
         "--seed", "3", "--out", out],
        capture_output=True,
        text=True,
        timeout=280,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert last == "60 submitted, 60 succeeded, 0 failed, 0 lost, 0 twice"
    report = json.loads((out / "report.json").read_text())
    outcomes = [each["outcome"] for each in report["upgrades"]]
    assert outcomes == ["done", "rolled back", "done"]
    # It had replaced the first replica when the second failed.
    assert "api-2.2, version broken, failed the gate process" in report["upgrades"][1]["failure"]
    assert report["upgrades"][1]["upgraded"] == []
    assert sum(report["jobs_by_version"].values()) == 60
    assert min(report["jobs_by_version"].values()) >= 1
    assert len(report["jobs_by_version"]) == 2
    versions = report["versions_in_the_end"]
    assert {versions["api-1.2"], versions["api-2.2"], versions["local-1"]} == {"second"}
    steps = [
        json.loads(line)["what"]
        for line in (out / "history.jsonl").read_text().splitlines()
        if json.loads(line)["kind"] == "step"
    ]
    assert any(step.startswith("starting api-1, version") for step in steps)
    assert (out / "throughput.png").read_bytes().startswith(b"\x89PNG")
