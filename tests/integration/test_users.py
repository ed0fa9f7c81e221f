"""A fleet that asks for users, on the command line; and where an api refuses to ask for them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from shoal_gateway.fleet import Fleet
from tests.support.waiting import eventually

SHOAL = Path(sys.executable).with_name("shoal")


@pytest.fixture
def fleet(tmp_path):
    made = Fleet(tmp_path / "fleet")
    made.up(hosts=1, users="required")
    yield made
    made.down()


@pytest.fixture
def shoal(fleet, tmp_path):
    """Runs a command: as the fleet's administrator, or with somebody's token file."""

    def run(*arguments, token=None, code=0):
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("SHOAL_TOKEN")
        }
        if token is not None:
            environment["SHOAL_TOKEN_FILE"] = str(token)
        done = subprocess.run(
            [SHOAL, "--fleet", fleet.directory, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            env=environment,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    return run


def test_users_get_tokens_and_see_their_own_jobs(shoal, fleet, tmp_path):
    assert stat.S_IMODE(fleet.layout.token.stat().st_mode) == 0o600
    tokens = {}
    for name in ("ada", "bob"):
        shoal("users", "add", name)
        tokens[name] = tmp_path / f"{name}.token"
        shoal("tokens", "create", name, "-o", str(tokens[name]), "--label", "test")
        assert stat.S_IMODE(tokens[name].stat().st_mode) == 0o600
    ada, bob = tokens["ada"], tokens["bob"]
    submit = ("submit", "nap", "-p", "seconds=0.1", "--json")
    job = json.loads(shoal(*submit, "--wait", token=ada))[0]["id"]
    assert "slept 0.1 s" in shoal("logs", job, token=ada)
    shoal("outputs", job, "-o", str(tmp_path / "out"), token=ada)
    for command in (["job", job], ["logs", job], ["outputs", job], ["cancel", job]):
        assert f"not found: there is no job {job}" in shoal(*command, token=bob, code=1)
    assert json.loads(shoal("jobs", "--json", token=bob)) == []
    assert [each["id"] for each in json.loads(shoal("jobs", "--mine", "--json", token=ada))] == [
        job
    ]
    # The administrator, whose token the fleet keeps, sees all and is nobody else.
    assert [each["id"] for each in json.loads(shoal("jobs", "--json"))] == [job]
    assert json.loads(shoal("jobs", "--mine", "--json")) == []
    assert "admin" in shoal("users", "list")
    assert "permission denied" in shoal("users", "list", token=ada, code=1)

    shoal("users", "set", "bob", "--submits-per-minute", "1")
    shoal(*submit, token=bob)
    refused = shoal(*submit, token=bob, code=1)
    assert "resource exhausted: quota submits_per_minute: bob has submitted 1 jobs" in refused
    assert "1 are allowed; try again in" in refused
    me = json.loads(shoal("users", "whoami", "--json", token=bob))
    assert me["user"]["quotas"]["submits_per_minute"] == {"limit": 1, "used": 1, "own": True}

    listed = json.loads(shoal("tokens", "list", "--user", "ada", "--json"))
    shoal("tokens", "revoke", listed[0]["id"])

    def refused_now():
        try:
            return "was revoked" in shoal("jobs", token=ada, code=1)
        except AssertionError:
            return False

    eventually(refused_now, what="the revocation")


def test_a_token_that_others_can_read_or_that_is_none_is_not_sent(shoal, fleet, tmp_path):
    open_ = tmp_path / "open.token"
    open_.write_text(fleet.layout.token.read_text())
    open_.chmod(0o644)
    assert "chmod 600" in shoal("jobs", token=open_, code=1)
    none = tmp_path / "none.token"
    none.write_text("hunter2\n")
    none.chmod(0o600)
    said = shoal("jobs", token=none, code=1)
    assert "holds no token" in said
    assert "hunter2" not in said
    assert "no token can be read" in shoal("jobs", token=tmp_path / "missing", code=1)


@pytest.mark.parametrize(
    ("bind", "more", "refused"),
    [
        ("0.0.0.0:0", [], True),
        ("192.0.2.1:0", [], True),
        ("[::]:0", [], True),
        ("127.0.0.1:0", ["--catalogue", "/nowhere"], False),
        ("[::1]:0", ["--catalogue", "/nowhere"], False),
        ("0.0.0.0:0", ["--catalogue", "/nowhere", "--tokens-in-plain-text"], False),
    ],
)
def test_tokens_over_plain_text_are_refused_unless_it_is_said(bind, more, refused):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "shoal_gateway.api", "--zookeeper", "127.0.0.1:1/x"),
            *("--objects", "file:///tmp/x", "--catalogue", "/nowhere", "--bind", bind),
            *("--users", "required", *more),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    # Those that may go on are stopped by the next thing that is wrong.
    assert done.returncode == (2 if refused else 1)
    word = "--tokens-in-plain-text" if refused else "/nowhere is not a directory"
    assert word in done.stderr


def test_the_first_administrator_is_made_in_the_store(tmp_path):
    store = f"sqlite:///{tmp_path}/registry.db"

    def make(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "shoal_gateway.registry.first_admin", store, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
        )

    first = make()
    assert (first.returncode, first.stdout[:6], first.stderr) == (0, "shoal_", "")
    assert stat.S_IMODE((tmp_path / "registry.db").stat().st_mode) == 0o600
    again = make()
    assert again.returncode == 1
    assert "--again" in again.stderr
    file = tmp_path / "token"
    assert make("--again", "--token-file", str(file)).returncode == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "name" in make("--name", "../x").stderr
