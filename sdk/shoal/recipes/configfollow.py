"""Follows one document for one process: what both shells of `shoal.Config` stand on."""

from __future__ import annotations

import getpass
import logging
import os
import random
import socket
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol

from kazoo.exceptions import KazooException, NoNodeError
from kazoo.protocol.states import KazooState

from shoal import forks
from shoal.directory import Directory
from shoal.errors import ConfigConflictError, ConfigError, ConfigInvalidError
from shoal.recipes import configscripts as scripts
from shoal.recipes.configcache import ConfigCache
from shoal.recipes.configcodec import Codec, M
from shoal.recipes.confighistory import KEEP, Draft, Revision
from shoal.recipes.configscripts import Expected
from shoal.recipes.configstate import Observed, Reading, Source, following
from shoal.recipes.desk import Desk
from shoal.recipes.steps import Bell, Script, Steps

logger = logging.getLogger(__name__)

# Between looks without an event, seconds, ±20 %: should a watch ever be lost, its news are not.
RESYNC = 120.0
# After an answer that says nothing about the document, seconds.
AGAIN = 1.0
# Before it is said that ZooKeeper has not answered yet, seconds.
SILENT = 5.0
# Races that `update` loses before it gives up.
RACES = 20

Change = Callable[[dict[str, Any]], "Mapping[str, Any] | Any"]


class Listener(Protocol[M]):
    """Who wants to hear of readings."""

    def __call__(self, reading: Reading[M], /) -> object:
        """It must not block."""


class Follower(Generic[M]):
    """Holds what is known of a document, looks again at each change, and tells listeners.

    It looks on the thread of the recipes. Each look sets the watch for the next change before it
    reads, so that the last of several quick changes is always seen; those before it may not be.

    Args:
        directory: Whose session, chroot and cache.
        name: The document's.
        codec: Its model.
        on_problem: Called with each new problem.
        rng: Spreads looks over time.
    """

    def __init__(
        self,
        directory: Directory,
        name: str,
        codec: Codec[M],
        *,
        on_problem: Callable[[str], object] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.name = name
        self.path = scripts.config_path(name)
        self.codec = codec
        self.directory = directory
        self._on_problem = on_problem
        self._rng = rng or random.Random()  # noqa: S311 - it spreads load, it keeps no secret
        self._cache = ConfigCache(directory.cache_dir, directory.hosts, name)
        self._listeners: list[Listener[M]] = []
        self._stopped = False
        self._age = 0.0
        self._steps: Steps[None] | None = None
        self._desk: Desk | None = None
        self.reading: Reading[M] = Reading(codec.defaults, None, Source.DEFAULTS)
        self._begin_process()
        self._load()
        forks.on_fork(self)

    def current(self) -> Reading[M]:
        """What holds; in a forked child it begins to look there."""
        if self._steps is None and not self._stopped:
            self.begin()
        return self.reading

    def begin(self) -> None:
        """Begins to look, in the background.

        Raises:
            DirectoryClosedError: the directory was closed.
        """
        desk = self.directory.desk()
        with self._lock:
            if self._steps is not None or self._stopped:
                return
            self._desk = desk
            self._steps = desk.run(self._follow(desk))
        desk.worker.call_later(SILENT, self._say_silence)

    def stop(self) -> None:
        """Looks no more; what holds is kept."""
        with self._lock:
            self._stopped = True
            steps, self._steps = self._steps, None
            self._listeners.clear()
        if steps is not None and self._desk is not None:
            self._desk.worker.call_soon(steps.stop)

    def subscribe(self, listener: Listener[M]) -> Callable[[], None]:
        """Calls ``listener`` with each new reading, and at once with the current one."""
        with self._lock:
            self._listeners.append(listener)
            self._tell(listener, self.reading)

        def unsubscribe() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return unsubscribe

    def draft(
        self, content: M | Mapping[str, Any], who: str, why: str, restores: int | None = None
    ) -> Draft:
        """What a write needs.

        Raises:
            ConfigInvalidError: it may not be written.
        """
        return Draft(self.codec.write(content), who or myself(), why, uuid.uuid4().hex, restores)

    def write(self, desk: Desk, draft: Draft, expected: Expected) -> Script[int]:
        """Writes what was found good; returns the version."""
        return scripts.write(desk, f"{desk.chroot}{self.path}", draft, expected)

    def stored(self, desk: Desk) -> Script[scripts.Stored]:
        """The document as it lies there."""
        return scripts.stored(desk, f"{desk.chroot}{self.path}")

    def history(self, desk: Desk) -> Script[list[Revision]]:
        """The versions that are kept."""
        return scripts.history(desk, f"{desk.chroot}{self.path}")

    def update(self, desk: Desk, change: Change, who: str, why: str) -> Script[int]:
        """Reads, changes and writes, anew when another was quicker."""
        for _ in range(RACES):
            found = yield from self.stored(desk)
            before = self.codec.document(found.data) if found.version is not None else {}
            draft = self.draft(change(before), who, why)
            try:
                return (yield from self.write(desk, draft, found.version))
            except ConfigConflictError as error:
                lost = error
        raise lost

    def rollback(
        self, desk: Desk, version: int | None, who: str, why: str, expected: Expected
    ) -> Script[int]:
        """Writes what a version had; None: the one before the current one."""
        kept = yield from self.history(desk)
        wanted = chosen(self.name, kept, version)
        if wanted.document is None:
            raise ConfigError(
                f"version {wanted.version} of config {self.name!r} can't be read: {wanted.why}"
            )
        why = why or f"back to version {wanted.version}"
        draft = self.draft(wanted.document, who, why, wanted.version)
        # What was chosen, and what was validated, follows from the version that is current now.
        return (
            yield from self.write(desk, draft, kept[-1].version if expected == "any" else expected)
        )

    def after_fork(self) -> None:
        """In a forked child: the parent follows, and its listeners are there."""
        self._listeners = []
        self._steps = self._desk = None
        self._begin_process()

    def _begin_process(self) -> None:
        self._lock = threading.RLock()
        self._bell = Bell()

    def _load(self) -> None:
        kept = self._cache.load()
        if kept is None:
            return
        try:
            value = self.codec.read(kept.seen.data)
        except ConfigInvalidError as error:
            logger.warning("the snapshot %s is passed over: %s", self._cache.path, error)
            return
        self.reading = Reading(value, kept.seen.version, Source.DISK)
        self._age = kept.age

    def _follow(self, desk: Desk) -> Script[None]:
        path = f"{desk.chroot}{self.path}"
        client = desk.client

        # kazoo ends a watch with an event when the connection breaks; this does not rely on it.
        def changed(state: str) -> None:
            if state == KazooState.CONNECTED:
                self._bell.ring()

        client.add_listener(changed)
        try:
            self._plan_look(desk)
            while True:
                yield from desk.until_connected()
                # Before the look: whatever happens from here on rings it.
                bell = self._bell = Bell()
                try:
                    seen = yield from self._look(client, path, bell)
                except KazooException as error:
                    if desk.session.connected:
                        logger.warning("%s can't be read, trying again: %r", path, error)
                    yield AGAIN
                    continue
                self._saw(seen)
                yield bell
        finally:
            client.remove_listener(changed)

    @staticmethod
    def _look(client: Any, path: str, bell: Bell) -> Script[Observed | None]:
        try:
            data, stat = yield client.get_async(path, watch=bell.ring)
        except NoNodeError:
            if (yield client.exists_async(path, watch=bell.ring)) is not None:
                bell.ring()  # It has come meanwhile: look again at once.
            return None
        return Observed(data, stat.version)

    def _plan_look(self, desk: Desk) -> None:
        def look() -> None:
            if self._steps is not None and not self._steps.outcome.done():
                self._bell.ring()
                self._plan_look(desk)

        desk.worker.call_later(RESYNC * self._rng.uniform(0.8, 1.2), look)

    def _saw(self, seen: Observed | None) -> None:
        before = self.reading
        reading = following(before, seen, self.codec.read, self.codec.defaults)
        if reading == before:
            return
        if seen is not None and reading.problem is None:
            self._cache.save(seen)
        elif seen is None and reading.version is None:
            self._cache.forget()
        with self._lock:
            self.reading = reading
            for listener in tuple(self._listeners):
                self._tell(listener, reading)
        if reading.problem is None:
            logger.info("config %r: %s", self.name, reading)
        elif reading.problem != before.problem:
            self._complain(reading.problem)

    def _complain(self, problem: str) -> None:
        logger.warning("config %r: %s", self.name, problem)
        if self._on_problem is None:
            return
        try:
            self._on_problem(problem)
        except Exception:
            logger.exception("config %r: on_problem failed", self.name)

    def _say_silence(self) -> None:
        if self.reading.source is not Source.ZOOKEEPER and not self._stopped:
            logger.warning("config %r: %s", self.name, self.describe())

    def describe(self) -> str:
        """For a person: what holds, where it is from, and how ZooKeeper is."""
        told = str(self.reading)
        if self.reading.source is Source.DISK:
            told += f", kept {self._age:.0f} s before this process looked"
        return f"{told}; ZooKeeper is {self.directory.describe()}"

    def _tell(self, listener: Listener[M], reading: Reading[M]) -> None:
        try:
            listener(reading)
        except Exception:
            # One listener's fault must not keep the news from the others.
            logger.exception("a listener of config %r failed", self.name)


def chosen(name: str, kept: list[Revision], version: int | None) -> Revision:
    """The version of a history to go back to.

    Args:
        name: Of the document, for messages.
        kept: The history, oldest first.
        version: Which; None: the one before the current one.

    Raises:
        ConfigError: it is not there; says which are.
    """
    before = kept[:-1]
    if version is None and before:
        return before[-1]
    for each in before:
        if each.version == version:
            return each
    there = ", ".join(str(each.version) for each in before) or "none"
    what = f"version {version}" if version is not None else "earlier version"
    raise ConfigError(
        f"config {name!r} has no {what} to go back to: there are {there}, and the last {KEEP}"
        " are kept"
    )


def myself() -> str:
    """Who writes unless told otherwise: user@host."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = f"uid{os.getuid()}"
    return f"{user}@{socket.gethostname()}"[:200]
