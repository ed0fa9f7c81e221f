"""The blocking server: a ``grpc.Server`` that announces itself and drains.

Long by what its arguments mean; the asyncio one has the same order.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool

from shoal import addresses, forks, keepalive, signals, standard, systemd
from shoal.admission import Admission, Workers
from shoal.drain import STEP, Drain, Roster
from shoal.drainreport import DrainReport
from shoal.errors import RegistrationError
from shoal.gate import REPLICA_SERVICE, Gate
from shoal.guard import Door, Guard
from shoal.hellos import Hellos
from shoal.protocols import DirectoryLike, Registration
from shoal.reporter import LoadReporter, reporter_of
from shoal.serving import Identity, Shell
from shoal.tls import Tls
from shoal_balancer import Limit, Replica, Status
from shoal_protos.v1 import replica_pb2_grpc

logger = logging.getLogger(__name__)


class Server(Shell, grpc.Server):
    """A grpc server that can be found, seen and taken away without a lost call.

        server = shoal.Server("registry", version="1.4.2")
        add_RegistryServicer_to_server(Registry(), server)
        server.run(directory)

    It serves the standard health service and reflection beside your own, and drains on SIGTERM and
    SIGINT: it tells the directory, serves on until every caller that uses Shoal has moved away,
    refuses the rest in a way that is safe to retry, finishes what runs, and leaves.

    Args:
        service: The service's name in the directory.
        id: The replica's name there; a UUID when None.
        version: Version of the service.
        flavor: The kind of work it does, where replicas differ.
        zone: Where it stands.
        host: The machine, for people.
        weight: Share of traffic it asks for.
        metadata: Anything else to announce.
        workers: Threads for handlers; a stream occupies one while it lasts.
        options: grpc's server options. Ports are not shared unless ``grpc.so_reuseport`` says so,
            and callers' pings are borne every 5 s.
        interceptors: grpc's.
        compression: grpc's default compression.
        maximum_concurrent_rpcs: Beyond them grpc answers RESOURCE_EXHAUSTED.
        health: Whether to serve ``grpc.health.v1.Health``: SERVING while announced and not leaving.
        reflection: Whether to serve reflection.
        linger: Most seconds to wait for callers to move away in a drain.
        grace: Most seconds for calls in flight to end after that. Then they are cut off; but a
            handler that does not notice (``context.is_active()``) still keeps Python from exiting.
        load_reports: Whether each answer says how loaded the server is; or what says it.
        limit: Most calls at once, fixed or following the latency; the rest is refused before its
            handler, in a way that is safe to send to another replica. Streams are not under it.
        contract: Whether callers may read in the directory what it serves, to see whether they go
            together.
        descriptors: Where the descriptors of its services are; protobuf's default pool when None.
        tls: Certificate of the service and trusted authorities, for the port that `serve` binds.
            Callers without a certificate are refused. None for plaintext.
        callers: Services, by name, whose certificate may call; None: everybody with one. Health
            and reflection answer all who have one.

    Attributes:
        load: Makes the load reports; None where there are none.
        admission: The limit and what it counts; None where there is none.

    Raises:
        ImportError: health or reflection is wanted and its package is not installed.
        ShoalForkError: this is a forked child in which grpc would hang.
        TlsError: the certificate or the authorities can't be used.
        ValueError: there are ``callers`` without ``tls``.
    """

    def __init__(
        self,
        service: str,
        *,
        id: str | None = None,  # noqa: A002 - Curator's word
        version: str = "",
        flavor: str = "",
        zone: str = "",
        host: str = "",
        weight: float = 1.0,
        metadata: Mapping[str, str] | None = None,
        workers: int = 32,
        options: Sequence[tuple[str, Any]] = (),
        interceptors: Sequence[grpc.ServerInterceptor] = (),
        compression: grpc.Compression | None = None,
        maximum_concurrent_rpcs: int | None = None,
        health: bool = True,
        reflection: bool = True,
        linger: float = 5.0,
        grace: float = 30.0,
        load_reports: bool | LoadReporter = False,
        limit: Limit | None = None,
        contract: bool = True,
        descriptors: DescriptorPool | None = None,
        tls: Tls | None = None,
        callers: Collection[str] | None = None,
    ) -> None:
        forks.check(f"a server of '{service}'")
        if reflection:
            standard.check_reflection()
        Shell.__init__(
            self,
            Identity.of(
                service,
                id,
                {**keepalive.announced(options), **(metadata or {})},
                version=version,
                flavor=flavor,
                zone=zone,
                host=host,
                weight=weight,
            ),
            contract=contract,
            descriptors=descriptors,
            tls=tls,
        )
        self.linger = linger
        self.grace = grace
        self._moved = threading.Event()
        self.roster = Roster(self._moved.set, self.peers)
        self._pool = Workers(workers, thread_name_prefix=f"shoal-{service}")
        self._care = ThreadPoolExecutor(2, thread_name_prefix=f"shoal-{service}-care")
        self.load = reporter_of(load_reports)
        self.admission = admission = Admission(limit) if limit is not None else None
        if self.load is not None:
            self.load.serves(
                lambda: self.roster.running + self._pool.waiting,
                lambda: workers if admission is None else admission.limiter.limit,
            )
        forks.starts()
        self._server: grpc.Server = grpc.server(
            self._pool,
            interceptors=[
                *self._observers(aio=False),
                Gate(self.roster, self._care, self._pool, self.load, admission),
                *([Guard(Door.of(callers, tls))] if callers is not None else []),
                *interceptors,
            ],
            options=addresses.exclusive([*keepalive.SERVER.items(), *options]),
            compression=compression,
            maximum_concurrent_rpcs=maximum_concurrent_rpcs,
        )
        self._registration: Registration | None = None
        # What `run` waits for. SimpleQueue.put may interrupt itself, so a signal's handler may call
        # it; an Event's lock would not survive that.
        self._orders: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._ordered = False
        self._hurried = False
        self._in_run = False
        self._draining = threading.Lock()
        self._report: DrainReport | None = None
        self._left = threading.Event()
        self._reflection = reflection
        self._health = standard.Health(self._server) if health else None
        replica_pb2_grpc.add_ReplicaServicer_to_server(
            Hellos(self.roster, self.identity.id, self.views), self._server
        )
        forks.on_fork(self)

    def start(self) -> None:
        """Starts to serve, without announcing anything.

        Raises:
            ShoalForkError: the server was made before this process forked.
        """
        self._check_fork()
        if self._reflection:
            standard.add_reflection(
                self._names,
                self._server,
                health=self._health is not None,
                descriptors=self.descriptors,
            )
        self._say(serving=False)
        self._server.start()

    def stop(self, grace: float | None = None) -> threading.Event:
        """Leaves, without blocking; `run` returns then.

        A server that was announced drains. One that was only started stops as grpc's does.

        Args:
            grace: Most seconds for calls in flight. None means the server's own; 0 cuts off at
                once what runs, and waits for nobody.

        Returns:
            An event that is set when it has left.
        """
        self._check_fork()
        if self.replica is None and not self._in_run:
            return self._server.stop(grace)
        if grace is not None:
            self.grace = grace
            self._hurried = self._hurried or grace <= 0.0
        if self._in_run:
            self._order("stop")
        else:
            threading.Thread(target=self.drain, name="shoal-drain").start()
        return self._left

    def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Blocks until the server has stopped, and left the directory if it was announced.

        Returns:
            Whether ``timeout`` seconds passed before that (grpc's sense).
        """
        if self.replica is None:
            return self._server.wait_for_termination(timeout)
        return not self._left.wait(timeout)

    def serve(
        self,
        directory: DirectoryLike,
        *,
        bind: str = "127.0.0.1:0",
        advertise: str | None = None,
        credentials: grpc.ServerCredentials | None = None,
        timeout: float = 15.0,
    ) -> Replica:
        """Binds, serves, and announces, in this order; returns what was announced.

        Args:
            directory: Where to announce.
            bind: ``host:port`` to listen on; port 0 takes a free one.
            advertise: The host (or ``host:port``) that callers use, where that is another than the
                one bound. Needed when ``bind`` listens everywhere.
            credentials: For TLS in another way than by the server's ``tls``.
            timeout: Seconds for the directory to take the announcement.

        Raises:
            BindError: the address can't be bound.
            ContractError: its descriptors are too large to be published.
            RegistrationError: it could not be announced; the server is stopped again.
            TlsError: the certificate is another service's.
            ValueError: an address can't be read, or ``bind`` listens everywhere without
                ``advertise``.
            ShoalForkError: the server was made before this process forked.
        """
        host, outside = addresses.advertised(bind, advertise)
        contract = self.contract()
        self._directory = directory
        credentials = credentials or self.credentials()
        if credentials is None:
            port = self.add_insecure_port(bind)
        else:
            port = self.add_secure_port(bind, credentials)
        self.start()
        replica = self.identity.replica(host, outside or port, self._names, contract)
        try:
            self._registration = directory.announce(
                self.identity.service,
                replica,
                timeout=timeout,
                secure=credentials is not None,
                contract=contract,
            )
        except BaseException:
            self._server.stop(None).wait()
            self._close_pools()
            raise
        # With the time of its announcement.
        self.replica = self._registration.replica
        self._say(serving=True)
        logger.info("%s serves %s at %s", replica.id, self.identity.service, replica.target)
        return self.replica

    def run(
        self,
        directory: DirectoryLike,
        *,
        bind: str = "127.0.0.1:0",
        advertise: str | None = None,
        credentials: grpc.ServerCredentials | None = None,
        ready: Callable[[Replica], object] | None = None,
        alive: Callable[[], bool] | None = None,
    ) -> DrainReport:
        """Serves until SIGTERM, SIGINT or `stop`, then drains; a second signal hurries.

        Signals are only handled when this runs on the main thread; what handled them before does so
        again afterwards. Arguments and errors are those of `serve`.

        Under systemd it says READY once announced, STOPPING when it leaves, and to a watchdog that
        it lives: as long as the threads that answer health checks do their work.

        Args:
            directory: Where to announce.
            bind: ``host:port`` to listen on.
            advertise: The host that callers use.
            credentials: For TLS in another way.
            ready: Called with the replica once it is announced.
            alive: Asked on another thread before each sign of life to the watchdog: none is given
                while it says no or does not come back.

        Returns:
            What the drain saw.
        """
        self._check_fork()
        manager = systemd.Notifier()
        self._in_run = True
        try:
            with signals.handling(self._signalled):
                replica = self.serve(
                    directory, bind=bind, advertise=advertise, credentials=credentials
                )
                try:
                    if ready is not None:
                        ready(replica)
                    manager.say(systemd.READY, f"STATUS=serving at {replica.target}")
                    # A thread that answers health checks has to come to each proof of life.
                    order = manager.watched(
                        self._orders, lambda: self._care.submit(alive or (lambda: True))
                    )
                    logger.info("%s leaves: %s", replica.id, order)
                finally:
                    manager.say(systemd.STOPPING, "STATUS=draining")
                    report = self.drain()
                return report
        finally:
            self._in_run = False

    def drain(self, *, linger: float | None = None, grace: float | None = None) -> DrainReport:
        """Leaves without a lost call; blocks until it has. Idempotent.

        Args:
            linger: Most seconds to wait for callers to move away; the server's own when None.
            grace: Most seconds for calls in flight to end.

        Raises:
            ShoalForkError: the server was made before this process forked.
        """
        self._check_fork()
        with self._draining:
            if self._report is None:
                self._report = self._drain(
                    self.linger if linger is None else linger,
                    self.grace if grace is None else grace,
                )
                self._report_drain(self._report)
                self._left.set()
                self._order("drained")
            return self._report

    def _drain(self, linger: float, grace: float) -> DrainReport:
        clock = time.monotonic
        drain = Drain(self.roster, clock(), linger=linger, grace=grace)
        self._say(serving=False)
        registration = self._registration
        if registration is not None:
            try:
                registration.update(status=Status.DRAINING, enabled=False)
            except RegistrationError as error:
                # Callers can't hear of it now; those that call are refused later, safely.
                logger.warning("%s drains without the directory: %s", self.identity.id, error)
            else:
                drain.told(clock())
        while (pause := self._step(drain)) is not None:
            self._moved.wait(pause)
            self._moved.clear()
        stopped = self._server.stop(drain.rest(clock()))
        while not stopped.wait(STEP):
            if self._hurried:
                drain.hurry()
            if drain.cut(clock()):
                self._server.stop(None)
                break
        if registration is not None:
            registration.withdraw()
        self._close_pools()
        return drain.ended(clock())

    def _step(self, drain: Drain) -> float | None:
        if self._hurried:
            drain.hurry()
        if drain.due(time.monotonic()):
            self.roster.look()
        return drain.step(time.monotonic())

    def _close_pools(self) -> None:
        self._pool.shutdown(wait=False)
        self._care.shutdown(wait=False)

    def _order(self, what: str) -> None:
        self._ordered = True
        self._orders.put(what)

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        self._hurried = self._hurried or self._ordered
        self._order(signal.Signals(number).name)

    def _say(self, *, serving: bool) -> None:
        if self._health is not None:
            self._health.say((*self._names, REPLICA_SERVICE), serving=serving)
