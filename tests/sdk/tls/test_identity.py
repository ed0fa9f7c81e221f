"""Names in certificates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.identity import DOMAIN, PeerIdentity, identity_in, server_name

names = st.from_regex(r"[a-z0-9]([a-z0-9_-]{0,20}[a-z0-9])?", fullmatch=True)


def test_a_service_and_a_user_of_one_name_are_two():
    assert server_name("registry") == "registry.shoal.internal"
    assert PeerIdentity("registry", user=True).dns_name() == "registry.users.shoal.internal"
    assert str(PeerIdentity("api")) == "service 'api'"
    assert str(PeerIdentity("alice", user=True)) == "user 'alice'"


@given(names, st.booleans())
def test_there_and_back(name, user):
    identity = PeerIdentity(name, user)
    assert identity_in([identity.dns_name()]) == identity


@pytest.mark.parametrize(
    "name",
    [
        "",
        DOMAIN,
        f".{DOMAIN}",
        "registry",
        "registry.example.org",
        f"registry.{DOMAIN}.example.org",
        f"registryx{DOMAIN}",
        f"*.{DOMAIN}",
        f"a.b.{DOMAIN}",
        f"a.users.users.{DOMAIN}",
        f".users.{DOMAIN}",
    ],
)
def test_other_names_are_nobodys(name):
    assert identity_in([name]) is None


def test_names_outside_of_the_domain_are_passed_over():
    found = identity_in(["localhost", "registry.shoal.internal"])
    assert found == PeerIdentity("registry")


@given(st.lists(st.text()))
def test_any_names_are_somebodys_or_nobodys(given_names):
    found = identity_in(given_names)
    assert found is None or found.dns_name() in [name.lower() for name in given_names]
