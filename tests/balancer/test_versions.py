"""Versions and ranges, against PEP 440's own implementation, and against semver's examples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import Specifier
from packaging.version import Version as Pep440

from shoal_balancer.versions import Version, VersionRange

NUMBERS = st.integers(0, 12)
RELEASES = st.lists(NUMBERS, min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
PRES = st.sampled_from(["", "a1", "b2", "rc1", "rc12", "a", "-alpha.3"])
POSTS = st.sampled_from(["", "", ".post1", ".post"])
DEVS = st.sampled_from(["", "", ".dev3", ".dev"])
BUILDS = st.sampled_from(["", "", "", "+build.7"])


@st.composite
def versions(draw, builds=BUILDS):
    parts = (draw(each) for each in (RELEASES, PRES, POSTS, DEVS, builds))
    return "".join(parts)


@given(versions(), versions())
def test_versions_are_in_the_order_of_pep_440(one, other):
    ours, theirs = Version.parse(one), Version.parse(other)
    # A build has no order for us.
    a, b = Pep440(Pep440(one).public), Pep440(Pep440(other).public)
    assert (ours.key < theirs.key) == (a < b)
    assert (ours.key == theirs.key) == (a == b)
    assert ours.pre == a.is_prerelease


@given(versions(), versions(st.just("")), st.sampled_from(["==", "!=", ">=", "<=", ">", "<", "~="]))
def test_clauses_mean_what_pep_440_says(version, bound, operator):
    if operator == "~=" and len(Version.parse(bound).release) < 2:
        bound = f"1.{bound}"
    clause = VersionRange.parse(operator + bound).clauses[0]
    told = clause.matches(version, Version.parse(version))
    assert told == Specifier(operator + bound).contains(version, prereleases=True)


@given(versions(), RELEASES, st.sampled_from(["==", "!="]))
def test_prefixes_mean_what_pep_440_says(version, prefix, operator):
    clause = VersionRange.parse(f"{operator}{prefix}.*").clauses[0]
    told = clause.matches(version, Version.parse(version))
    assert told == Specifier(f"{operator}{prefix}.*").contains(version, prereleases=True)


def test_pre_releases_are_in_the_order_of_semver():
    # semver 2.0.0, 11.4.
    told = ["alpha", "alpha.1", "alpha.beta", "beta", "beta.2", "beta.11", "rc.1"]
    keys = [Version.parse(f"1.0.0-{each}").key for each in told] + [Version.parse("1.0.0").key]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)
    assert Version.parse("v1.0.0-rc.1+5.sha").key == Version.parse("1.0rc1").key


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (">=1.2,<2", "1.2 1.2.0 1.10 v1.9.9 1.5+abc", "1.1.9 2 2.0.0 2.0rc1 1.5rc1 unknown"),
        ("==1.4.2", "1.4.2 1.4.2.0 1.4.2+linux", "1.4.3 1.4.2rc1 1.4"),
        ("1.4.2", "1.4.2", "1.4.3"),
        ("==1.4.2+linux", "1.4.2+linux", "1.4.2 1.4.2+mac"),
        ("1.4.*", "1.4 1.4.0 1.4.17", "1.5 1.40 1.4.1rc1"),
        ("1.4.x, !=1.4.3", "1.4.2 1.4.4", "1.4.3"),
        ("~=1.4", "1.4 1.9", "1.3 2.0"),
        ("~=1.4.2", "1.4.2 1.4.9", "1.5 1.4.1"),
        ("^1.4.2", "1.4.2 1.9", "1.4.1 2 2.0.0-rc.1"),
        ("^0.2.3", "0.2.3 0.2.9", "0.3 0.2.2"),
        ("^0.0.3", "0.0.3", "0.0.4"),
        ("^0", "0 0.9", "1"),
        ("~1.4.2", "1.4.2 1.4.9", "1.5"),
        ("~1", "1.0 1.9", "2.0"),
        (">=2.0rc1", "2.0rc1 2.0-rc.2 2.0 3.0a1", "2.0b9"),
        (">1.7", "1.8 1.7.1", "1.7 1.7.post1"),
        ("*", "0.1 99", "unknown 2.0rc1"),
        ("==unknown", "unknown", "1.0 unknown2"),
    ],
)
def test_ranges(text, inside, outside):
    wanted = VersionRange.parse(text)
    assert [each for each in inside.split() if not wanted.allows(each)] == []
    assert [each for each in outside.split() if wanted.allows(each)] == []
    assert not wanted.allows("")
    assert str(wanted) == text


@pytest.mark.parametrize(
    "text", ["", "  ", ">=", ">=x", "1.2 <2", "~=1", ">=1.*", "1.4.*,", "==1.0rc1.*", "=>1", "a,b"]
)
def test_what_is_no_range_says_how_one_looks(text):
    with pytest.raises(ValueError, match=r"give one like|goes with|needs two"):
        VersionRange.parse(text)


def test_why_a_version_is_not_taken_reads_as_a_sentence():
    wanted = VersionRange.parse(">=1.2,<2")
    told = {each: wanted.why_not(each) for each in ("2.1", "1.5rc1", "unknown", "1.5")}
    assert told == {
        "2.1": "is not in '>=1.2,<2'",
        "1.5rc1": "is a pre-release, and '>=1.2,<2' names none",
        "unknown": "can't be compared with '>=1.2,<2'",
        "1.5": None,
    }


@given(st.text(max_size=20))
def test_no_announced_text_is_an_error(text):
    wanted = VersionRange.parse(">=1")
    assert wanted.allows(text) in (True, False)


@given(st.text(alphabet="=!<>~^*.,0123456789abrcx +-", max_size=12))
def test_any_text_is_a_range_or_a_value_error(text):
    try:
        wanted = VersionRange.parse(text)
    except ValueError as error:
        said, wanted = str(error), None
    if wanted is None:  # what is wrong, and what it should look like
        assert (text.strip() or repr(text)) in said
        assert "'>=1.2,<2'" in said
    elif wanted.clauses:
        again = VersionRange.parse(f"{text},{text}")
        for version in ("1.0", "2.0rc1", "unknown"):
            assert again.allows(version) == wanted.allows(version)
    else:  # any version that can be read, or a pin of what can't
        assert wanted.exact is not None or wanted.allows("1.0")
