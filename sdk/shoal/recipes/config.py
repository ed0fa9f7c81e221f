"""Configuration that all replicas share and that changes while they run, for blocking code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, Generic, Self

from shoal.directory import Directory
from shoal.errors import ConfigError, CoordinationError, CoordinationTimeoutError
from shoal.recipes.configcodec import Anything, Codec, M
from shoal.recipes.configfollow import Change, Follower, Listener
from shoal.recipes.confighistory import Revision
from shoal.recipes.configscripts import Expected, Stored
from shoal.recipes.configstate import Reading, Source
from shoal.recipes.desk import Desk
from shoal.recipes.steps import Script, T

__all__ = ["Anything", "Config", "Reading", "Revision", "Source", "Stored"]


class Config(Generic[M]):
    """A typed document below the directory's chroot, followed as it changes.

        class Limits(pydantic.BaseModel):
            calls: int = pydantic.Field(64, ge=1, le=10_000)

        with shoal.Config(directory, "limits", Limits) as config:
            while config.value.calls > busy(): ...

    `value` is always there and never waits: the document's, from the moment that ZooKeeper has
    told it; until then that of the last run on this machine, or the model's defaults. A document
    that is not valid never takes the place of one that is: the last good one holds, and `problem`
    says so. Documents are written with `set`, `update` and `rollback`, or by ``shoal config``; each
    write is a version with its writer and reason, of which the last 32 are kept.

    Args:
        directory: Whose session, chroot and cache.
        name: The document's node is ``/config/NAME``.
        model: A pydantic model, all of whose fields have defaults.
        defaults: What this process sets where the document does not.
        on_problem: Called with each new problem, on a thread that it must not block.

    Raises:
        ConfigInvalidError: the model wants a field that has no default.
        ValueError: the name can't be a node's.
        DirectoryClosedError: the directory was closed.
    """

    def __init__(
        self,
        directory: Directory,
        name: str,
        model: type[M],
        *,
        defaults: M | None = None,
        on_problem: Callable[[str], object] | None = None,
    ) -> None:
        self.name = name
        self._directory = directory
        self._follower = Follower(
            directory, name, Codec(name, model, defaults), on_problem=on_problem
        )
        self._follower.begin()

    def __repr__(self) -> str:
        return f"<Config {self.name} {self._follower.reading}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def value(self) -> M:
        """What holds now."""
        return self._follower.current().value

    @property
    def reading(self) -> Reading[M]:
        """What holds now, its version, where it is from, and what is wrong."""
        return self._follower.current()

    @property
    def problem(self) -> str | None:
        """Why the newest document is not the one that holds; None when it is."""
        return self.reading.problem

    def describe(self) -> str:
        """For a person: what holds, where it is from, and how ZooKeeper is."""
        return self._follower.describe()

    def subscribe(self, listener: Listener[M]) -> Callable[[], None]:
        """Calls ``listener`` with each new `Reading`, and at once with the current one.

        On a thread of the directory's that it must not block. Of several quick changes it hears the
        last for certain. Returns what ends it.
        """
        return self._follower.subscribe(listener)

    def wait(self, timeout: float = 10.0, *, version: int | None = None) -> Reading[M]:
        """Waits for ZooKeeper's answer, or until a version, or a later one, was seen.

        Raises:
            TimeoutError: not within ``timeout`` seconds; says what holds, and how ZooKeeper is.
        """
        there = threading.Event()

        def look(reading: Reading[M]) -> None:
            if seen(reading, version):
                there.set()

        end = self.subscribe(look)
        try:
            if not there.wait(timeout):
                raise CoordinationTimeoutError(
                    f"config {self.name!r} was not read: {self.describe()}"
                )
        finally:
            end()
        return self.reading

    def fetch(self, timeout: float = 10.0) -> Stored:
        """The document as it lies in ZooKeeper now, valid or not.

        Raises:
            CoordinationError: ZooKeeper does not tell within ``timeout`` seconds.
        """
        return self._run(self._follower.stored, timeout, writing=False)

    def set(
        self,
        content: M | Mapping[str, Any],
        *,
        why: str = "",
        who: str = "",
        expected: Expected = "any",
        timeout: float = 10.0,
    ) -> int:
        """Writes the whole document; returns its version.

        Of a model, the fields that were set are written; the others keep following its defaults.

        Args:
            content: The document.
            why: For whoever reads the history.
            who: Likewise; by default user@host.
            expected: The version on which it is based; None: there must be no document yet. "any"
                overwrites whatever there is.
            timeout: Seconds.

        Raises:
            ConfigInvalidError: the document is not valid; nothing was written.
            ConfigConflictError: the version is another one; nothing was written.
            CoordinationError: ZooKeeper refuses it, or does not answer in time: then it may have
                been written or not.
        """
        draft = self._follower.draft(content, who, why)
        return self._run(lambda desk: self._follower.write(desk, draft, expected), timeout)

    def update(self, change: Change, *, why: str = "", who: str = "", timeout: float = 10.0) -> int:
        """Reads the document, has it changed and writes it, anew when another was quicker.

        Args:
            change: Gets the fields that the document sets, and returns what it is to be. It may be
                called several times, on a thread that it must not block.
            why: For whoever reads the history.
            who: Likewise.
            timeout: Seconds.

        Raises:
            ConfigInvalidError: what comes out is not valid; or a field is there already that this
                process's model does not know: change it with newer code.
            CoordinationError: as with `set`.
        """
        return self._run(lambda desk: self._follower.update(desk, change, who, why), timeout)

    def history(self, timeout: float = 10.0) -> list[Revision]:
        """The versions that are kept, oldest first, the current one last.

        Raises:
            CoordinationError: ZooKeeper does not tell within ``timeout`` seconds.
        """
        return self._run(self._follower.history, timeout, writing=False)

    def rollback(
        self,
        version: int | None = None,
        *,
        why: str = "",
        who: str = "",
        expected: Expected = "any",
        timeout: float = 10.0,
    ) -> int:
        """Writes anew what a version had; returns the new version.

        Args:
            version: Which; None: the one before the current one.
            why: For whoever reads the history.
            who: Likewise.
            expected: The version that is current.
            timeout: Seconds.

        Raises:
            ConfigError: that version is not kept.
            ConfigInvalidError: it is not valid for today's model.
            ConfigConflictError: another wrote meanwhile.
            CoordinationError: as with `set`.
        """
        return self._run(
            lambda desk: self._follower.rollback(desk, version, who, why, expected), timeout
        )

    def close(self) -> None:
        """Follows no more; `value` stays what it was. Idempotent."""
        self._follower.stop()

    def _run(
        self, script: Callable[[Desk], Script[T]], timeout: float, *, writing: bool = True
    ) -> T:
        desk = self._directory.desk()
        if self._directory.on_own_thread():
            raise ConfigError(
                f"config {self.name!r} can't be awaited in a callback, on the directory's own"
                " thread: hand it over to another one"
            )
        steps = desk.run(script(desk))
        try:
            return steps.outcome.result(timeout)
        except (TimeoutError, CancelledError) as error:
            raise unanswered(
                self.name, timeout, self._directory.describe(), writing=writing
            ) from error
        finally:
            if not steps.outcome.done():
                desk.worker.call_soon(steps.stop)


def seen(reading: Reading[Any], version: int | None) -> bool:
    """Whether ZooKeeper has told of a version, or of anything when it is None."""
    if version is None:
        return reading.source is Source.ZOOKEEPER or reading.problem is not None
    return reading.newest is not None and reading.newest >= version


def unanswered(name: str, timeout: float, state: str, *, writing: bool) -> CoordinationError:
    """The error for what took too long."""
    told = f"config {name!r}: no answer within {timeout:g} s, ZooKeeper is {state}"
    if writing:
        told += ". What was to be written may have been, or not: look before you write again"
    return CoordinationTimeoutError(told)
