"""The upgrade experiment in small: two services in two ways, and a broken version rolled back."""

import json

import pytest

from tests.support.experiments import is_picture, small


@pytest.mark.timeout(300)
def test_thirty_jobs_do_not_notice_two_upgrades_and_a_rollback(tmp_path):
    out = tmp_path / "upgrade"
    last, report = small("upgrade", out, "--jobs", "30", "--seconds", "18", timeout=280)

    assert last == "30 submitted, 30 succeeded, 0 failed, 0 lost, 0 twice"
    outcomes = [each["outcome"] for each in report["upgrades"]]
    assert outcomes == ["done", "rolled back", "done"]
    # It had replaced the first replica when the second failed.
    assert "api-2.2, version broken, failed the gate process" in report["upgrades"][1]["failure"]
    assert report["upgrades"][1]["upgraded"] == []
    assert sum(report["jobs_by_version"].values()) == 30
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
    assert is_picture(out / "throughput.png")
