"""Rendezvous: one side says something, the other waits for it; either may come first."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from kazoo.exceptions import NoNodeError

from shoal.directory import Directory, check_name
from shoal.errors import CoordinationError, CoordinationTimeoutError
from shoal.recipes.desk import Desk
from shoal.recipes.kept import KEEPER, Kept, read
from shoal.recipes.steps import Bell, Script
from shoal.recipes.waits import patient, wait

# Longest wait for a node to go, seconds.
GOODBYE = 5.0


def meeting_path(name: str) -> str:
    """Where the node of a meeting point is, below the chroot.

    Raises:
        ValueError: the name can't be a node's.
    """
    check_name(name)
    return f"/meetings/{name}"


def heard(desk: Desk, path: str) -> Script[dict[str, Any]]:
    """What was said at a meeting point, as soon as somebody has."""

    def attempt() -> Script[dict[str, Any]]:
        while True:
            bell = Bell()
            # exists and not get: the watch must be there when the node comes, too.
            if (yield desk.client.exists_async(path, watch=bell.ring)) is not None:
                try:
                    data, _ = yield desk.client.get_async(path)
                except NoNodeError:
                    continue  # It went between the two.
                facts = read(data)
                facts.pop(KEEPER, None)
                return facts
            yield bell
            yield from desk.until_connected()

    return (yield from patient(desk, path, attempt))


class MeetingPoint:
    """A place where one process says what others need to know, whoever is there first.

        with shoal.MeetingPoint(directory, "job-42").post({"address": "10.0.0.5:7000"}):
            work()

        facts = shoal.MeetingPoint(directory, "job-42").wait(timeout=30.0)

    What is posted is there while who posted it lives and keeps it: an ephemeral node, made again
    after a lost session.

    Args:
        directory: Whose session and chroot.
        name: Of the place; its node is ``/meetings/NAME``.
    """

    def __init__(self, directory: Directory, name: str) -> None:
        self._path = meeting_path(name)
        self.name = name
        self._directory = directory

    def post(self, facts: Mapping[str, Any], timeout: float | None = None) -> Posted:
        """Says something; returns when ZooKeeper has it.

        Args:
            facts: As JSON can hold them.
            timeout: Seconds; None: for as long as ZooKeeper is away.

        Raises:
            CoordinationError: somebody else, who lives, has posted there already.
            CoordinationTimeoutError: ZooKeeper did not take it in time.
        """
        return Posted(self._directory, self._path, facts, timeout)

    def wait(self, timeout: float | None = None) -> dict[str, Any]:
        """What was said there, as soon as somebody has.

        Raises:
            CoordinationTimeoutError: nobody had within ``timeout`` seconds.
        """
        return wait(
            self._directory,
            f"the wait at meeting point {self.name!r}",
            lambda desk: heard(desk, f"{desk.chroot}{self._path}"),
            timeout,
        )


class Posted:
    """What one process keeps saying, until `withdraw` or the end of its ``with`` block."""

    def __init__(
        self, directory: Directory, path: str, facts: Mapping[str, Any], timeout: float | None
    ) -> None:
        desk = directory.desk()
        self._kept = Kept(desk, f"{desk.chroot}{path}", facts)
        try:
            wait_for(directory, self._kept, timeout)
        except BaseException:
            give_up(directory, self._kept)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.withdraw()

    def withdraw(self, timeout: float = GOODBYE) -> bool:
        """Takes it back; whether it was gone within ``timeout`` seconds. Idempotent."""
        try:
            self._kept.leave().result(timeout)
        except TimeoutError:
            return False
        return True


def give_up(directory: Directory, kept: Kept) -> None:
    """Takes a kept node away and waits until it is gone: whoever looks next must not count it.

    At most `GOODBYE` seconds; not at all while ZooKeeper is away, for then it can't go.
    """
    gone = kept.leave()
    waits = directory.connected and not directory.on_own_thread()
    with contextlib.suppress(TimeoutError):
        gone.result(GOODBYE if waits else 0.0)


def wait_for(directory: Directory, kept: Kept, timeout: float | None) -> None:
    """Waits until a kept node is there.

    Raises:
        CoordinationTimeoutError: it took longer than ``timeout`` seconds.
        CoordinationError: it can't be, or somebody else has it.
    """
    if directory.on_own_thread():
        raise CoordinationError(f"{kept.path} can't be awaited on the directory's own thread")
    try:
        kept.there.result(timeout)
    except TimeoutError as error:
        raise CoordinationTimeoutError(
            f"{kept.path} was not there after {timeout or 0.0:g} s; ZooKeeper is "
            f"{directory.describe()}"
        ) from error
