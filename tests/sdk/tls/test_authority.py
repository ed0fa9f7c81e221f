"""The development authority: what it issues, and what it refuses."""

from __future__ import annotations

import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

import shoal
from shoal.authority import DAY, Authority, described
from shoal.identity import PeerIdentity
from shoal.tls import Tls, TlsFiles


def loaded(place):
    return x509.load_pem_x509_certificate((place / "tls.crt").read_bytes())


def test_a_services_certificate_serves_and_calls(certificates):
    made = loaded(certificates.of("registry").certificate.parent)
    assert isinstance(made.public_key().curve, ec.SECP256R1)
    usage = made.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    extended = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(extended) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_users_certificate_only_calls(certificates):
    made = loaded(certificates.user("alice").certificate.parent)
    extended = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(extended) == {ExtendedKeyUsageOID.CLIENT_AUTH}
    assert described(certificates.authority.directory / "alice.users").identity == PeerIdentity(
        "alice", user=True
    )


def test_no_serial_number_comes_twice(certificates):
    serials = {loaded(certificates.of("api").certificate.parent).serial_number for _ in range(5)}
    assert len(serials) == 5


def test_no_certificate_outlives_its_authority(tmp_path):
    authority = Authority.create(tmp_path / "certs", days=3.0)
    place = authority.issue(PeerIdentity("api"), days=30.0)
    assert described(place).not_after == authority.own().not_after


def test_an_expired_authority_issues_nothing(tmp_path):
    authority = Authority.create(tmp_path / "certs", days=3.0, now=time.time() - 4 * DAY)
    with pytest.raises(shoal.TlsError, match="the authority has expired"):
        authority.issue(PeerIdentity("api"))


def test_there_is_one_authority_in_a_directory(certificates):
    with pytest.raises(shoal.TlsError, match="already"):
        Authority.create(certificates.authority.directory)


def test_without_an_authority_nothing_is_issued(tmp_path):
    with pytest.raises(shoal.TlsError, match="make one with `shoal certs init"):
        Authority(tmp_path / "none").issue(PeerIdentity("api"))


@pytest.mark.parametrize("name", ["", "a.b", "../x", "*", "-x", "a" * 64, "käse", "a b", "users."])
def test_a_name_that_can_not_stand_in_a_certificate_is_refused(certificates, name):
    with pytest.raises(ValueError, match="can't stand in a certificate"):
        certificates.authority.issue(PeerIdentity(name))


def test_the_common_name_is_the_whole_name_for_zookeeper_compares_it(certificates):
    longest = "a" * (64 - len(".shoal.internal"))
    made = loaded(certificates.of(longest).certificate.parent)
    assert made.subject.rfc4514_string() == f"CN={longest}.shoal.internal"
    with pytest.raises(ValueError, match="has 65 characters, and a common name at most 64"):
        certificates.of(f"{longest}a")


def test_a_certificate_holds_for_some_time(certificates):
    with pytest.raises(ValueError, match="positive number of days"):
        certificates.authority.issue(PeerIdentity("api"), days=0.0)


def test_what_is_trusted_while_an_authority_is_rolled(certificates):
    authority = certificates.authority
    tls = certificates.of("api")

    def trusted():
        return len(x509.load_pem_x509_certificates(tls.authorities.read_bytes()))

    old = authority.own()
    assert trusted() == 1
    authority.roll()
    assert (trusted(), authority.rolling) == (2, True)
    # What was issued before still holds, and what is issued now too.
    TlsFiles(tls)
    assert described(authority.directory / "api").issuer == old.issuer
    with pytest.raises(shoal.TlsError, match=r"api .* still of the former authority"):
        authority.finish()
    with pytest.raises(shoal.TlsError, match="is not finished"):
        authority.roll()
    certificates.of("api")
    assert described(authority.directory / "api").issuer == authority.own().issuer != old.issuer
    authority.finish()
    assert (trusted(), authority.rolling) == (1, False)
    TlsFiles(tls)


def test_a_roll_that_was_interrupted_is_put_back_by_a_finish(certificates, monkeypatch):
    authority = certificates.authority
    tls = certificates.of("api")
    tell = Authority._tell

    def interrupted(self, bundle):
        tell(self, bundle)
        raise KeyboardInterrupt

    monkeypatch.setattr(Authority, "_tell", interrupted)
    with pytest.raises(KeyboardInterrupt):
        authority.roll()
    monkeypatch.setattr(Authority, "_tell", tell)
    TlsFiles(tls)
    authority.finish()
    assert len(x509.load_pem_x509_certificates(tls.authorities.read_bytes())) == 1
    TlsFiles(tls)


def test_a_finish_that_was_interrupted_can_be_repeated(certificates, monkeypatch):
    authority = certificates.authority
    tls = certificates.of("api")
    authority.roll()
    certificates.of("api")

    def interrupted(self, bundle):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(Authority, "_tell", interrupted)
        with pytest.raises(KeyboardInterrupt):
            authority.finish()
    authority.finish()
    assert len(x509.load_pem_x509_certificates(tls.authorities.read_bytes())) == 1


def test_an_authority_signs_no_names_of_the_world(certificates):
    """A stolen one is no danger to other domains."""
    elsewhere = Authority(certificates.authority.directory, domain="example.org")
    tls = Tls.of(elsewhere.issue(PeerIdentity("api")), domain="example.org")
    with pytest.raises(shoal.TlsError, match="does not hold for those who trust"):
        TlsFiles(tls)
