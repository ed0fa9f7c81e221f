"""``shoal config`` on a real ZooKeeper, and a registry that follows what it writes."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from shoal_gateway.cli.app import run
from shoal_gateway.convert import duration
from shoal_gateway.tunables import Scheduler
from shoal_protos.gateway.registry.v1 import registry_pb2, registry_pb2_grpc
from tests.support.hosts import hosts
from tests.support.waiting import eventually

DEADLINE = 60.0
__all__ = ["hosts"]


@pytest.fixture
def cli(chroot, tmp_path, capsys, monkeypatch):
    """Runs a command in this process: its output, or with an exit code its errors, in one line."""
    monkeypatch.setenv("COLUMNS", "1000")
    handler = signal.getsignal(signal.SIGTERM)

    def call(*arguments, code=0):
        capsys.readouterr()
        ended = run(["--zookeeper", chroot, "--fleet", str(tmp_path), "config", *arguments])
        said = capsys.readouterr()
        assert ended == code, said.out + said.err
        return " ".join(said.err.split()) if code else said.out

    yield call
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def editor(tmp_path, monkeypatch):
    """Sets the editor to a Python program that gets the file as ``path``."""

    def use(code):
        script = tmp_path / "editor.py"
        script.write_text(f"import pathlib, sys\npath = pathlib.Path(sys.argv[1])\n{code}\n")
        monkeypatch.delenv("VISUAL", raising=False)
        monkeypatch.setenv("EDITOR", shlex.join([sys.executable, str(script)]))

    return use


def test_fields_are_set_read_and_taken_back(cli):
    assert json.loads(cli("get", "scheduler")) == {}
    assert "scheduler is at version 0" in cli("set", "scheduler", "lease=10", "retry.attempts=4")
    assert json.loads(cli("get", "scheduler")) == {"lease": 10.0, "retry": {"attempts": 4}}
    assert json.loads(cli("get", "scheduler", "retry.attempts")) == 4
    whole = json.loads(cli("get", "scheduler", "--effective", "--json"))
    assert whole["version"] == 0
    assert whole["document"]["retry"]["attempts"] == 4
    assert whole["document"]["poll"] == Scheduler().poll
    assert json.loads(cli("set", "scheduler", "lease=", "--json"))["version"] == 1
    assert json.loads(cli("get", "scheduler")) == {"retry": {"attempts": 4}}
    assert json.loads(cli("get", "scheduler", "--version", "0"))["lease"] == 10.0
    assert "lease is not set" in cli("get", "scheduler", "lease", code=1)
    assert "kept are: 0, 1" in cli("get", "scheduler", "--version", "7", code=2)


def test_what_is_not_valid_is_refused_with_the_field(cli):
    assert "lease: input should be greater" in cli("set", "scheduler", "lease=0", code=1)
    assert "leese: no such field" in cli("set", "scheduler", "leese=1", code=1)
    assert "must be longer than lease" in cli("set", "appmanager", "leash=5", code=1)
    assert "is not key=value" in cli("set", "scheduler", "lease", code=1)
    assert "lease has no fields" in cli("set", "scheduler", "lease=3", "lease.x=1", code=1)
    assert "known are api, registry" in cli("set", "mine", "a=1", code=2)
    assert "either fields" in cli("set", "scheduler", code=2)
    assert "can't be imported" in cli("set", "mine", "a=1", "--model", "no.such:Thing", code=2)
    assert "is no pydantic model" in cli(
        "set", "mine", "a=1", "--model", "json:JSONDecoder", code=2
    )
    assert json.loads(cli("get", "scheduler", "--json"))["version"] is None


def test_a_whole_document_comes_from_a_file_over_a_version(cli, tmp_path, monkeypatch):
    file = tmp_path / "registry.json"
    file.write_text('{"limit": 50}')
    cli("set", "registry", "-f", str(file), "--expected", "-1")
    assert "somebody else has written" in cli(
        "set", "registry", "-f", str(file), "--expected", "-1", code=1
    )
    assert "at version 0 by now" in cli("set", "registry", "limit=9", "--expected", "4", code=1)
    cli("set", "registry", "limit=9", "--expected", "0")
    assert json.loads(cli("get", "registry")) == {"limit": 9}
    file.write_text("[1]")
    assert "must be a JSON object" in cli("set", "registry", "-f", str(file), code=1)
    file.write_text("{")
    assert "is not JSON" in cli("set", "registry", "-f", str(file), code=1)
    done = subprocess.run(
        [sys.executable, "-m", "shoal_gateway.cli", "--help"], capture_output=True, text=True
    )
    assert "config" in done.stdout


def test_a_document_of_ones_own_is_checked_by_a_model_beside_the_caller(cli, tmp_path, monkeypatch):
    (tmp_path / "mine_config.py").write_text(
        "from pydantic import BaseModel\nclass Mine(BaseModel):\n    colour: str = 'red'\n"
    )
    monkeypatch.chdir(tmp_path)
    cli("set", "mine", "colour=blue", "--model", "mine_config:Mine")
    assert "colour: " in cli("set", "mine", "colour=3", "--model", "mine_config:Mine", code=1)
    assert json.loads(cli("get", "mine")) == {"colour": "blue"}
    assert "who" in cli("history", "mine")


def test_history_diff_and_rollback(cli):
    assert "There is no document api" in cli("history", "api")
    cli("set", "api", "limit=10", "-m", "a [bold] start")
    cli("set", "api", "limit=20", "-m", "more")
    assert "at version 2" in cli("rollback", "api", "-m", "too much")
    told = json.loads(cli("history", "api", "--json"))
    assert [each["version"] for each in told] == [2, 1, 0]
    assert [each["why"] for each in told] == ["too much", "more", "a [bold] start"]
    assert told[0]["restores"] == 0
    assert told[0]["document"] == {"limit": 10}
    assert all("@" in each["who"] for each in told)
    table = cli("history", "api")
    assert "a [bold] start" in table
    assert "[version 0]" in table
    lines = cli("history", "api", "--diff").splitlines()
    assert lines[0].startswith("version 2, ")
    assert '  -  "limit": 20' in lines
    assert '  +  "limit": 20' in lines
    assert "no version 9 to go back to: there are 0, 1" in cli("rollback", "api", "9", code=1)


def test_edit_writes_what_was_saved_and_keeps_the_text_of_who_lost_a_race(
    cli, editor, chroot, directories
):
    editor("path.write_text('{\"lease\": 12}')")
    assert "at version 0" in cli("edit", "scheduler", "-m", "by hand")
    assert "Nothing was changed" in cli("edit", "scheduler")
    editor("path.write_text(path.read_text().replace('12', '-12'))")
    said = cli("edit", "scheduler", code=1)
    assert "lease: input should be greater" in said
    kept = Path(said.rpartition(" ")[2])
    assert json.loads(kept.read_text()) == {"lease": -12.0}
    kept.unlink()
    editor("sys.exit(3)")
    assert "exit code 3" in cli("edit", "scheduler", code=1)

    # Somebody else writes while the editor is open.
    code = (
        "import shoal\nfrom shoal.recipes.config import Anything\n"
        f"with shoal.Directory({chroot!r}) as directory:\n"
        "    with shoal.Config(directory, 'scheduler', Anything) as config:\n"
        "        config.set({'lease': 20.0}, who='grace', why='quicker')\n"
        "path.write_text('{\"lease\": 30}')"
    )
    editor(code)
    said = cli("edit", "scheduler", code=1)
    assert "Version 1 is there now, by grace, quicker" in said
    assert '- "lease": 20.0' in said
    assert '+{"lease": 30}' in said
    kept = Path(said.rpartition(" ")[2])
    assert json.loads(kept.read_text()) == {"lease": 30}
    kept.unlink()
    assert json.loads(cli("get", "scheduler")) == {"lease": 20.0}


def test_watch_prints_each_change_until_it_is_told_to_stop(cli, chroot, tmp_path):
    command = [sys.executable, "-m", "shoal_gateway.cli", "--zookeeper", chroot]
    command += ["--fleet", str(tmp_path / "elsewhere"), "config", "watch", "api", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        try:
            told = (json.loads(line) for line in watching.stdout)
            first = next(each for each in told if each["source"] == "zookeeper")
            assert first["document"] == {}
            cli("set", "api", "limit=5")
            cli("set", "api", "limit=6")
            last = next(each for each in told if each["version"] == 1)
            assert last["document"] == {"limit": 6}
            watching.send_signal(signal.SIGINT)
            assert watching.wait(DEADLINE) == 130
        finally:
            watching.kill()


def test_services_change_while_they_run(cli, hosts):
    """A registry its limit, a manager its lease, and a scheduler what it is told."""
    manager, scheduler = hosts.manager(lease=300.0), hosts.start("scheduler")
    with hosts.directory.channel("registry", retry=None) as channel:
        stub = registry_pb2_grpc.RegistryStub(channel)
        held = []

        def refusal():
            """Why a call is turned away while others wait inside; None when it is not."""
            waiting = registry_pb2.ChangesRequest(after=1_000_000, wait=duration(10.0))
            held.append(stub.Changes.future(waiting, timeout=DEADLINE))
            return stub.Summary.future(registry_pb2.SummaryRequest(), timeout=DEADLINE).exception()

        assert refusal() is None
        cli("set", "registry", "limit=1", "sweep_every=2")
        error = eventually(refusal, DEADLINE)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "this replica takes 1 calls at once" in error.details()
        cli("set", "registry", "limit=")
        eventually(lambda: refusal() is None, DEADLINE)
        for each in held:
            each.cancel()

    cli("set", "appmanager", "lease=1", "retry.attempts=2")
    cli("set", "scheduler", "lease=5", "poll=0.1", "max_batch=1", "retry.backoff=0.1")
    eventually(lambda: "config 'appmanager': version 0" in hosts.log(manager), DEADLINE)
    eventually(lambda: "config 'scheduler': version 0" in hosts.log(scheduler), DEADLINE)
    job_id = hosts.submit("import time; time.sleep(3600)")
    hosts.reaches(job_id, "RUNNING")
    hosts.kill(manager)
    # Under the lease of its command line it would be missed after five minutes.
    lost = eventually(
        lambda: [each for each in hosts.events(job_id) if "its lease was lost" in each.message],
        DEADLINE,
    )
    assert len(lost) == 1
    assert "Traceback" not in hosts.log(scheduler) + hosts.log(manager)
