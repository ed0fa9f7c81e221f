"""What a token looks like, and what is no token."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_gateway import tokens


def test_a_new_token_is_read_back_and_shows_its_secret_in_no_representation():
    fresh = tokens.new()
    read = tokens.bearer(f"Bearer {fresh.text}")
    assert read == fresh
    assert fresh.text[23:] not in repr(fresh)
    assert len(fresh.digest) == 32


def test_no_two_are_alike():
    assert len({tokens.new().text for _ in range(1000)}) == 1000


def test_the_digest_is_that_of_the_secret_alone():
    fresh = tokens.new(lambda count: bytes(range(count)))
    assert fresh.id == "0001020304050607"
    assert fresh.digest == hashlib.sha256(bytes(range(32))).digest()


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        lambda text: text[:-1],
        lambda text: text + "A",
        lambda text: text.replace("shoal", "shark"),
        lambda text: f" {text}",
        lambda text: text + "\n",
    ],
)
def test_what_is_not_quite_a_token_is_none(change):
    assert tokens.parse(change(tokens.new().text)) is None


def test_of_the_texts_for_one_secret_one_is_taken():
    fresh = tokens.new(bytes)
    assert fresh.text.endswith("A")
    assert tokens.parse(fresh.text[:-1] + "B") is None


@given(st.text())
def test_any_other_text_is_none(text):
    assert tokens.bearer(text) is None
