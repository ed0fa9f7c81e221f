"""Accounts for jobs, without jobs: lending them, and what would not do."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shoal_gateway.appmanager import __main__ as appmanager
from shoal_gateway.appmanager import apart
from shoal_gateway.appmanager.apart import Accounts, ApartError
from shoal_gateway.appmanager.workers import Worker
from tests.support.rooted import PYTHON, needs_root


def open_files():
    """This process's descriptors, and what each leads to."""
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        # The one that lists them is gone by now.
        with contextlib.suppress(FileNotFoundError):
            found.add((each.name, str(each.readlink())))
    return found


@needs_root
def test_a_worker_that_cannot_be_made_leaves_nothing(tmp_path, monkeypatch):
    # Not the other test's, which may run beside this one: nobody is lent an account that lives.
    accounts = Accounts(range(70_100, 70_101), locks=tmp_path / "locks")
    accounts.open()
    before = open_files()
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        Worker(PYTHON, tmp_path / "file" / "1", {}, accounts)

    def refuse(pid):
        raise OSError(f"too many files for {pid}")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(OSError, match="too many files") as caught:
        Worker(PYTHON, tmp_path / "1", {}, accounts)
    assert not Path(f"/proc/{str(caught.value).split()[-1]}").exists()
    assert not (tmp_path / "1").exists()
    assert open_files() <= before  # what earlier tests left open may be closed meanwhile
    accounts.lend().close()


@needs_root
def test_an_account_is_lent_once_and_free_again_when_its_last_holder_ends(tmp_path):
    accounts = Accounts(range(70_000, 70_003), locks=tmp_path / "locks")
    accounts.open()
    others = Accounts(range(70_000, 70_003), locks=tmp_path / "locks")
    lent = [each.lend() for each in (accounts, others, accounts)]
    assert {each.uid for each in lent} == {70_000, 70_001, 70_002}
    with pytest.raises(OSError, match="all 3 accounts"):
        others.lend()
    inherited = os.dup(lent[0].descriptor)
    lent[0].close()
    with pytest.raises(OSError, match="all 3 accounts"):
        others.lend()
    os.close(inherited)
    # Nor while anything lives under it: all who held it may have been killed.
    with subprocess.Popen(["/bin/sleep", "3600"], user=lent[0].uid) as left:
        try:
            with pytest.raises(OSError, match="all 3 accounts"):
                others.lend()
        finally:
            left.kill()
    assert others.lend().uid == lent[0].uid


def test_where_accounts_cannot_be_given_it_is_said_and_a_named_range_is_refused(tmp_path, caplog):
    # A directory that others can't enter, as pytest's are.
    root = tmp_path / "host"
    root.mkdir(mode=0o750)
    (root / "notes").touch(mode=0o640)
    before = [(each, each.stat().st_mode) for each in (root, root / "notes")]
    assert apart.accounts_for("auto", root, sys.executable, 64) is None
    assert [(each, each.stat().st_mode) for each, _ in before] == before
    assert "jobs run as this manager's account" in caplog.text
    assert "docs/users.md" in caplog.text
    with pytest.raises(ApartError):
        apart.accounts_for("200000-200010", root, sys.executable, 64)
    assert apart.accounts_for("manager", root, sys.executable, 64) is None


@pytest.mark.parametrize("text", ["", "x", "5", "10-20", "3000-2000", "0-70000", "-", "1000-"])
def test_what_is_no_range_of_accounts_is_refused(text):
    with pytest.raises(ValueError, match=r"upwards|neither"):
        apart.parse(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [("10-20", "from 1000 upwards"), ("all", "neither 'auto' nor"), ("3000-3004", "slots need 6")],
)
def test_accounts_that_would_not_do_are_refused_before_anything_runs(capsys, tmp_path, text, said):
    given = ["--zookeeper", "zk:2181", "--flavor", "local", "--root", str(tmp_path / "host")]
    given += ["--objects", f"file://{tmp_path}/objects", "--slots", "3"]
    with pytest.raises(SystemExit) as ended:
        appmanager.main([*given, "--jobs-as", text])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
