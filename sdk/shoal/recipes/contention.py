"""One contender for a lock: stands in line, holds, and takes its node away in the end.

What kazoo's lock leaves open is closed here: a create whose answer was lost is found again, a node
is never left behind while its session lives (kazoo#732), and whoever lost the session is told so.
"""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Callable
from concurrent.futures import Future

from kazoo.exceptions import (
    ConnectionDropped,
    ConnectionLoss,
    KazooException,
    NoNodeError,
    OperationTimeoutError,
    RequestTimeoutError,
    SessionExpiredError,
    SessionMovedError,
    ThrottledOpError,
)

from shoal.errors import CoordinationError, LockTakenError
from shoal.recipes import places
from shoal.recipes.desk import Desk
from shoal.recipes.steps import Bell, Script, Steps
from shoal.recipes.tenure import Tenure

logger = logging.getLogger(__name__)

# What passes by itself: whether the request was carried out isn't known.
PASSING = (
    ConnectionDropped,
    ConnectionLoss,
    OperationTimeoutError,
    RequestTimeoutError,
    SessionExpiredError,
    SessionMovedError,
    ThrottledOpError,
)
# Before the next try after one of them: doubled from the first to the last, ±50 %, seconds.
AGAIN_FIRST, AGAIN_LAST = 0.05, 2.0


class Contention:
    """One try to hold something, from the create of its node to the node's end.

    Args:
        desk: Of the process.
        path: Parent of the contenders' nodes, chroot included.
        who: Written into the node, for whoever asks who holds it.
        wait: Whether to wait in line; else `LockTakenError` when somebody is there already.
        lost: Told once, on the desk's thread, when what was held is lost, and why.
        rng: Spreads repetitions.

    Attributes:
        outcome: The tenure. It may stay undecided for as long as ZooKeeper is away.
        ahead: How many stood before it when it last looked.
        holder: What the one right before it has written into its node.
    """

    def __init__(
        self,
        desk: Desk,
        path: str,
        who: bytes = b"",
        *,
        wait: bool = True,
        lost: Callable[[str], None] = lambda _reason: None,
        rng: random.Random | None = None,
    ) -> None:
        self.outcome: Future[Tenure] = Future()
        # Whoever waits may leave; the outcome is ours to decide all the same.
        self.outcome.set_running_or_notify_cancel()
        self.ahead = 0
        self.holder = b""
        self._desk = desk
        self._path = path
        self._who = who
        self._wait = wait
        self._lost = lost
        self._rng = rng or random.Random()  # noqa: S311 - it spreads load, it keeps no secret
        # The prefix of its node's name, and the session that it was made in.
        self._prefix = ""
        self._session: int | None = None
        self._tenure: Tenure | None = None
        self._gone: Future[None] | None = None
        self._guarding: Steps[None] | None = None
        self._contending = desk.run(self._contend())
        self._contending.outcome.add_done_callback(self._decided)

    def leave(self) -> Future[None]:
        """Gives up, waiting or holding; done when the node is gone. For any thread; idempotent."""
        if self._tenure is not None:
            self._tenure.end()
        if self._gone is None:
            gone: Future[None] = Future()
            gone.set_running_or_notify_cancel()
            self._gone = gone
            if self._desk.closed:
                gone.set_result(None)  # with the session
            else:
                self._desk.worker.call_soon(lambda: self._leave(gone))
        return self._gone

    # All below runs on the desk's thread.

    def _decided(self, done: Future[Tenure]) -> None:
        if done.cancelled():
            self.outcome.set_exception(CoordinationError(f"{self._path}: the wait was given up"))
            return
        error = done.exception()
        if error is None:
            self.outcome.set_result(done.result())
            return
        self.outcome.set_exception(error)
        if not self._desk.closed:
            self.leave()

    def _leave(self, gone: Future[None]) -> None:
        self._contending.stop()
        if self._guarding is not None:
            self._guarding.stop()
        if self._tenure is not None:
            self._tenure.end()
            self._desk.leave(self._tenure)
        removing = self._desk.run(self._remove())

        def removed(done: Future[None]) -> None:
            error = None if done.cancelled() else done.exception()
            if error is not None and not self._desk.closed:
                logger.error("%s: a node was left behind: %r", self._path, error)
            gone.set_result(None)

        removing.outcome.add_done_callback(removed)

    def _contend(self) -> Script[Tenure]:
        tries = 0
        while True:
            yield from self._desk.until_connected()
            try:
                tenure = yield from self._stand_in_line()
            except (*PASSING, _NotOursError) as error:
                logger.info("%s: looking again after %r", self._path, error)
                tries += 1
                yield self._pause(tries)
            except KazooException as error:
                raise CoordinationError(
                    f"{self._path} can't be had: ZooKeeper says {error!r}; may this process create"
                    " nodes there?"
                ) from error
            else:
                return tenure

    def _stand_in_line(self) -> Script[Tenure]:
        client = self._desk.client
        yield from self._make_node()
        while True:
            place = yield from self._look()
            if place is None:
                raise _NotOursError(self._path)
            for extra in place.extras:
                yield from self._delete(extra)
            self.ahead = place.ahead
            if place.before is None:
                return (yield from self._take(place.mine))
            bell = Bell()
            try:
                # get and not exists, which would leave a watch behind on a node that is gone.
                self.holder, _ = yield client.get_async(
                    f"{self._path}/{place.before}", watch=bell.ring
                )
            except NoNodeError:
                continue
            if not self._wait:
                raise LockTakenError(self._path, self.holder)
            yield bell

    def _make_node(self) -> Script[None]:
        session = self._desk.session.session_id
        if session is None:
            raise ConnectionLoss
        if self._prefix and session == self._session:
            # An earlier create may have worked, unheard; the sync makes this server know it.
            yield self._desk.client.sync_async(self._path)
            if (yield from self._look()) is not None:
                return
        else:
            # A node of a former session is somebody else's: it will go, and we would with it.
            self._prefix = places.prefix_of(uuid.uuid4().hex)
            self._session = session
        yield self._desk.client.create_async(
            f"{self._path}/{self._prefix}", self._who, ephemeral=True, sequence=True, makepath=True
        )

    def _look(self) -> Script[places.Place | None]:
        try:
            names = yield self._desk.client.get_children_async(self._path)
        except NoNodeError:
            return None
        return places.find(names, self._prefix)

    def _take(self, name: str) -> Script[Tenure]:
        """It is our turn; the node itself says under which fence, and whether it is ours still."""
        bell = Bell()
        path = f"{self._path}/{name}"
        # Our server may lag behind the others, who ended our session and let the next one in.
        result, until = self._desk.proof(path)
        (checked,) = yield result
        if isinstance(checked, NoNodeError):
            raise _NotOursError(path) from checked
        if checked is not True:
            raise checked
        try:
            _, stat = yield self._desk.client.get_async(path, watch=bell.ring)
        except NoNodeError as error:
            raise _NotOursError(path) from error
        if stat.ephemeralOwner != self._session or stat.ephemeralOwner != (
            self._desk.session.session_id
        ):
            self._prefix = ""
            raise _NotOursError(path)
        tenure = self._tenure = Tenure(
            path,
            stat.czxid,
            stat.ephemeralOwner,
            until(),
            clock=self._desk.clock,
            told=self._told,
        )
        self._desk.enter(tenure)
        self._guarding = self._desk.run(self._guard(tenure, bell))
        return tenure

    def _guard(self, tenure: Tenure, bell: Bell) -> Script[None]:
        """Somebody may delete the node, to break the lock; a watch is gone after a reconnect."""
        while True:
            yield bell
            yield from self._desk.until_connected()
            bell = Bell()
            try:
                yield self._desk.client.get_async(tenure.path, watch=bell.ring)
            except NoNodeError:
                tenure.lose("its node was deleted")
                return
            except PASSING:
                yield self._pause(1)
                bell.ring()

    def _told(self, reason: str) -> None:
        # On any thread. The node may be there still, and would keep others waiting.
        def lost() -> None:
            self._desk.leave(self._tenure)  # type: ignore[arg-type]  # it is what was lost
            self.leave()
            self._lost(reason)

        self._desk.worker.call_soon(lost)

    def _remove(self) -> Script[None]:
        """Sees to it that no node of ours is left; its session's end does, too."""
        tries = 0
        while self._prefix:
            yield from self._desk.until_connected()
            if self._desk.session.session_id != self._session:
                return
            try:
                if tries or self._tenure is None:
                    # A create may be on its way, or done and its answer lost.
                    yield self._desk.client.sync_async(self._path)
                    place = yield from self._look()
                    found = () if place is None else (place.mine, *place.extras)
                else:
                    found = (self._tenure.path.rpartition("/")[2],)
                for name in found:
                    yield from self._delete(name)
            except PASSING:
                tries += 1
                yield self._pause(tries)
            else:
                return

    def _delete(self, name: str) -> Script[None]:
        try:
            yield self._desk.client.delete_async(f"{self._path}/{name}")
        except NoNodeError:
            logger.debug("%s/%s was gone already", self._path, name)

    def _pause(self, tries: int) -> float:
        longest = min(AGAIN_LAST, AGAIN_FIRST * 2.0 ** min(tries, 10))
        return longest * self._rng.uniform(0.5, 1.5)


class _NotOursError(Exception):
    """The node is gone, or belongs to a session that ours has replaced: start anew."""
