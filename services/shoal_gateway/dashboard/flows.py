"""Who calls whom how often: out of what callers tell of those they call. Pure.

Each caller counts its attempts by replica from the moment that it knows that replica. Two tellings
of one caller make a rate; one alone makes none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from shoal_gateway.dashboard.sights import Key

# Seconds after which what a caller has told counts for nothing any more.
STALE = 15.0


class Callee(Protocol):
    """What ``shoal.v1.Callee`` holds."""

    service: str
    replica_id: str
    target: str
    calls: int
    failures: int
    in_flight: int
    latency_seconds: float
    ejected: bool

    def HasField(self, name: str) -> bool:  # noqa: N802 - protobuf's name
        """Whether the latency is set."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Calls from one replica to another.

    Attributes:
        caller: Who calls.
        callee: Who is called.
        rate: Attempts that ended, a second.
        failures: Those of them that speak against the callee, a second.
        in_flight: Calls begun and not ended.
        latency: The caller's estimate, seconds; None where it has none.
        ejected: Whether the caller sends it nothing for now.
    """

    caller: Key
    callee: Key
    rate: float
    failures: float
    in_flight: int
    latency: float | None
    ejected: bool


@dataclass(frozen=True, slots=True)
class _Count:
    target: str
    calls: int
    failures: int


class Flows:
    """The flows of a fleet, by what its replicas tell. One thread tells it."""

    def __init__(self) -> None:
        self._counts: dict[Key, dict[Key, _Count]] = {}
        self._told_at: dict[Key, float] = {}
        self._flows: dict[Key, tuple[Flow, ...]] = {}

    def tell(self, caller: Key, callees: Iterable[Callee], at: float) -> None:
        """Takes what a caller tells, at a time in monotonic seconds."""
        counts: dict[Key, _Count] = {}
        flows: list[Flow] = []
        before = self._counts.get(caller)
        seconds = at - self._told_at.get(caller, at)
        for each in callees:
            key = (each.service, each.replica_id)
            count = counts[key] = _Count(each.target, each.calls, each.failures)
            calls, failures = (0, 0)
            if before is not None:
                calls, failures = _since(before.get(key), count)
            flows.append(
                Flow(
                    caller,
                    key,
                    calls / seconds if seconds > 0.0 else 0.0,
                    failures / seconds if seconds > 0.0 else 0.0,
                    each.in_flight,
                    each.latency_seconds if each.HasField("latency_seconds") else None,
                    each.ejected,
                )
            )
        self._counts[caller], self._told_at[caller] = counts, at
        self._flows[caller] = tuple(flows)

    def forget(self, caller: Key) -> None:
        """A caller is gone, or has started anew."""
        for table in (self._counts, self._told_at, self._flows):
            table.pop(caller, None)

    def current(self, now: float) -> list[Flow]:
        """All flows that were told of lately."""
        return [
            flow
            for caller, flows in self._flows.items()
            if now - self._told_at[caller] <= STALE
            for flow in flows
        ]


def ejectors(flows: Iterable[Flow]) -> dict[Key, list[str]]:
    """For each replica that somebody has ejected: who, as ``id``."""
    found: dict[Key, list[str]] = {}
    for flow in flows:
        if flow.ejected:
            found.setdefault(flow.callee, []).append(flow.caller[1])
    return {key: sorted(names) for key, names in found.items()}


@dataclass(frozen=True, slots=True)
class Total:
    """Flows added up.

    Attributes:
        rate: Attempts a second.
        failures: Those that failed, a second.
        in_flight: Calls begun and not ended.
        latency: Mean of the callers' estimates by their rates, seconds; None without calls.
    """

    rate: float
    failures: float
    in_flight: int
    latency: float | None


def total(flows: Iterable[Flow]) -> Total:
    """Adds flows up."""
    rate = failures = weight = weighted = 0.0
    in_flight = 0
    for flow in flows:
        rate += flow.rate
        failures += flow.failures
        in_flight += flow.in_flight
        if flow.latency is not None and flow.rate > 0.0:
            weight += flow.rate
            weighted += flow.rate * flow.latency
    return Total(rate, failures, in_flight, weighted / weight if weight else None)


def between_services(flows: Iterable[Flow]) -> Mapping[tuple[str, str], Total]:
    """From each service to each that it calls."""
    groups: dict[tuple[str, str], list[Flow]] = {}
    for flow in flows:
        groups.setdefault((flow.caller[0], flow.callee[0]), []).append(flow)
    return {key: total(group) for key, group in sorted(groups.items())}


def to_replicas(flows: Iterable[Flow]) -> Mapping[Key, Total]:
    """To each replica from all that call it."""
    groups: dict[Key, list[Flow]] = {}
    for flow in flows:
        groups.setdefault(flow.callee, []).append(flow)
    return {key: total(group) for key, group in groups.items()}


def _since(before: _Count | None, now: _Count) -> tuple[int, int]:
    """New calls and failures; from nothing where the caller has begun to count anew."""
    if before is None or before.target != now.target or now.calls < before.calls:
        return now.calls, now.failures
    return now.calls - before.calls, max(0, now.failures - before.failures)
