"""The command line against a whole fleet."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SHOAL = Path(sys.executable).with_name("shoal")


@pytest.fixture
def shoal(fleet):
    def run(*arguments, code=0):
        done = subprocess.run(
            [SHOAL, "--fleet", fleet.fleet.directory, "--owner", "tester", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    return run


def test_ps_lists_three_replicas_of_each_service(shoal):
    found = json.loads(shoal("ps", "--json"))
    assert found["state"].startswith("connected")
    by_service = {}
    for replica in found["replicas"]:
        assert replica["status"] == "UP"
        assert replica["address"] == f"127.0.{replica['host'].removeprefix('host-')}.1"
        by_service.setdefault(replica["service"], []).append(replica)
    assert {name: len(rows) for name, rows in by_service.items()} == {
        "registry": 3,
        "api": 3,
        "scheduler": 3,
        "appmanager": 6,
    }
    assert {row["flavor"] for row in by_service["appmanager"]} == {"local", "local-legacy"}


def test_a_job_from_submit_to_its_output(shoal, tmp_path):
    submitted = json.loads(
        shoal("submit", "nap", "-p", "seconds=0.1", "--count", "2", "--wait", "--json")
    )
    assert [job["state"] for job in submitted] == ["SUCCEEDED", "SUCCEEDED"]
    job_id = submitted[0]["id"]

    assert "slept 0.1 s" in shoal("logs", "-f", job_id)
    shoal("outputs", job_id, "-o", str(tmp_path))
    assert json.loads((tmp_path / "nap.json").read_text()) == {"seconds": 0.1}
    shown = json.loads(shoal("job", job_id, "--json"))
    assert [event["state"] for event in shown["events"]][:2] == ["SUBMITTED", "QUEUED"]
    assert len(shown["attempts"]) == 1
    assert job_id in {job["id"] for job in json.loads(shoal("jobs", "--mine", "--json"))}
    assert job_id in shoal("jobs")


def test_the_same_key_gives_the_same_job(shoal):
    twice = [
        json.loads(shoal("submit", "nap", "-p", "seconds=0", "--key", "once", "--json"))[0]["id"]
        for _ in range(2)
    ]
    assert twice[0] == twice[1]


def test_a_running_job_is_cancelled(shoal):
    job_id = json.loads(shoal("submit", "nap", "-p", "seconds=300", "--json"))[0]["id"]
    shoal("cancel", job_id)
    # It ends: the stream of its log does.
    shoal("logs", "-f", job_id)
    assert json.loads(shoal("job", job_id, "--json"))["state"] == "CANCELLED"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["submit", "nothing"], 1, "nothing"),
        (["submit", "nap", "-p", "seconds"], 2, "is not key=value"),
        (["submit", "nap", "-p", "seconds=soon"], 1, "seconds"),
        (["submit", "climate", "-i", "/no/such/file"], 2, "is no file"),
        (["job", "no-such-job"], 1, "no-such-job"),
        (["kill", "registry-9"], 1, "registry-9"),
        (["start", "registry-1"], 1, "runs already"),
        (["jobs", "--state", "tired"], 2, "tired"),
        (["replay", "no-such-job"], 1, "no-such-job"),
        (["up"], 1, "already"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(shoal, arguments, code, words):
    said = shoal(*arguments, code=code)
    assert words in said
    assert "Traceback" not in said


def test_without_a_fleet_there_is_nobody_to_talk_to(tmp_path):
    done = subprocess.run(
        [SHOAL, "--fleet", tmp_path, "ps"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 3
    assert "shoal up" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "up",
        "down",
        "ps",
        "apps",
        "submit",
        "jobs",
        "job",
        "logs",
        "cancel",
        "replay",
        "outputs",
        "kill",
        "start",
        "demo",
        "release",
        "upgrade",
    ],
)
def test_every_command_explains_itself_with_an_example(command):
    done = subprocess.run([SHOAL, command, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert f"shoal {command}" in done.stdout.replace("\n", " ")
    assert "Example" in done.stdout
