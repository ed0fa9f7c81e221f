"""`make bench-drain`, as small as it goes: no call is lost, and the report says whose they were."""

import json

import pytest

from benchmarks.drain.__main__ import main


@pytest.mark.parametrize("kind", ["sync", "aio"])
def test_three_restarts_lose_no_call_and_each_drain_names_its_callers(kind, tmp_path):
    arguments = ["--servers", kind, "--restarts", "3", "--callers", "8", "--rate", "160"]
    code = main([*arguments, "--out", str(tmp_path)])
    (run,) = json.loads((tmp_path / "report.json").read_text())
    assert [each["failures"] for each in run["by_callers"].values()] == [[], []]
    assert (code, run["failed"]) == (0, 0)
    assert run["calls"] > 0
    assert [each["report"]["replica"] for each in run["drains"]] == ["echo-0", "echo-1", "echo-2"]
    assert run["drains"][1]["same_port"]
    for drain in run["drains"]:
        report = drain["report"]
        # The program of all callers here, of two processes.
        assert {each["id"].partition("@")[0] for each in report["confirmed"]} == {"callers"}
        assert len({each["id"].rpartition(".")[0] for each in report["confirmed"]}) == 2
        assert (report["silent"], report["gone"], report["refused"]) == ([], [], 0)
