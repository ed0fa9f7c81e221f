"""A fork after use, in every combination: it works, or says at once why not. It never hangs."""

import json
import os
import subprocess
import sys

import pytest

from shoal import forks
from tests.support.echo import ROOT, EchoProcess

SYNC = ("inherited channel", "fresh channel", "own server")
AIO = ("fresh aio channel", "own aio server")


@pytest.fixture(scope="module")
def echo():
    with EchoProcess() as process:
        yield process


def outcomes(echo, state, *, support):
    environment = dict(os.environ)
    environment.pop("GRPC_ENABLE_FORK_SUPPORT", None)
    if support:
        environment["GRPC_ENABLE_FORK_SUPPORT"] = "1"
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.forking", echo.target, state],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=100,
        check=True,
    )
    return json.loads(done.stdout)


def works(found, *names):
    assert {name: found[name] for name in names} == dict.fromkeys(names, "ok")


def says_why(found, *names):
    for name in names:
        assert found[name].startswith("ShoalForkError: "), (name, found[name])
        assert "GRPC_ENABLE_FORK_SUPPORT=1" in found[name]


@pytest.mark.parametrize("support", [False, True])
def test_a_fork_before_the_first_call_is_harmless(echo, support):
    found = outcomes(echo, "unused", support=support)
    works(found, *SYNC, *AIO, "parent")


@pytest.mark.parametrize("state", ["called", "plain", "serving"])
def test_a_fork_after_use_without_support_says_so_at_first_use(echo, state):
    found = outcomes(echo, state, support=False)
    says_why(found, *SYNC, *AIO)
    if state == "serving":
        says_why(found, "inherited server")
    works(found, "parent")


def test_a_fork_while_grpc_falls_asleep_works_or_says_so(echo):
    # Its threads end some time after the last channel was closed; each child finds them or not.
    found = outcomes(echo, "closed", support=False)
    for name in (*SYNC, *AIO):
        assert found[name] == "ok" or found[name].startswith("ShoalForkError: "), found[name]
    works(found, "parent")


@pytest.mark.parametrize("state", ["called", "closed", "plain", "serving"])
def test_a_fork_after_use_with_support_works(echo, state):
    found = outcomes(echo, state, support=True)
    works(found, *SYNC, *AIO, "parent")
    if state == "serving":
        says_why(found, "inherited server")


def test_a_fork_after_use_of_asyncio_without_support(echo):
    found = outcomes(echo, "aio", support=False)
    says_why(found, *SYNC, *AIO, "inherited aio channel")
    works(found, "parent")


def test_a_fork_after_use_of_asyncio_with_support_leaves_the_blocking_half(echo):
    found = outcomes(echo, "aio", support=True)
    works(found, *SYNC, "parent")
    says_why(found, *AIO, "inherited aio channel")


def test_grpcs_core_does_not_fall_asleep_amid_a_fork(monkeypatch):
    # That a child would hang otherwise is too rare to be tried.
    state = forks._State()
    monkeypatch.setattr(forks, "_state", state)
    monkeypatch.setattr(forks, "SUPPORTED", True)
    monkeypatch.setattr(forks, "_core_is_alive", lambda: True)
    forks._before()
    assert state.awake is not None
    forks._after_in_parent()
    assert state.awake is None


@pytest.mark.parametrize("name", ["grpc_global_tim", "event_engine", "lifeguard"])
def test_a_thread_that_ends_while_they_are_looked_at_hides_no_other(monkeypatch, tmp_path, name):
    # The core's threads come and go. No real one ends on demand here.
    monkeypatch.setattr(forks, "_state", forks._State())
    monkeypatch.setattr(forks, "_TASKS", tmp_path)
    for number in range(10):
        (tmp_path / f"ended-{number}").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "comm").write_text("python\n")
    assert not forks._core_is_alive()
    (tmp_path / "living").mkdir()
    (tmp_path / "living" / "comm").write_text(f"{name}\n")
    assert forks._core_is_alive()
