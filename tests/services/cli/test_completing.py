"""What a shell is offered, and that nothing else is ever said."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shoal_gateway.cli import completing
from shoal_gateway.fleet.state import FleetState, ReplicaState, StateFile

SHOAL = Path(sys.executable).with_name("shoal")


@pytest.fixture
def fleet(tmp_path):
    """A fleet's directory, without anything that runs."""
    state = FleetState(zookeeper="127.0.0.1:1/gateway", hosts={"host-1": "127.0.1.1"})
    for replica in (
        ReplicaState("registry-1", "registry", "host-1"),
        ReplicaState("local-1", "appmanager", "host-1", "local"),
    ):
        state = state.with_replica(replica)
    StateFile(tmp_path).write(state)
    (tmp_path / "releases" / "1.1").mkdir(parents=True)
    (tmp_path / "catalogue").mkdir()
    (tmp_path / "catalogue" / "nap.toml").write_text('name = "nap"\ndescription = "Sleeps."\n')
    return tmp_path


def completions(fleet, *words):
    """As bash asks for them; what was said and what was complained."""
    line = ["shoal", "--fleet", str(fleet), *words]
    asked = {"COMP_WORDS": " ".join(line), "COMP_CWORD": str(len(line) - 1)}
    done = subprocess.run(
        [SHOAL],
        env={**os.environ, **asked, "_SHOAL_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    return done.stdout.split(), done.stderr


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["kill", "reg"], ["registry-1"]),
        (["start", ""], ["registry-1", "local-1", "host-1"]),
        (["upgrade", "s"], ["scheduler"]),
        (["upgrade", "api", "--to", ""], ["1.1"]),
        (["submit", ""], ["nap"]),
        (["jobs", "--state", "ru"], ["running"]),
        (["config", "get", "reg"], ["registry"]),
        (["top", "--sort", "ut"], ["utilisation"]),
        (["ki"], ["kill"]),
        (["zookeeper", "pro"], ["protect"]),
    ],
    ids=" ".join,
)
def test_names_of_the_local_fleet(fleet, words, found):
    assert completions(fleet, *words) == (found, "")


def test_jobs_of_a_fleet_that_does_not_answer_are_none_and_no_word_is_said(fleet):
    assert completions(fleet, "logs", "") == ([], "")


@pytest.mark.parametrize("words", [["kill", ""], ["logs", ""], ["submit", ""]], ids=" ".join)
def test_without_a_fleet_nothing_is_offered_and_no_word_is_said(tmp_path, words):
    assert completions(tmp_path, *words) == ([], "")


def test_a_broken_file_is_as_none(fleet):
    (fleet / "fleet.json").write_text("{")
    assert completions(fleet, "kill", "") == ([], "")


def test_completing_a_replica_loads_nothing_that_takes_long(fleet):
    code = f"""
import sys, types
from shoal_gateway.cli import completing, loading
loading.load("kill")
ctx = types.SimpleNamespace(parent=None, params={{"fleet": {str(fleet)!r}}})
assert [name for name, _ in completing.replicas(ctx, "l")] == ["local-1"]
print(*sorted({{"grpc", "kazoo", "pydantic", "sqlalchemy", "google.protobuf"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_what_is_read_is_what_the_fleet_writes(fleet):
    assert completing._state(fleet) == json.loads((fleet / "fleet.json").read_text())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script(shell):
    # Else it is the shell that this runs in, if any.
    named = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [SHOAL, "--show-completion", shell]
    done = subprocess.run(command, capture_output=True, text=True, env=named)
    assert done.returncode == 0
    assert "_SHOAL_COMPLETE" in done.stdout
