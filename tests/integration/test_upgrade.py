"""Services are rolled to other versions, forth and back, by the command line."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shoal_gateway.fleet import Fleet
from shoal_gateway.fleet.upgradelock import held

SHOAL = Path(sys.executable).with_name("shoal")
QUICK = ("--min-healthy", "0.2")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """Two hosts of its own, for it is changed."""
    made = Fleet(tmp_path_factory.mktemp("upgrade") / "fleet")
    try:
        made.up(hosts=2)
        releases = made.layout.releases
        releases.make("1.1")
        # It starts, announces itself, and never says that it serves.
        deaf = releases.make("1.2-deaf").path / "shoal" / "standard.py"
        deaf.write_text(
            deaf.read_text().replace("SERVING if serving else states.NOT_SERVING", "NOT_SERVING")
        )
        yield made
    finally:
        if made.exists:
            made.down()


def command(fleet, *arguments):
    return [SHOAL, "--fleet", fleet.directory, "--owner", "tester", *arguments]


def shoal(fleet, *arguments, code=0):
    done = subprocess.run(command(fleet, *arguments), capture_output=True, text=True, timeout=100)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def versions(fleet, service):
    """Of a service's replicas, by id, as they announce them themselves."""
    rows = json.loads(shoal(fleet, "ps", "--json"))["replicas"]
    return {row["id"]: row["version"] for row in rows if row["service"] == service}


def test_app_managers_are_upgraded_in_place_under_a_job_that_goes_on(fleet):
    job_id = json.loads(shoal(fleet, "submit", "nap", "-p", "seconds=8", "--json"))[0]["id"]
    before = versions(fleet, "appmanager")

    said = shoal(fleet, "upgrade", "appmanager", "--to", "1.1", "--max-unavailable", "2", *QUICK)

    assert "appmanager runs 1.1" in said
    assert versions(fleet, "appmanager") == dict.fromkeys(before, "1.1")
    shoal(fleet, "submit", "nap", "-p", "seconds=0", "--wait", "--key", "after")
    after = json.loads(shoal(fleet, "submit", "nap", "-p", "seconds=0", "--key", "after", "--json"))
    shown = json.loads(shoal(fleet, "job", after[0]["id"], "--json"))
    assert [each["manager_version"] for each in shown["attempts"]] == ["1.1"]
    shoal(fleet, "logs", "-f", job_id)
    shown = json.loads(shoal(fleet, "job", job_id, "--json"))
    assert shown["state"] == "SUCCEEDED"
    assert [each["manager_version"] for each in shown["attempts"]] == [before["local-1"]]


def test_a_version_that_never_says_it_serves_is_rolled_back(fleet):
    before = versions(fleet, "api")

    said = shoal(fleet, "upgrade", "api", "--to", "1.2-deaf", "--deadline", "3", *QUICK, code=1)

    assert "api-1.2, version 1.2-deaf, failed the gate" in said
    assert "api-1.2.log" in said
    assert versions(fleet, "api") == before


def test_a_canary_that_dies_while_it_is_watched_is_rolled_back(fleet):
    before = versions(fleet, "api")
    upgrade = ["upgrade", "api", "--to", "1.1", "--canary", "0.1", "--watch", "600", *QUICK]
    with subprocess.Popen(command(fleet, *upgrade), stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("watching"):
                fleet.kill("api-1.2")
                break
        said = process.stderr.read()
        assert process.wait(60) == 1, said
    assert "api-1.2, version 1.1, failed the gate process" in " ".join(said.split())
    # ZooKeeper lists the dead one until its session has timed out.
    assert before.items() <= versions(fleet, "api").items()
    left = [each.id for each in fleet.state.replicas.values() if each.service == "api"]
    assert sorted(left) == ["api-1", "api-2"]


def test_it_stops_at_the_canary_and_goes_on_from_there(fleet):
    first = versions(fleet, "scheduler")["scheduler-1"]
    upgrade = ["upgrade", "scheduler", "--to", "1.1", *QUICK]
    canary = command(fleet, *upgrade, "--canary", "0.1", "--watch", "600")
    steps = []
    with subprocess.Popen(canary, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            steps.append(line.split(",")[0].split(" for ")[0].strip())
            if line.startswith("watching"):
                # Another one may not begin meanwhile, whatever it is about.
                refused = shoal(fleet, "upgrade", "api", "--to", "1.1", code=1)
                process.send_signal(signal.SIGINT)
                break
        said = process.stderr.read()
        assert process.wait(60) == 4, said
    wanted = ["starting scheduler-1.2", "draining scheduler-1", "watching scheduler-1.2"]
    assert [step for step in steps if "scheduler-" in step] == wanted
    assert f"upgrade of scheduler to 1.1 by process {process.pid}" in " ".join(refused.split())
    assert versions(fleet, "scheduler") == {"scheduler-1.2": "1.1", "scheduler-2": first}

    shoal(fleet, *upgrade)
    assert versions(fleet, "scheduler") == {"scheduler-1.2": "1.1", "scheduler-2.2": "1.1"}


def test_what_was_upgraded_before_and_is_dead_is_no_success(fleet):
    """As after a command that was killed when it had ended the old one."""
    target = versions(fleet, "scheduler").popitem()[1]
    shoal(fleet, "upgrade", "scheduler", "--to", target, *QUICK)
    upgraded = versions(fleet, "scheduler")
    dead = min(upgraded)
    fleet.kill(dead)

    said = shoal(fleet, "upgrade", "scheduler", "--to", target, *QUICK, code=1)

    assert f"{dead}, version {target}, failed the gate process: it has ended" in " ".join(
        said.split()
    )
    fleet.start(dead)
    shoal(fleet, "upgrade", "scheduler", "--to", target, *QUICK)
    # Nothing of the others was touched.
    assert versions(fleet, "scheduler").keys() == upgraded.keys()


def test_the_lock_says_who_holds_it_and_is_free_again(fleet):
    with held(fleet.state.zookeeper, "upgrade of dinner", lambda: None):
        said = shoal(fleet, "upgrade", "api", "--to", "1.1", code=1)
    words = " ".join(said.split())
    assert f"upgrade of dinner by process {os.getpid()} on " in words
    with held(fleet.state.zookeeper, "another", lambda: None):
        pass


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["upgrade", "api", "--to", "9.9"], "there is no release 9.9 here, only"),
        (["upgrade", "dinner", "--to", "1.1"], "there is no service 'dinner'"),
        (["upgrade", "appmanager", "--to", "1.1", "--strategy", "surge"], "can't surge"),
    ],
)
def test_what_can_not_be_done_is_said_in_a_sentence(fleet, arguments, words):
    said = " ".join(shoal(fleet, *arguments, code=1).split())
    assert words in said
    assert "Traceback" not in said
