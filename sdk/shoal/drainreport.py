"""What a drain saw, by name: whether anybody was cut off, and whom to ask about it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True, order=True)
class Caller:
    """A calling channel.

    Attributes:
        id: What it said hello with: program, host, process and channel.
        peer: Its connection, as grpc names peers.
    """

    id: str
    peer: str


@dataclass(frozen=True, slots=True)
class DrainReport:
    """What a drain saw.

    Attributes:
        confirmed: Callers that moved away and said so.
        silent: Callers that had said hello, still had a connection, and did not say goodbye in
            time.
        gone: Callers whose connection ended without a goodbye: their process died.
        unknown: Connections that never said hello (plain grpc clients, grpcurl, probes), as grpc
            names peers.
        refused: Calls that were turned away.
        unfinished: Calls that were cut off at the end of the grace.
        seconds: How long it took.
    """

    confirmed: tuple[Caller, ...] = ()
    silent: tuple[Caller, ...] = ()
    gone: tuple[Caller, ...] = ()
    unknown: tuple[str, ...] = ()
    refused: int = 0
    unfinished: int = 0
    seconds: float = 0.0

    @classmethod
    def of(
        cls,
        *,
        confirmed: Mapping[str, str],
        silent: Mapping[str, str],
        gone: Mapping[str, str],
        unknown: Iterable[str],
        **facts: Any,
    ) -> Self:
        """From callers' ids and peers; the order is theirs, not that of chance."""
        return cls(
            confirmed=_callers(confirmed),
            silent=_callers(silent),
            gone=_callers(gone),
            unknown=tuple(sorted(unknown)),
            **facts,
        )

    def __str__(self) -> str:
        parts = [
            f"{len(self.confirmed)} confirmed",
            _named("silent", (f"{each.id} at {each.peer}" for each in self.silent)),
            _named("gone", (f"{each.id} at {each.peer}" for each in self.gone)),
            _named("unknown", self.unknown),
        ]
        return (
            f"drained in {self.seconds:.2f} s: callers {', '.join(parts)}; "
            f"calls {self.refused} refused, {self.unfinished} cut off"
        )

    def to_json(self, **also: str) -> str:
        """All of it on one line, callers by name.

        Args:
            also: Put before it: whose report it is.
        """
        return json.dumps({**also, **asdict(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str | bytes) -> Self:
        """What `to_json` wrote; other keys are passed over.

        Raises:
            ValueError: it is no report.
        """
        facts = json.loads(line)
        try:
            return cls(
                confirmed=tuple(Caller(**each) for each in facts["confirmed"]),
                silent=tuple(Caller(**each) for each in facts["silent"]),
                gone=tuple(Caller(**each) for each in facts["gone"]),
                unknown=tuple(facts["unknown"]),
                refused=facts["refused"],
                unfinished=facts["unfinished"],
                seconds=facts["seconds"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"{line!r} is no report of a drain: {error!r}") from error


def _callers(peers: Mapping[str, str]) -> tuple[Caller, ...]:
    return tuple(sorted(Caller(each, peer) for each, peer in peers.items()))


def _named(what: str, names: Iterable[str]) -> str:
    found = list(names)
    return f"{len(found)} {what}" + (f" ({', '.join(found)})" if found else "")
