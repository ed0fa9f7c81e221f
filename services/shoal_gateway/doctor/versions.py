"""Python and packages against what this version of Shoal wants."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata

from shoal_gateway.doctor.findings import Finding, ok, problem, warning

Numbers = tuple[int, ...]
# The installed version of a package; None where it is not installed.
Installed = Callable[[str], str | None]

_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*\(?(?P<range>[^;)]*)\)?"
    r"(?:;.*extra\s*==\s*['\"](?P<extra>[^'\"]+)['\"].*)?"
)
_BOUND = re.compile(r"(>=|<=|==|!=|<|>|~=)\s*([0-9][0-9.]*)")
_TESTED = re.compile(r"Programming Language :: Python :: (3\.\d+)$")

HOW_TO_TELL = "install it: pip install shoal (or `pip install .` in a checkout)"


@dataclass(frozen=True, slots=True)
class Requirement:
    """A package that is wanted.

    Attributes:
        name: Of the package.
        bounds: Of its version: operator and version, all of which must hold.
        extra: Of ours that wants it; empty: the bare SDK.
    """

    name: str
    bounds: tuple[tuple[str, Numbers], ...]
    extra: str = ""

    @property
    def wanted(self) -> str:
        """As people write it: ``grpcio>=1.76``."""
        told = (f"{how}{'.'.join(map(str, bound))}" for how, bound in self.bounds)
        return self.name + ",".join(told)

    def met(self, version: str) -> bool:
        """Whether a version will do."""
        return all(_holds(how, numbers(version), bound) for how, bound in self.bounds)


def parsed(lines: Iterable[str]) -> tuple[Requirement, ...]:
    """Of a distribution's ``Requires-Dist``."""
    found = []
    for line in lines:
        match = _REQUIREMENT.match(line)
        if match is not None:
            bounds = _BOUND.findall(match["range"])
            told = tuple((how, numbers(version)) for how, version in bounds)
            found.append(Requirement(match["name"], told, match["extra"] or ""))
    return tuple(found)


def numbers(version: str) -> Numbers:
    """The leading numbers of a version: ``1.76.0rc1`` is 1, 76, 0."""
    found = []
    for part in version.split("."):
        match = re.match(r"\d+", part)
        if match is None:
            break
        found.append(int(match[0]))
        if match[0] != part:
            break
    return tuple(found)


def _holds(how: str, version: Numbers, bound: Numbers) -> bool:
    size = max(len(version), len(bound))
    left = version + (0,) * (size - len(version))
    right = bound + (0,) * (size - len(bound))
    match how:
        case ">=":
            return left >= right
        case "<=":
            return left <= right
        case ">":
            return left > right
        case "<":
            return left < right
        case "==":
            return left == right
        case "!=":
            return left != right
        case _:  # ~=: compatible
            return left >= right and version[: len(bound) - 1] == bound[:-1]


def python(
    version: Numbers = sys.version_info[:3], told: metadata.PackageMetadata | None = None
) -> Iterator[Finding]:
    """The interpreter."""
    facts = told if told is not None else _metadata()
    if facts is None:
        return  # `packages` says so
    shown = ".".join(map(str, version))
    wanted = _BOUND.findall(facts["Requires-Python"] or "")
    if not all(_holds(how, version, numbers(bound)) for how, bound in wanted):
        spelled = ",".join(how + bound for how, bound in wanted)
        yield problem("Python", f"{shown}; Shoal needs {spelled}", "run it with a newer Python")
        return
    classifiers = facts.get_all("Classifier") or []
    tested = [match[1] for each in classifiers if (match := _TESTED.match(each))]
    if tested and ".".join(map(str, version[:2])) not in tested:
        mend = "nothing, unless something fails that does not elsewhere"
        yield warning("Python", f"{shown}; tested are {', '.join(tested)}", mend)
        return
    yield ok("Python", shown)


def installed(name: str) -> str | None:
    """The installed version of a package; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def packages(
    requirements: Sequence[Requirement] | None = None, have: Installed = installed
) -> Iterator[Finding]:
    """The packages of the bare SDK, and extra by extra what else there is."""
    if requirements is None:
        facts = _metadata()
        if facts is None:
            found = "shoal runs from a bare path, so what it needs can't be told"
            yield warning("packages", found, HOW_TO_TELL)
            return
        requirements = parsed(facts.get_all("Requires-Dist") or [])
    for each in requirements:
        if not each.extra:
            yield _package(each, have)
    for extra in sorted({each.extra for each in requirements} - {""}):
        yield _extra(extra, [each for each in requirements if each.extra == extra], have)


def _package(wanted: Requirement, have: Installed) -> Finding:
    version = have(wanted.name)
    mend = f"pip install --upgrade '{wanted.wanted}'"
    if version is None:
        return problem(wanted.name, "is not installed", mend)
    if not wanted.met(version):
        return problem(wanted.name, f"{version}; Shoal needs {wanted.wanted}", mend)
    return ok(wanted.name, version)


def _extra(name: str, wanted: Sequence[Requirement], have: Installed) -> Finding:
    what, mend = f"shoal[{name}]", f"pip install --upgrade 'shoal[{name}]'"
    versions = {each: have(each.name) for each in wanted}
    old = [
        f"{each.name} {version} (needs {each.wanted})"
        for each, version in versions.items()
        if version is not None and not each.met(version)
    ]
    missing = [each.name for each, version in versions.items() if version is None]
    if old:
        return problem(what, f"too old: {', '.join(old)}", mend)
    if len(missing) == len(wanted):
        # Nobody needs all of them, so it is no fault.
        return ok(what, f"not installed; if you want it: pip install 'shoal[{name}]'")
    if missing:
        return warning(what, f"without {', '.join(missing)}", f"{mend}, if you use it")
    return ok(what, "installed")


def _metadata() -> metadata.PackageMetadata | None:
    try:
        return metadata.metadata("shoal")
    except metadata.PackageNotFoundError:
        return None
