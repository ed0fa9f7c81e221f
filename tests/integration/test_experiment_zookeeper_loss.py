"""The ZooKeeper-loss experiment in small: three real servers die, jobs and calls go on."""

import pytest

from tests.support.experiments import is_picture, small


@pytest.mark.timeout(300)
def test_jobs_and_calls_go_on_without_zookeeper_and_everybody_comes_back(tmp_path):
    out = tmp_path / "loss"
    last, report = small("zookeeper-loss", out, "--jobs", "20", "--seconds", "24", timeout=280)

    # The newcomer's job is one more.
    assert last == "21 submitted, 21 succeeded, 0 failed, 0 lost, 0 twice"
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
    assert is_picture(out / "zookeeper.png")
