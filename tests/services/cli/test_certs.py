"""``shoal certs``: what it makes, says and refuses."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from shoal.authority import DAY, Authority, described
from shoal.identity import PeerIdentity
from shoal.tls import Tls, TlsFiles
from shoal_gateway.cli.app import run


@pytest.fixture
def certs(tmp_path, capsys, monkeypatch):
    """Runs a command: its output, or with an exit code its errors, in one line."""
    monkeypatch.setenv("COLUMNS", "1000")
    handler = signal.getsignal(signal.SIGTERM)

    def call(*arguments, code=0):
        capsys.readouterr()
        ended = run(["certs", *arguments])
        said = capsys.readouterr()
        assert ended == code, said.out + said.err
        return " ".join((said.err if code else said.out).split())

    yield call
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def place(tmp_path):
    return tmp_path / "certs"


def test_from_nothing_to_certificates_that_go_together(certs, place):
    assert "Next: shoal certs issue" in certs("init", str(place))
    said = certs("issue", str(place), "registry", "api", "--user", "alice", "--days", "7")
    assert "registry.shoal.internal" in said
    assert "alice.users.shoal.internal" in said
    for name in ("registry", "api", "alice.users"):
        material = TlsFiles(Tls.of(place / name)).current()
        assert material.not_after - time.time() == pytest.approx(7 * DAY, abs=60)
    shown = json.loads(certs("show", str(place), "--json"))
    assert [each["name"] for each in shown["certificates"]] == ["alice.users", "api", "registry"]
    assert shown["rolling"] is False
    assert "registry.shoal.internal" in certs("show", str(place))
    assert certs("check", str(place), "--within", "3") == "4 certificates, 0 faults"


def test_a_second_authority_in_one_place_is_refused(certs, place):
    certs("init", str(place))
    before = (place / "authority" / "ca.pem").read_bytes()
    assert "there is an authority" in certs("init", str(place), code=1)
    assert (place / "authority" / "ca.pem").read_bytes() == before


def test_without_an_authority_it_says_how_to_make_one(certs, place):
    for command in (["issue", str(place), "api"], ["show", str(place)], ["check", str(place)]):
        assert "make one with `shoal certs init" in certs(*command, code=1)


def test_bad_names_issue_nothing(certs, place):
    certs("init", str(place))
    assert "can't stand in a certificate" in certs("issue", str(place), "api", "../api", code=1)
    assert not (place / "api").exists()
    assert "name services" in certs("issue", str(place), code=2)


def test_what_is_renewed_has_another_key_and_serial(certs, place):
    certs("init", str(place))
    certs("issue", str(place), "api", "registry")
    before = {name: described(place / name).serial for name in ("api", "registry")}
    key = (place / "api" / "tls.key").read_bytes()
    certs("renew", str(place), "api")
    assert described(place / "api").serial != before["api"]
    assert (place / "api" / "tls.key").read_bytes() != key
    assert described(place / "registry").serial == before["registry"]
    assert "there is no certificate of jobs" in certs("renew", str(place), "jobs", code=2)


def test_only_what_ends_soon_is_renewed(certs, place):
    certs("init", str(place))
    certs("issue", str(place), "api", "--days", "5")
    certs("issue", str(place), "registry", "--days", "50")
    said = certs("renew", str(place), "--within", "10")
    assert "api.shoal.internal" in said
    assert "registry.shoal.internal" not in said


def test_an_authority_is_rolled_in_three_steps(certs, place):
    certs("init", str(place))
    certs("issue", str(place), "api")
    assert "no roll is under way" in certs("roll", str(place), "--finish", code=1)
    assert "both authorities are trusted" in certs("roll", str(place))
    assert "a roll is under way" in certs("show", str(place))
    assert "still of the former authority" in certs("roll", str(place), "--finish", code=1)
    certs("renew", str(place))
    certs("roll", str(place), "--finish")
    TlsFiles(Tls.of(place / "api"))


def test_a_check_finds_what_is_wrong(certs, place):
    certs("init", str(place))
    certs("issue", str(place), "api", "registry", "scheduler", "--days", "20")
    Authority(place).issue(PeerIdentity("old"), days=1.0, now=time.time() - 3 * DAY)
    (place / "api" / "tls.key").write_bytes((place / "registry" / "tls.key").read_bytes())
    (place / "registry" / "tls.key").chmod(0o644)
    said = certs("check", str(place), code=1)
    assert "old has ended" in said
    assert "is not the key of" in said
    assert "others may read" in said
    assert "scheduler" not in said
    assert "scheduler ends in" in certs("check", str(place), "--within", "25", code=1)


def test_a_place_that_can_not_be_written_is_named(certs, place):
    place.write_text("a file")
    assert f"{place} can't be" in certs("init", str(place), code=1)


def test_keys_are_never_open_to_others(certs, place):
    before = os.umask(0)
    try:
        certs("init", str(place))
        certs("issue", str(place), "api")
    finally:
        os.umask(before)
    assert (place / "api" / "tls.key").stat().st_mode & 0o077 == 0
    assert (place / "authority" / "ca.pem").stat().st_mode & 0o077 == 0
    assert place.stat().st_mode & 0o077 == 0
