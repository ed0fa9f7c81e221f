"""The files of a certificate: what is wrong with them is said, and what was good is used on."""

from __future__ import annotations

import logging
import os
import stat
import time

import pytest

import shoal
from shoal.authority import DAY, Authority
from shoal.identity import PeerIdentity
from shoal.tls import Tls, TlsFiles, files_of
from tests.support.waiting import eventually


def changed(tls, **paths):
    return Tls(
        **{"certificate": tls.certificate, "key": tls.key, "authorities": tls.authorities} | paths
    )


def test_what_lies_there_is_read(certificates):
    tls = certificates.of("registry")
    material = TlsFiles(tls).current()
    assert material.names == ("registry.shoal.internal",)
    assert material.certificate == tls.certificate.read_bytes()
    assert material.not_after - time.time() == pytest.approx(30 * DAY, abs=60)
    assert material.key.decode() not in repr(material)


@pytest.mark.parametrize("file", ["certificate", "key", "authorities"])
def test_a_missing_file_is_named(certificates, tmp_path, file):
    tls = changed(certificates.of("api"), **{file: tmp_path / "nowhere.pem"})
    with pytest.raises(shoal.TlsError, match=r"nowhere\.pem is missing: .*shoal certs"):
        TlsFiles(tls)


@pytest.mark.parametrize("file", ["certificate", "key", "authorities"])
def test_what_is_no_pem_is_named(certificates, tmp_path, file):
    garbage = tmp_path / "garbage.pem"
    garbage.write_bytes(b"\xff\x00 garbage")
    with pytest.raises(shoal.TlsError, match=r"garbage\.pem.* in PEM format"):
        TlsFiles(changed(certificates.of("api"), **{file: garbage}))


@pytest.mark.parametrize("file", ["certificate", "key", "authorities"])
def test_an_empty_file_is_named(certificates, tmp_path, file):
    empty = tmp_path / "empty.pem"
    empty.touch()
    with pytest.raises(shoal.TlsError, match=r"empty\.pem"):
        TlsFiles(changed(certificates.of("api"), **{file: empty}))


def test_a_directory_is_no_file(certificates, tmp_path):
    with pytest.raises(shoal.TlsError, match="can't be read: Is a directory"):
        TlsFiles(changed(certificates.of("api"), key=tmp_path))


def test_a_huge_file_is_not_read(certificates, tmp_path):
    huge = tmp_path / "huge.pem"
    with huge.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(shoal.TlsError, match="larger than"):
        TlsFiles(changed(certificates.of("api"), authorities=huge))


def test_a_key_of_another_certificate_is_refused(certificates):
    mine, other = certificates.of("api"), certificates.of("registry")
    with pytest.raises(shoal.TlsError, match=r"is not the key of .*api/tls\.crt"):
        TlsFiles(changed(mine, key=other.key))


def test_an_encrypted_key_is_refused_and_nobody_is_asked(certificates, tmp_path):
    tls = certificates.of("api")
    key = tmp_path / "key.pem"
    key.write_bytes(tls.key.read_bytes().replace(b"PRIVATE KEY", b"ENCRYPTED PRIVATE KEY"))
    with pytest.raises(shoal.TlsError, match="is encrypted"):
        TlsFiles(changed(tls, key=key))


def test_an_expired_certificate_is_refused(certificates):
    with pytest.raises(shoal.TlsError, match=r"api/tls\.crt.*has expired: renew it"):
        TlsFiles(certificates.expired("api"))


def test_a_certificate_of_the_future_is_refused(certificates):
    # Not longer than the authority, which began just now.
    place = certificates.authority.issue(PeerIdentity("api"), now=time.time() + DAY)
    with pytest.raises(shoal.TlsError, match="does not hold yet: check the clock"):
        TlsFiles(Tls.of(place))


def test_a_certificate_of_an_authority_that_is_not_trusted_is_refused(certificates, others):
    mine = certificates.of("api")
    with pytest.raises(shoal.TlsError, match="is of no authority in"):
        TlsFiles(changed(mine, authorities=others.of("api").authorities))


def test_another_domain_has_other_names(tmp_path):
    authority = Authority.create(tmp_path / "acme", domain="shoal.acme.example")
    tls = Tls.of(authority.issue(PeerIdentity("api")), domain="shoal.acme.example")
    assert TlsFiles(tls).current().names == ("api.shoal.acme.example",)


def test_a_new_certificate_is_read_and_an_old_one_is_not_read_again(certificates):
    tls = certificates.of("api")
    files = TlsFiles(tls)
    first = files.current()
    assert files.current() is first
    certificates.of("api")
    second = files.current()
    assert second.certificate == tls.certificate.read_bytes() != first.certificate
    assert files.current() is second


class Clock:
    """Told the time."""

    now = 0.0

    def __call__(self):
        return self.now


def test_what_can_not_be_used_is_said_once_and_what_was_there_is_used_on(certificates, caplog):
    tls = certificates.of("api")
    clock = Clock()
    files = TlsFiles(tls, clock=clock)
    good = files.current()
    right = tls.key.read_bytes()
    with caplog.at_level(logging.WARNING, "shoal.tls"):
        # As a renewal that has replaced one file and not yet the other.
        tls.key.write_bytes(certificates.of("registry").key.read_bytes())
        assert files.current() is good
        assert caplog.text == ""
        clock.now = 2.0
        assert files.current() is good
        assert files.current() is good
        (record,) = caplog.records
        assert "is not the key of" in record.getMessage()
        assert "used on" in record.getMessage()
        caplog.clear()
        tls.key.unlink()
        assert files.current() is good
        clock.now = 4.0
        assert files.current() is good
        assert "is missing" in caplog.text
        caplog.clear()
        tls.key.write_bytes(right)
        assert files.current().key == right
        clock.now = 8.0
        files.current()
        assert caplog.text == ""


def test_a_file_is_read_again_though_its_size_and_time_are_the_same(certificates):
    tls = certificates.of("api")
    files = TlsFiles(tls, clock=Clock())
    good = files.current()
    right = certificates.of("api").key.read_bytes()
    wrong = certificates.of("registry").key.read_bytes()

    def put(data):
        tls.key.write_bytes(data)
        os.utime(tls.key, ns=(0, 0))

    put(wrong)
    assert files.current() is good

    def taken():
        put(right)
        return files.current().key == right

    # More than once, for the system's clock of files may stand still for moments.
    eventually(taken, what="the key")


def test_what_is_the_same_is_no_reason_for_new_connections(certificates):
    tls = certificates.of("api")
    files = TlsFiles(tls)
    good = files.current()
    os.utime(tls.key, ns=(0, 0))
    assert files.current() is good


def test_what_could_not_be_used_is_tried_again_though_no_file_has_changed(
    certificates, monkeypatch, caplog
):
    clock = Clock()
    files = TlsFiles(certificates.of("api"), clock=clock)
    good = files.current()
    with monkeypatch.context() as broken:

        def refuse(_tls):
            raise shoal.TlsError("the disk has a bad day")

        broken.setattr("shoal.tls._examined", refuse)
        certificates.of("api")
        for clock.now in (0.0, 2.0, 10.0, 12.0):
            assert files.current() is good
    assert caplog.text.count("bad day") == 1
    assert files.current() is good
    clock.now = 21.0
    assert files.current() is not good


def test_what_was_not_renewed_is_warned_of_once(certificates, caplog):
    tls = Tls.of(certificates.authority.issue(PeerIdentity("api"), days=10.0))
    clock = Clock()
    clock.now = time.time()
    files = TlsFiles(tls, now=clock)
    with caplog.at_level(logging.WARNING, "shoal.tls"):
        files.current()
        assert caplog.text == ""
        clock.now += 9.5 * DAY
        files.current()
        files.current()
        (record,) = caplog.records
        assert "was not renewed" in record.getMessage()


def test_equal_settings_are_read_once_in_a_process(certificates):
    tls = certificates.of("api")
    assert files_of(tls) is files_of(Tls.of(tls.certificate.parent))
    assert files_of(tls) is not files_of(certificates.of("registry"))


def test_a_directory_reads_them_when_it_is_made(certificates):
    tls = certificates.of("api")
    with shoal.Directory("127.0.0.1:1/x", tls=tls) as directory:
        assert directory.tls == tls
    tls = certificates.of("scheduler")
    tls.certificate.unlink()
    with pytest.raises(shoal.TlsError, match="is missing"):
        shoal.Directory("127.0.0.1:1/x", tls=tls)


def test_settings_are_absolute_and_come_from_the_environment(certificates, monkeypatch):
    place = certificates.of("api").certificate.parent
    monkeypatch.chdir(place.parent)
    assert Tls.of("api") == Tls.of(place)
    monkeypatch.delenv("SHOAL_TLS", raising=False)
    assert Tls.from_environment() is None
    monkeypatch.setenv("SHOAL_TLS", str(place))
    assert Tls.from_environment() == Tls.of(place)


def test_what_an_authority_makes_is_closed_to_others_and_short_lived(certificates):
    place = certificates.of("api").certificate.parent
    assert stat.S_IMODE((place / "tls.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((place.parent / "authority" / "ca.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE((place.parent / "authority").stat().st_mode) == 0o700
    assert [each.name for each in sorted(place.iterdir())] == ["ca.crt", "tls.crt", "tls.key"]
    assert os.listdir(place.parent / "authority") != []  # noqa: PTH208 - with what is hidden
