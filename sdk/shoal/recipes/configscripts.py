"""How a document is read and written in ZooKeeper: scripts for both shells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from kazoo.exceptions import (
    BadVersionError,
    ConnectionClosedError,
    ConnectionLoss,
    KazooException,
    NodeExistsError,
    NoNodeError,
    OperationTimeoutError,
    RolledBackError,
    RuntimeInconsistency,
    SessionExpiredError,
)

from shoal.directory import check_name
from shoal.errors import ConfigConflictError, CoordinationError
from shoal.recipes.confighistory import (
    Draft,
    Plan,
    Revision,
    entries,
    entry_name,
    planned,
    revision,
    unsigned,
)
from shoal.recipes.desk import Desk
from shoal.recipes.steps import Script, T

# After these nobody knows whether a request was carried out.
UNSURE = (ConnectionLoss, ConnectionClosedError, SessionExpiredError, OperationTimeoutError)
# Pause after one of them, seconds; a wait for the connection comes on top.
PAUSE = 0.1
# Races that a write which may overwrite anything loses before it gives up.
RACES = 100

Expected = int | Literal["any"] | None


@dataclass(frozen=True, slots=True)
class Stored:
    """A document as it lies in ZooKeeper.

    Attributes:
        version: The token for compare-and-set; None: there is no document.
        data: The bytes; empty without a document.
        when: Seconds since 1970, by ZooKeeper's clock; 0 without a document.
    """

    version: int | None
    data: bytes = b""
    when: float = 0.0


def config_path(name: str) -> str:
    """Where a document lies, below the chroot.

    Raises:
        ValueError: the name can't be a node's.
    """
    check_name(name)
    return f"/config/{name}"


def stored(desk: Desk, path: str) -> Script[Stored]:
    """The document as it is now, whatever server we are connected to.

    Raises:
        CoordinationError: ZooKeeper refuses it.
    """
    return (yield from _persistent(desk, path, lambda: _stored(desk, path)))


def history(desk: Desk, path: str) -> Script[list[Revision]]:
    """All versions that are kept, oldest first; empty without a document.

    Raises:
        CoordinationError: ZooKeeper refuses it.
    """
    return (yield from _persistent(desk, path, lambda: _history(desk, path)))


def write(desk: Desk, path: str, draft: Draft, expected: Expected) -> Script[int]:
    """Writes a document and its entry in the history, both or none; returns the version.

    An answer that was lost is looked for in the history, so that nothing is written twice.

    Args:
        desk: The process's.
        path: Of the document.
        draft: What to write.
        expected: The version that it must have until then (None: that there is no document), or
            "any".

    Raises:
        ConfigConflictError: it has another version.
        CoordinationError: ZooKeeper refuses it.
    """
    tried: set[int] = set()
    for _ in range(RACES):
        plan = yield from _persistent(desk, path, lambda: _prepared(desk, path, draft, tried))
        if plan.entry == "":
            return plan.version
        current = plan.version - 1 if plan.version else None
        if expected not in ("any", current):
            raise ConfigConflictError(path, expected, current)  # type: ignore[arg-type]  # not "any"
        tried.add(plan.version)
        try:
            if (yield from _committed(desk, path, draft, plan)):
                return plan.version
        except UNSURE:
            yield PAUSE
    raise CoordinationError(f"{path}: {RACES} times in a row others wrote first; try again later")


def _persistent(desk: Desk, path: str, make: Callable[[], Script[T]]) -> Script[T]:
    """Does what may be done twice, again after each loss of the connection."""
    while True:
        yield from desk.until_connected()
        try:
            return (yield from make())
        except UNSURE:
            yield PAUSE
        except KazooException as error:
            raise CoordinationError(f"{path} could not be read or prepared: {error!r}") from error


def _stored(desk: Desk, path: str) -> Script[Stored]:
    # A server may lag behind what a person has just been told elsewhere.
    yield desk.client.sync_async(path)
    try:
        data, stat = yield desk.client.get_async(path)
    except NoNodeError:
        return Stored(None)
    return Stored(stat.version, data, stat.mtime / 1000.0)


def _history(desk: Desk, path: str) -> Script[list[Revision]]:
    current = yield from _stored(desk, path)
    if current.version is None:
        return []
    children = yield desk.client.get_children_async(path)
    asked = [
        (version, desk.client.get_async(f"{path}/{entry_name(version)}"))
        for version in entries(children)
    ]
    told = []
    for version, result in asked:
        try:
            data, stat = yield result
        except NoNodeError:
            continue  # Dropped meanwhile.
        told.append(revision(version, stat.ctime / 1000.0, data))
    if all(each.version != current.version for each in told):
        told.append(unsigned(current.version, current.when, current.data))
    return sorted(told, key=lambda each: each.version)


def _prepared(desk: Desk, path: str, draft: Draft, tried: set[int]) -> Script[Plan]:
    """The plan for the next try; one without an entry when an earlier try was carried out."""
    current = yield from _stored(desk, path)
    if current.version is None:
        yield desk.client.ensure_path_async(path.rpartition("/")[0])
        return planned(None, ())
    for version in sorted(tried):
        try:
            data, stat = yield desk.client.get_async(f"{path}/{entry_name(version)}")
        except NoNodeError:
            continue
        if revision(version, stat.ctime / 1000.0, data).id == draft.id:
            return Plan(version, "", ())
    children = yield desk.client.get_children_async(path)
    return planned(current.version, entries(children))


def _committed(desk: Desk, path: str, draft: Draft, plan: Plan) -> Script[bool]:
    """Whether it was carried out; False: something has changed since it was planned."""
    request = desk.client.transaction()
    if plan.version == 0:
        request.create(path, draft.data)
    else:
        request.set_data(path, draft.data, version=plan.version - 1)
    request.create(f"{path}/{plan.entry}", draft.entry())
    for name in plan.drop:
        request.delete(f"{path}/{name}")
    try:
        answers = yield request.commit_async()
    except UNSURE:
        raise
    except KazooException as error:
        raise CoordinationError(f"{path} could not be written: {error!r}") from error
    for index, answer in enumerate(answers):
        if not isinstance(answer, Exception):
            continue
        if isinstance(answer, RolledBackError | RuntimeInconsistency):
            continue  # Not why it failed: what stood before or after that.
        if index == 1 and isinstance(answer, NodeExistsError):
            raise CoordinationError(
                f"{path}/{plan.entry} is in the way of the next version's entry; nothing of ours"
                " puts a node there, delete it"
            ) from answer
        if isinstance(answer, BadVersionError | NodeExistsError | NoNodeError):
            return False
        raise CoordinationError(f"{path} could not be written: {answer!r}") from answer
    return True
