"""Public keys as documents, and when each holds."""

import base64
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import KeyFormatError
from shoal.recipes.keydocs import PublicKey, Standing, check_id, decode, encode, key_id

RAW = bytes(range(32))
KEY = PublicKey("alice", RAW, not_before=100.0, not_after=200.0, comment="laptop")

times = st.none() | st.floats(0.0, 1e11)
keys = st.builds(
    PublicKey,
    owner=st.just("alice"),
    raw=st.binary(min_size=32, max_size=32),
    not_before=st.floats(0.0, 1e11),
    not_after=times,
    revoked_at=times,
    why=st.text(),
    comment=st.text(),
)


@given(keys)
def test_a_key_comes_back_as_it_was_written(key):
    assert decode("alice", key.id, encode(key)) == key


@pytest.mark.parametrize(
    ("now", "standing"),
    [
        (99.9, Standing.EARLY),
        (100.0, Standing.VALID),
        (199.9, Standing.VALID),
        (200.0, Standing.EXPIRED),
    ],
)
def test_it_holds_from_its_beginning_until_before_its_end(now, standing):
    assert KEY.standing(now) is standing
    assert replace(KEY, not_after=None).standing(1e12) is Standing.VALID


@given(keys, st.floats(0.0, 1e11))
def test_a_revoked_key_never_holds_and_stays_revoked(key, now):
    revoked = key.revoked(now, "lost")
    assert revoked.standing(now) is Standing.REVOKED
    assert revoked.standing(0.0) is Standing.REVOKED
    assert revoked.revoked(now + 1.0, "again") == revoked
    assert revoked.ending(now).standing(now) is Standing.REVOKED


@given(keys, st.floats(0.0, 1e11))
def test_an_end_only_comes_nearer(key, at):
    end = key.ending(at).not_after
    assert end <= at
    assert key.not_after is None or end <= key.not_after


def document(**changes):
    return json.dumps({**json.loads(encode(KEY)), **changes}).encode()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "a JSON object is needed"),
        (document(format=2), "format and algorithm"),
        (document(algorithm="rsa"), "format and algorithm"),
        (document(public="%"), "must be base64"),
        (document(public=None), "must be base64"),
        (document(public="AAAA"), "must be 32 bytes, not 3"),
        (document(public=base64.b64encode(bytes(32)).decode()), "not what its name says"),
        (document(not_after="2030"), "'not_after' must be seconds"),
        (document(not_before=True), "'not_before' must be seconds"),
        (document(revoked_at="yes"), "'revoked_at' must be seconds"),
        (document(not_after=float("nan")), "'not_after' must be seconds"),
        (document(not_after=float("inf")), "'not_after' must be seconds"),
    ],
)
def test_what_is_not_understood_makes_no_key(data, why):
    with pytest.raises(KeyFormatError, match=why):
        decode("alice", KEY.id, data)


@given(st.binary(max_size=200) | st.text().map(lambda text: json.dumps([text]).encode()))
def test_no_bytes_do_anything_else(data):
    with pytest.raises(KeyFormatError):
        decode("alice", KEY.id, data)


def test_ids_are_of_the_key_and_nothing_else():
    assert key_id(RAW) == KEY.id == replace(KEY, owner="bob", not_after=None).id
    assert key_id(RAW) != key_id(RAW[::-1])
    assert check_id(KEY.id) == KEY.id
    for wrong in ("", KEY.id[:-1], KEY.id.upper(), KEY.id + "\n", "../" + KEY.id):
        with pytest.raises(ValueError, match="no key's id"):
            check_id(wrong)
