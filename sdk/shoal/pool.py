"""A channel's replicas: which there are, one endpoint for each, and their goodbyes.

The pool is the part that the sync and the asyncio channel share. What differs, opening grpc
channels and talking over them, is behind `Transport` (`shoal.endpoint`). One lock holds the table
together, and what is done under it stands in one file, so that it can be read whole.
"""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any

from shoal import handshakes, orca
from shoal.contracts import ServedContract
from shoal.doors import Speaks, at_door, shut
from shoal.endpoint import CONNECTED, Endpoint, Transport
from shoal.failures import Attempt
from shoal.fitness import Fitness, Unfit, describe
from shoal.protocols import DirectoryLike
from shoal.renewal import Renewal
from shoal.tls import Material, TlsFiles
from shoal_balancer import (
    Balancer,
    Ejection,
    LoadReport,
    Node,
    Observer,
    PeakEwma,
    Policy,
    Replica,
    SlowStart,
    Subset,
)
from shoal_balancer.replica import Identity

logger = logging.getLogger(__name__)

# Each channel says its own hello and goodbye: two of one process leave a replica independently.
_numbers = itertools.count(1)

# Between looks at connections that are known to be broken, seconds. Others are not looked at: a
# call that finds one broken says so.
LOOK = 0.25

Filter = Callable[[Replica], bool]


ReplicaNode = Node[Endpoint]


class Pool:
    """Follows the directory and keeps the balancer's nodes and their endpoints in step with it.

    Args:
        directory: Where the replicas come from.
        service: Whose.
        transport: The sync or the asyncio half.
        policy: The pick; peak EWMA when None.
        ejection: When to eject; None never.
        keep: Which replicas this channel may use; all when None.
        fitness: What it asks of their versions and contracts.
        changed: Called after each new set, on the directory's thread.
        reserve: Seconds that a replica which left the directory is kept open.
        slow_start: How newcomers begin; None: at once.
        subset: Which part of a large set this channel uses; None: all of it.
        observer: Told of ends and ejections.
        retried: Told of each attempt after the first: method, number, the failed one before it.
        speaks: What its connections speak.
        files: Certificate and authorities, where they are ours; a change makes connections anew.
    """

    def __init__(
        self,
        directory: DirectoryLike,
        service: str,
        transport: Transport,
        *,
        policy: Policy | None = None,
        ejection: Ejection | None = None,
        keep: Filter | None = None,
        fitness: Fitness | None = None,
        changed: Callable[[], object],
        reserve: float = 10.0,
        slow_start: SlowStart | None = None,
        subset: Subset | None = None,
        observer: Observer | None = None,
        retried: Callable[[str, int, Attempt], object] | None = None,
        speaks: Speaks = Speaks.PLAIN,
        files: TlsFiles | None = None,
    ) -> None:
        self.directory = directory
        self.service = service
        self.transport = transport
        self.policy = policy or PeakEwma()
        self._ejection = ejection
        self._keep = keep
        self.fitness = fitness or Fitness(None, None)
        self._changed = changed
        self._reserve = reserve
        self._slow_start = slow_start
        self._subset = subset
        self._observer = observer
        self.retried = retried
        self.speaks = speaks
        self.files = files
        # Whether the policy wants what servers report; else nobody looks for it.
        self.reports: bool = getattr(self.policy, "reports", False)
        self._keys = itertools.count(1)
        self.clock = time.monotonic
        self.begin()

    def begin(self) -> None:
        """Starts, or starts anew in a forked child: no nodes, no connections."""
        self.closed = False
        # Left for good, with calls that have not ended.
        self._parting: set[ReplicaNode] = set()
        self.caller_id = f"{self.directory.caller_id}.{next(_numbers)}"
        self._unsubscribe: Callable[[], None] | None = None
        self._renewal: Renewal | None = None
        self.balancer: Balancer[Endpoint] = Balancer(
            self.policy,
            connect=lambda replica: Endpoint(self, replica),
            clock=self.clock,
            rng=random.Random(),  # noqa: S311 - no secret
            lock=threading.RLock(),
            ejection=self._ejection,
            reserve=self._reserve,
            slow_start=self._slow_start,
            observer=self._observer,
        )
        self._looking = False
        # Held while a set is judged and taken in: the directory tells of sets, and calls and
        # contracts that were read may change what is thought of the last one. And while one
        # connection takes another's place.
        self._judging = threading.RLock()
        self._judged = True
        self.fitness.begin()
        self._latest: tuple[Replica, ...] | None = None
        self.unfit: tuple[Unfit, ...] = ()
        # Whether it is known who may be called, and picks know it.
        self.known = False
        self.pick = self.balancer.pick

    def follow(self) -> None:
        """Subscribes to the directory."""
        self.watch = self.directory.watch(self.service)
        self._unsubscribe = self.watch.subscribe(self._observed)
        if self.files is not None:
            self._renewal = Renewal(self, self.files)
            self._renewal.begin()

    def material(self) -> Material | None:
        """What a connection is opened with now; None where that is not ours to know."""
        return self.files.current() if self.files is not None else None

    def succeed(self, node: ReplicaNode, endpoint: Endpoint) -> None:
        """Has calls go over another connection from now on; the old one ends with its last call."""
        # A set that is judged meanwhile would have the old one say hello again.
        with self._judging:
            taken = self.balancer.succeed(node, endpoint)
            if taken:
                node.endpoint.outlived()
                endpoint.greet()
                self._part_from([node])
        # A pool that was closed meanwhile may not have seen it.
        if not taken or self.closed:
            endpoint.release()
            self.transport.later(0.0, endpoint.close)

    def learn(self, method: str) -> None:
        """Takes in that a method is called, which replicas must have from now on."""
        asked = self.fitness.asked
        if asked is not None and asked.learn(method):
            with self._judging:
                self._judge()

    def key(self) -> int:
        """A name for a method object, to find its multi-callables by."""
        return next(self._keys)

    def forget(self, key: int) -> None:
        """A method object is gone, and nobody will ask for its multi-callables again."""
        for node in self.balancer.snapshot.everyone().values():
            node.endpoint.callables.pop(key, None)

    def take(
        self, now: float, tried: Collection[ReplicaNode] = (), key: bytes | None = None
    ) -> ReplicaNode | None:
        """A node with the call begun on it; one not in ``tried`` where there is one.

        The slow way, for everything but the first attempt of a unary call.
        """
        while True:
            node = self.pick(now, tried, key)
            if node is None:
                if not tried:
                    return None
                node = self.pick(now, (), key)
                if node is None:
                    return None
            node.begin()
            if not node.retired:
                return node
            node.abandon()

    def untried(self, now: float, tried: Collection[ReplicaNode]) -> bool:
        """Whether there is a replica that was not tried."""
        return any(node not in tried for node in self.balancer.snapshot.routable) and (
            self.pick(now, tried) is not None
        )

    def lost(self, node: ReplicaNode) -> None:
        """A call has shown that a node has no connection: it is passed over until it has one."""
        self.balancer.reach(node, reachable=False)
        self._look_again()

    def heard(self, node: ReplicaNode, trailing: Any) -> None:
        """Hands the load report in trailing metadata, if there is one, to the node's metric."""
        report = report_in(trailing)
        if report is not None:
            node.load.report(report, self.clock())

    def explained(self, details: str) -> str:
        """What grpc says of a failure, and of a failed handshake what it means."""
        return handshakes.explained(details, self.service) if self.files is not None else details

    @property
    def returning(self) -> bool:
        """Whether calls are held back, for the set was down whole and is coming back."""
        return self.balancer.snapshot.recovering is not None

    def nobody(self) -> str:
        """Why there is no replica to call, for the error's details."""
        watch = self.watch
        if self.returning:
            snapshot = self.balancer.snapshot
            within = sum(node.reachable for node in snapshot.routable)
            return (
                f"service '{self.service}' is coming back: {within} of {len(snapshot.routable)} "
                "replicas can be reached, and calls are held back so that they don't go down again"
            )
        known = watch.replicas()
        draining = sum(not replica.routable for replica in known)
        kept = sum(self._keep is None or self._keep(replica) for replica in known)
        unfit = f"; passed over: {describe(self.unfit)}" if self.unfit else ""
        return (
            f"no replica of service '{self.service}' can be called: {watch.path} lists "
            f"{len(known)}, {draining} of them draining or disabled, {kept} match this channel's "
            f"filter{unfit}; ZooKeeper: {watch.describe()}"
        )

    def close(self) -> None:
        """Stops following, says goodbye, and closes every endpoint, calls in flight included.

        The goodbyes are all under way before the transport waits, briefly, for any of them: a
        replica that hears them need not wait for us when it leaves.
        """
        if self.closed:
            return
        self.closed = True
        if self._unsubscribe is not None:
            self._unsubscribe()
        if self._renewal is not None:
            self._renewal.close()
        nodes = {
            *self._parting.copy(),
            *self.balancer.update(()),
            *self.balancer.snapshot.everyone().values(),
        }
        for node in nodes:
            node.retired = True
            node.endpoint.release()
        for node in nodes:
            node.endpoint.close()

    def _observed(self, replicas: tuple[Replica, ...]) -> None:
        with self._judging:
            self._latest = tuple(at_door(replica, self.speaks) for replica in replicas)
            self._judge()

    def _arrived(self, digest: str, found: ServedContract | str) -> None:
        self.fitness.read(digest, found)
        with self._judging:
            # What is known at once arrives while it is asked for. And what was asked for together
            # is taken in together, or all but the first would be newcomers that start slowly.
            if self._judged and not self.fitness.reading:
                self._judge()

    def _judge(self) -> None:
        """Takes in those of the last set that may be called."""
        if self.closed or self._latest is None:
            return
        incarnations = {
            key: node.replica.registered_at
            for key, node in self.balancer.snapshot.everyone().items()
        }
        wanted: Iterable[Replica] = self._wanted(self._latest, incarnations)
        if self._subset is not None:
            wanted = self._subset.of(wanted, self.caller_id)
        self._part_from(self.balancer.update(wanted))
        snapshot = self.balancer.snapshot
        for node in snapshot.nodes:
            endpoint = node.endpoint
            if not node.replica.routable:
                # Also where nothing was sent yet: a call may be about to open the connection.
                node.when_idle(self._releaser(node))
            elif endpoint.opened:
                # A replica that came back on its old port has not heard of us.
                before = incarnations.get(node.replica.identity)
                if before is not None and before != node.replica.registered_at:
                    endpoint.greeted = False
                endpoint.greet()
        self.known = not any(each.pending for each in self.unfit)
        if snapshot.reserve:
            self.transport.later(self._reserve + 0.05, self._tick)
        self._changed()

    def _wanted(self, replicas: tuple[Replica, ...], known: Collection[Identity]) -> list[Replica]:
        """Those that may be called, and, as if disabled, those known that may not be any more.

        The latter have not vanished: they must not be kept in reserve and called from there.
        """
        keep = self._keep
        kept = [replica for replica in replicas if keep is None or keep(replica)]
        self._judged = False
        for digest in self.fitness.unread(kept):
            self.directory.ask_contract(digest, self._arrived)
        self._judged = True
        unfit = {each.replica.identity: each for each in map(self._unfit, kept) if each}
        self._tell(unfit.values())
        fit = {replica.identity for replica in kept} - unfit.keys()
        return [
            replica if replica.identity in fit else replace(replica, enabled=False)
            for replica in replicas
            if replica.identity in fit or replica.identity in known
        ]

    def _unfit(self, replica: Replica) -> Unfit | None:
        why = shut(replica, self.speaks)
        return self.fitness.judge(replica) if why is None else Unfit(replica, why)

    def _tell(self, unfit: Iterable[Unfit]) -> None:
        before = {(each.replica.identity, each.why) for each in self.unfit}
        self.unfit = tuple(unfit)
        if any(each.pending for each in self.unfit):
            self.known = False
        new = [
            each
            for each in self.unfit
            if not each.pending and (each.replica.identity, each.why) not in before
        ]
        if new:
            level = logging.WARNING if any(each.contract for each in new) else logging.INFO
            logger.log(level, "%s: passed over: %s", self.watch.path, describe(new))

    def _releaser(self, node: ReplicaNode) -> Callable[[], None]:
        def release() -> None:
            # It may have come back meanwhile; then this goodbye is not meant any more.
            if node.retired:
                node.endpoint.release()

        return release

    def _look_again(self) -> None:
        if not self._looking:
            self._looking = True
            self.transport.later(LOOK, self._look)

    def _look(self) -> None:
        """Connects to those out of reach, and says which came back."""
        # Before the look: who is lost meanwhile asks for one more.
        self._looking = False
        if self.closed:
            return
        missing = False
        for node in self.balancer.snapshot.everyone().values():
            if not node.reachable:
                state = node.endpoint.state(connect=True)
                if state in CONNECTED:
                    self.balancer.reach(node, reachable=True)
                else:
                    missing = True
        if missing:
            self._look_again()

    def _tick(self) -> None:
        if not self.closed:
            self._part_from(self.balancer.tick())

    def _part_from(self, left: list[ReplicaNode]) -> None:
        self._parting.update(left)
        for node in left:
            # After its last call, whoever makes it: a list that changes never ends a call.
            node.when_idle(self._closer(node))

    def _closer(self, node: ReplicaNode) -> Callable[[], None]:
        def close() -> None:
            # The last call ends on its caller's or grpc's thread; a close there could wait for it.
            self._parting.discard(node)
            self.transport.later(0.0, node.endpoint.close)

        return close


def report_in(trailing: Any) -> LoadReport | None:
    """The load report in trailing metadata; None when there is none, or none that can be read."""
    for key, value in trailing or ():
        if key == orca.KEY:
            return orca.decode(value)
    return None
