"""Private keys in files, and what a signature is under."""

import os
import stat

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import KeyFileError
from shoal.signing import Signer, signed_bytes, verifies


def seeded(seed=1):
    return Signer(ed25519.Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


def test_a_signature_is_under_one_message_in_one_domain_by_one_key():
    signer = seeded()
    signature = signer.sign("invoice", b"10")
    assert verifies(signer.public, "invoice", b"10", signature)
    assert not verifies(signer.public, "invoice", b"11", signature)
    assert not verifies(signer.public, "receipt", b"10", signature)
    assert not verifies(seeded(2).public, "invoice", b"10", signature)
    for broken in (b"", signature[:-1], signature[:-1] + bytes([signature[-1] ^ 1])):
        assert not verifies(signer.public, "invoice", b"10", broken)
    assert not verifies(b"short", "invoice", b"10", signature)


def test_what_is_signed_does_not_change_with_the_code():
    assert signed_bytes("d", b"m") == b"shoal signature v1\0\0\1dm"
    assert seeded().id == "08c09498338a165aa1f3fa83817a5819"


pairs = st.tuples(st.text(max_size=5), st.binary(max_size=8))


@given(pairs, pairs)
def test_no_two_pairs_of_domain_and_message_are_the_same_bytes(one, other):
    assert (signed_bytes(*one) == signed_bytes(*other)) == (one == other)


def test_a_file_is_for_its_owner_alone_and_never_overwritten(tmp_path):
    path, signer = tmp_path / "new" / "alice.pem", seeded()
    before = os.umask(0)
    try:
        signer.save(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert Signer.load(path).id == signer.id
    with pytest.raises(KeyFileError, match="there is a private key"):
        seeded(2).save(path)
    assert Signer.load(path).id == signer.id
    seeded(2).save(path, replace=True)
    assert Signer.load(path).id == seeded(2).id
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_others_may_read_is_not_used(tmp_path):
    path = tmp_path / "alice.pem"
    seeded().save(path)
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(KeyFileError, match=rf"others may read .* \(mode {mode:04o}\)"):
            Signer.load(path)


def test_what_is_no_such_key_is_told(tmp_path):
    path = tmp_path / "alice.pem"
    with pytest.raises(KeyFileError, match="can't be read"):
        Signer.load(path)
    path.touch(mode=0o600)
    with pytest.raises(KeyFileError, match="no private key in PEM"):
        Signer.load(path)
    other = x25519.X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(other)
    with pytest.raises(KeyFileError, match="another kind of key"):
        Signer.load(path)
    with pytest.raises(KeyFileError, match="can't be written"):
        seeded().save(path / "below-a-file.pem")


def test_a_key_does_not_show_itself():
    assert repr(seeded()) == f"<Signer {seeded().id}>"
