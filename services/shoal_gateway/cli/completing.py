"""What a shell completes: names out of the local fleet. Quick, and silent whatever is wrong.

A local fleet's file says what it consists of, so most of it takes no call. Jobs are asked of the
fleet, the newest ones, with little patience.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from shoal_gateway.cli.toprows import BY_NAME
from shoal_gateway.fleet.names import SERVICES

# Newest jobs that are offered.
JOBS = 50
# Seconds for the fleet to tell of them.
PATIENCE = 1.0

Item = TypeVar("Item")
Completer = Callable[[Any, str], list[Item]]


def _silent(find: Callable[[Path], Iterable[Item]]) -> Completer[Item]:
    """What is found and begins as typed; nothing where anything is wrong."""

    def complete(ctx: Any, incomplete: str) -> list[Item]:
        found: list[Item] = []
        with contextlib.suppress(Exception), _hushed():
            for each in find(_fleet(ctx)):
                name = each[0] if isinstance(each, tuple) else each
                if str(name).startswith(incomplete):
                    found.append(each)
        return found

    return complete


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Nothing is said on standard error, by no library either: it would land in the prompt."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _fleet(ctx: Any) -> Path:
    """The local fleet's directory, by the options that stand before the command."""
    while ctx.parent is not None:
        ctx = ctx.parent
    return Path(ctx.params.get("fleet") or os.environ.get("SHOAL_FLEET", ".shoal"))


def _state(fleet: Path) -> dict[str, Any]:
    # Read as it lies: the classes that check it take longer to import than a finger rests on Tab.
    found: dict[str, Any] = json.loads((fleet / "fleet.json").read_text(encoding="utf-8"))
    return found


def _replicas(fleet: Path) -> Iterator[tuple[str, str]]:
    state = _state(fleet)
    for name, each in state["replicas"].items():
        yield name, f"{each['service']} on {each['host']}"
    for name in state["hosts"]:
        yield name, "all on this host"


def _services(_fleet: Path) -> Iterable[str]:
    return SERVICES


def _releases(fleet: Path) -> Iterable[str]:
    return sorted(each.name for each in (fleet / "releases").iterdir() if each.is_dir())


def _states(_fleet: Path) -> Iterable[str]:
    from shoal_protos.gateway.model.v1 import job_pb2

    names = job_pb2.State.keys()
    return [each.removeprefix("STATE_").lower() for each in names if "UNSPECIFIED" not in each]


def _jobs(fleet: Path) -> Iterator[tuple[str, str]]:
    from shoal_gateway.cli.context import Where
    from shoal_gateway.client import state_name

    _state(fleet)  # there is one
    with Where(fleet).gateway() as gateway:
        for each in islice(gateway.jobs(timeout=PATIENCE), JOBS):
            yield each.id, f"{each.spec.application} {state_name(each.state)}"


def _applications(fleet: Path) -> Iterator[tuple[str, str]]:
    import tomllib

    # The latest of several versions describes them all.
    found: dict[str, str] = {}
    for path in sorted((fleet / "catalogue").rglob("*.toml")):
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        found[document["name"]] = str(document.get("description", ""))
    yield from found.items()


replicas = _silent(_replicas)
services = _silent(_services)
releases = _silent(_releases)
states = _silent(_states)
jobs = _silent(_jobs)
applications = _silent(_applications)
columns = _silent(lambda _: BY_NAME)
