"""Versions and ranges of them, as PEP 440 and semver write both.

A replica announces any string; a range says which of them a caller takes. The order is PEP 440's:
release, then ``dev`` before ``a`` before ``b`` before ``rc`` before the release itself before
``post``. Pre-releases in semver's spelling (``2.0.0-rc.1``) fall in line with it, and their further
identifiers are compared as semver says: numbers by value and before words. What follows a ``+`` is
a build and has no order. Where the two differ, ``1.0-1`` is semver's pre-release, not PEP 440's
post-release.

Sources: PEP 440; semver 2.0.0, 9–11; npm's ranges for ``^`` and ``~``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

EXAMPLES = "give one like '>=1.2,<2', '==1.4.2', '1.4.*', '~=1.4', '^1.4.2' or '~1.4.2'"

_VERSION = re.compile(
    r"v?(?P<release>\d+(?:\.\d+)*)"
    # Possessive: a text that does not fit is found out in one pass.
    r"(?P<rest>(?:[-._]?(?:[a-z]++|\d++))*+)"
    r"(?:\+(?P<build>[0-9a-z]+(?:[-_.][0-9a-z]+)*))?",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"[a-z]+|\d+")
# A release of several hundred digits is no version, and costs time.
_LONGEST = 128
_WORDS = {"a": "alpha", "b": "beta", "c": "rc", "pre": "rc", "preview": "rc"}
_NUMBERED = frozenset({"alpha", "beta", "rc"})
_POST = frozenset({"post", "rev", "r"})

# One identifier, so that numbers come before words and each is compared with its like.
_Identifier = tuple[int, int, str]
_Key = tuple[tuple[int, ...], int, tuple[_Identifier, ...], int, float]


@dataclass(frozen=True, slots=True)
class Version:
    """A version that can be compared by its ``key``.

    Attributes:
        release: Its numbers, as written.
        pre: Whether it comes before its release.
        post: Whether it comes after it.
        dev: Whether it is on the way to what the rest of it says.
        build: What stands behind ``+``, in lower case.
        key: Orders versions; equal for equal versions, whatever their build.
    """

    release: tuple[int, ...]
    pre: bool
    post: bool
    dev: bool
    build: str
    key: _Key

    @classmethod
    def parse(cls, text: str) -> Version | None:
        """The version in ``text``; None when there is none to be read."""
        text = text.strip()
        found = _VERSION.fullmatch(text) if len(text) <= _LONGEST else None
        if found is None:
            return None
        release = tuple(int(part) for part in found["release"].split("."))
        words = _TOKEN.findall(found["rest"].lower())
        identifiers: list[_Identifier] = []
        post, dev = -1, float("inf")
        while words:
            word = _WORDS.get(words[0], words[0])
            del words[0]
            number = int(words[0]) if words and words[0].isdigit() else None
            if word in _POST or word == "dev":
                if number is not None:
                    del words[0]
                if word == "dev":
                    dev = number or 0
                else:
                    post = number or 0
            elif word.isdigit():
                identifiers.append((0, int(word), ""))
            else:
                identifiers.append((1, 0, word))
        if identifiers and identifiers[-1][2] in _NUMBERED:
            identifiers.append((0, 0, ""))  # PEP 440: 1.0a is 1.0a0
        stage = 1 if identifiers else 2
        if not identifiers and post < 0 and dev < float("inf"):
            stage = 0
        pre = bool(identifiers) or dev < float("inf")
        key = (_trimmed(release), stage, tuple(identifiers), post, dev)
        return cls(release, pre, post >= 0, dev < float("inf"), (found["build"] or "").lower(), key)

    def comes_after(self, other: Version) -> bool:
        """Whether it is a post-release of another that is none: 1.7.post1 of 1.7."""
        return self.post and not other.post and not other.dev and self.key[:3] == other.key[:3]

    def comes_before(self, other: Version) -> bool:
        """Whether it is a pre-release of another that is none: 2rc1 of 2."""
        if other.pre or not self.pre or self.key[0] != other.key[0]:
            return False
        return not other.post or self.key[1:4] == other.key[1:4]


@dataclass(frozen=True, slots=True)
class Clause:
    """One condition of a range.

    Attributes:
        operator: As written; "==" where there was none.
        text: What stands behind it.
        version: The same, read.
        prefix: Whether ``text`` ended in ``.*``.
    """

    operator: str
    text: str
    version: Version
    prefix: bool = False

    def matches(self, text: str, version: Version) -> bool:
        """Whether a version, also given as it was announced, fulfils it."""
        own = self.version
        match self.operator:
            case "==":
                return self._equal(text, version)
            case "!=":
                return not self._equal(text, version)
            case ">=":
                return version.key >= own.key
            case "<=":
                return version.key <= own.key
            case ">":
                # 1.7.post1 is no other release than 1.7.
                return version.key > own.key and not version.comes_after(own)
            case "<":
                # Who wants less than 2 does not want a candidate of 2.
                return version.key < own.key and not version.comes_before(own)
            case "~=":
                return version.key >= own.key and _starts(version.release, own.release[:-1])
            case _:
                return version.key >= own.key and _trimmed(version.release) < self._end()

    def _equal(self, text: str, version: Version) -> bool:
        if self.prefix:
            return _starts(version.release, self.version.release)
        if self.version.build and self.version.build != version.build:
            return False
        return text == self.text or version.key == self.version.key

    def _end(self) -> tuple[int, ...]:
        """The release at which ``^`` or ``~`` ends."""
        release = self.version.release
        if self.operator == "~":
            last = min(1, len(release) - 1)
        else:
            # The first number that is not 0 is the one whose change breaks.
            last = next((at for at, part in enumerate(release) if part), len(release) - 1)
        return (*release[:last], release[last] + 1)


@dataclass(frozen=True, slots=True)
class VersionRange:
    """Which versions a caller takes.

    ``>=1.2,<2``: clauses with commas between, all of which must hold. Operators are ``==`` (also
    when there is none: a pin), ``!=``, ``>=``, ``<=``, ``>``, ``<``, PEP 440's ``~=``, npm's ``^``
    and ``~``; ``1.4.*`` after ``==`` and ``!=``; ``*`` is every version that can be read.

    A pre-release is taken only where a clause names one: who asks for ``>=1.2`` is no tester. A
    version that can't be read is taken by a pin of that very text alone.

    >>> VersionRange.parse(">=1.2,<2").allows("1.10.0")
    True
    """

    text: str
    clauses: tuple[Clause, ...]
    exact: str | None = None

    @classmethod
    def parse(cls, text: str) -> VersionRange:
        """Reads a range.

        Raises:
            ValueError: it can't be read; says what it should look like.
        """
        if not text.strip():
            raise ValueError(f"{text!r} is no version range: {EXAMPLES}")
        text = text.strip()
        parts = [part.strip() for part in text.split(",")]
        if len(parts) == 1:
            if text == "*":
                return cls(text, ())
            pinned = text.removeprefix("==").strip()
            if text.startswith("==") and Version.parse(pinned.removesuffix(".*")) is None:
                return cls(text, (), pinned)
        return cls(text, tuple(_clause(part, text) for part in parts))

    def __str__(self) -> str:
        return self.text

    def allows(self, version: str) -> bool:
        """Whether it takes a version, as a replica announces it."""
        return self.why_not(version) is None

    def why_not(self, version: str) -> str | None:
        """Why it does not take a version, to follow the version in a sentence; None if it does."""
        if self.exact is not None:
            return None if version == self.exact else f"is not '{self.exact}'"
        read = Version.parse(version)
        if read is None:
            return f"can't be compared with '{self.text}'"
        if not all(clause.matches(version, read) for clause in self.clauses):
            return f"is not in '{self.text}'"
        if read.pre and not any(_names_pre(clause) for clause in self.clauses):
            return f"is a pre-release, and '{self.text}' names none"
        return None


def is_range(text: str) -> bool:
    """Whether a text is meant as a range, and not as a version as replicas announce it."""
    return text[:1] in "=!<>~^*" or text.endswith((".*", ".x", ".X"))


def _clause(part: str, whole: str) -> Clause:
    found = re.fullmatch(r"(==|!=|>=|<=|~=|>|<|\^|~)?\s*(\S+)", part)
    if found is None:
        raise ValueError(f"'{part}' in '{whole}' can't be read as a version range: {EXAMPLES}")
    operator, text = found[1] or "==", found[2]
    prefix = text.endswith((".*", ".x", ".X"))
    version = Version.parse(text[:-2] if prefix else text)
    if version is None:
        raise ValueError(f"'{text}' in '{whole}' is no version: {EXAMPLES}")
    if prefix and (operator not in ("==", "!=") or version.pre or version.post or version.build):
        raise ValueError(f"'{part}' in '{whole}': a '.*' goes with '==' or '!=', and with numbers")
    if operator == "~=" and len(version.release) < 2:
        raise ValueError(f"'{part}' in '{whole}': '~=' needs two numbers, like '~=1.4'")
    return Clause(operator, text, version, prefix)


def _names_pre(clause: Clause) -> bool:
    return clause.version.pre and clause.operator != "!="


def _trimmed(release: tuple[int, ...]) -> tuple[int, ...]:
    """Without trailing zeros: 1.2 and 1.2.0 are one version."""
    end = len(release)
    while end > 1 and release[end - 1] == 0:
        end -= 1
    return release[:end]


def _starts(release: tuple[int, ...], prefix: tuple[int, ...]) -> bool:
    return (*release, *(0 for _ in prefix))[: len(prefix)] == prefix
