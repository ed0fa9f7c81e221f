"""An ephemeral node that is there for as long as its owner wants, over lost sessions too."""

from __future__ import annotations

import contextlib
import json
import logging
import uuid
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from kazoo.exceptions import KazooException, NodeExistsError, NoNodeError

from shoal.errors import CoordinationError
from shoal.recipes.contention import PASSING
from shoal.recipes.desk import Desk
from shoal.recipes.steps import Bell, Script
from shoal.recipes.waits import patient, pause

logger = logging.getLogger(__name__)

# By this a node of a former session of ours is known from somebody else's.
KEEPER = "kept_by"


def read(data: bytes) -> dict[str, Any]:
    """What a kept node says; empty where it is not one of ours."""
    try:
        facts = json.loads(data)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


class Kept:
    """One such node.

    Args:
        desk: Of the process.
        path: Chroot included.
        facts: What it says; as JSON.
        per_session: The node's name ends with the session's id, so that one that is made again
            after a lost session is another one.

    Attributes:
        there: Done when it is there for the first time; `CoordinationError` when somebody else
            has a node of this name.
    """

    def __init__(
        self, desk: Desk, path: str, facts: Mapping[str, Any], *, per_session: bool = False
    ) -> None:
        self.there: Future[None] = Future()
        self.there.set_running_or_notify_cancel()
        self.path = path
        self._desk = desk
        self._per_session = per_session
        self._node = path
        self._keeper = uuid.uuid4().hex
        self._data = json.dumps({**facts, KEEPER: self._keeper}, sort_keys=True).encode()
        self._gone: Future[None] | None = None
        self._keeping = desk.run(self._keep())
        self._keeping.outcome.add_done_callback(self._ended)

    def leave(self) -> Future[None]:
        """Takes it away; done when it is gone, or will go with the session. Idempotent."""
        if self._gone is None:
            gone: Future[None] = Future()
            gone.set_running_or_notify_cancel()
            self._gone = gone
            if self._desk.closed:
                gone.set_result(None)
            else:
                self._desk.worker.call_soon(lambda: self._leave(gone))
        return self._gone

    def arrived(self) -> Script[None]:
        """Part of a script: waits until it is there for the first time.

        Raises:
            CoordinationError: as of `there`.
        """
        bell = Bell()
        self.there.add_done_callback(bell.ring)
        yield bell
        self.there.result()

    # All below runs on the desk's thread.

    @property
    def name(self) -> str:
        """Of the node that was made last."""
        return self._node.rpartition("/")[2]

    def settle(self) -> None:
        """Makes it no more: from now on it goes with the session that it belongs to."""
        self._keeping.stop()

    def _ended(self, done: Future[None]) -> None:
        if self.there.done():
            return
        error = None if done.cancelled() else done.exception()
        self.there.set_exception(error or CoordinationError(f"{self.path} was given up"))

    def _leave(self, gone: Future[None]) -> None:
        self._keeping.stop()
        removing = self._desk.run(self._remove())
        removing.outcome.add_done_callback(lambda _done: gone.set_result(None))

    def _keep(self) -> Script[None]:
        tries = 0
        while True:
            yield from self._desk.until_connected()
            bell = Bell()
            try:
                ours = yield from self._look(bell)
            except PASSING as error:
                tries += 1
                logger.info("%s: looking again after %r", self.path, error)
                yield pause(tries)
                continue
            except KazooException as error:
                raise CoordinationError(
                    f"{self.path} can't be made: ZooKeeper says {error!r}; may this process create"
                    " nodes there?"
                ) from error
            if ours:
                tries = 0
                if not self.there.done():
                    self.there.set_result(None)
            elif not self.there.done():
                raise CoordinationError(
                    f"{self.path} belongs to somebody else: is the name used twice? The node of a"
                    " process that has died goes with its session, some seconds later"
                )
            else:
                logger.error("%s was taken by somebody else; waiting until it goes", self.path)
            yield bell

    def _look(self, bell: Bell) -> Script[bool]:
        """Makes the node where it is missing; whether it is ours. Rings when that may change."""
        client, session = self._desk.client, self._desk.session
        if self._per_session:
            # Not at each try: after a lost answer the node is found again by its name.
            self._node = f"{self.path}-{session.session_id or 0:x}"
        while True:
            with contextlib.suppress(NodeExistsError):
                yield client.create_async(self._node, self._data, ephemeral=True, makepath=True)
            try:
                found, stat = yield client.get_async(self._node, watch=bell.ring)
                if stat.ephemeralOwner == session.session_id:
                    if found != self._data:
                        yield client.set_async(self._node, self._data)
                    return True
                if read(found).get(KEEPER) != self._keeper:
                    return False
                # Ours, of a session that has ended: it would go with that one.
                yield client.delete_async(self._node, version=stat.version)
            except NoNodeError:
                continue  # It went between two requests.

    def _remove(self) -> Script[None]:
        def attempt() -> Script[None]:
            # A create may have gone over a connection that broke; the sync lets this server know.
            yield self._desk.client.sync_async(self.path)
            try:
                found, stat = yield self._desk.client.get_async(self._node)
                if read(found).get(KEEPER) == self._keeper:
                    yield self._desk.client.delete_async(self._node, version=stat.version)
            except NoNodeError:
                logger.debug("%s was gone already", self._node)

        yield from patient(self._desk, self.path, attempt)
