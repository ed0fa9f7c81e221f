"""The asyncio server: a ``grpc.aio.Server`` that announces itself and drains.

The blocking one's twin, in the same order, that the two can be read side by side; it is long by
what its arguments mean.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor_pool import DescriptorPool

from shoal import addresses, forks, keepalive, signals, standard, systemd
from shoal.admission import Admission
from shoal.aio.gate import AioGate
from shoal.aio.guard import AioGuard
from shoal.drain import STEP, Drain, Roster
from shoal.drainreport import DrainReport
from shoal.errors import RegistrationError
from shoal.gate import REPLICA_SERVICE
from shoal.guard import Door
from shoal.hellos import AioHellos
from shoal.protocols import DirectoryLike, Registration
from shoal.reporter import LoadReporter, reporter_of
from shoal.serving import Identity, Shell
from shoal.tls import Tls
from shoal_balancer import Limit, Replica, Status
from shoal_protos.v1 import replica_pb2_grpc

logger = logging.getLogger(__name__)


class Server(Shell, grpc.aio.Server):
    """`shoal.Server` for asyncio handlers; its arguments and its drain are the same.

    Made and used on a running event loop.

        server = shoal.aio.Server("api", version="1.4.2")
        add_ApiServicer_to_server(Api(), server)
        await server.run(directory)

    Args:
        service: The service's name in the directory.
        id: The replica's name there; a UUID when None.
        version: Version of the service.
        flavor: The kind of work it does, where replicas differ.
        zone: Where it stands.
        host: The machine, for people.
        weight: Share of traffic it asks for.
        metadata: Anything else to announce.
        executor: Threads for handlers that are not coroutines.
        options: grpc's server options. Ports are not shared unless ``grpc.so_reuseport`` says so,
            and callers' pings are borne every 5 s.
        interceptors: grpc.aio's.
        compression: grpc's default compression.
        maximum_concurrent_rpcs: Beyond them grpc answers RESOURCE_EXHAUSTED.
        health: Whether to serve ``grpc.health.v1.Health``: SERVING while announced and not leaving.
        reflection: Whether to serve reflection.
        linger: Most seconds to wait for callers to move away in a drain.
        grace: Most seconds for calls in flight to end after that; then they are cancelled.
        load_reports: Whether each answer says how loaded the server is; or what says it. Without a
            limit the reporter must be told the capacity to say a utilisation.
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
        ShoalForkError: this is a forked child, and the parent used grpc.aio.
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
        executor: Executor | None = None,
        options: Sequence[tuple[str, Any]] = (),
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
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
        forks.check(f"an asyncio server of '{service}'", aio=True)
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
        self._loop = asyncio.get_running_loop()
        self._moved = asyncio.Event()
        self._ordered = asyncio.Event()
        self.roster = Roster(self._wake, self.peers)
        self.load = reporter_of(load_reports)
        self.admission = admission = Admission(limit) if limit is not None else None
        if self.load is not None:
            self.load.serves(
                lambda: self.roster.running,
                lambda: None if admission is None else admission.limiter.limit,
            )
        forks.starts(aio=True)
        self._server: grpc.aio.Server = grpc.aio.server(
            executor,
            interceptors=[
                *self._observers(aio=True),
                AioGate(self.roster, self.load, admission),
                *([AioGuard(Door.of(callers, tls))] if callers is not None else []),
                *interceptors,
            ],
            options=addresses.exclusive([*keepalive.SERVER.items(), *options]),
            compression=compression,
            maximum_concurrent_rpcs=maximum_concurrent_rpcs,
        )
        self._registration: Registration | None = None
        self._in_run = False
        self._hurried = False
        self._draining = asyncio.Lock()
        self._report: DrainReport | None = None
        self._left = asyncio.Event()
        self._reflection = reflection
        self._health = standard.AioHealth(self._server) if health else None
        replica_pb2_grpc.add_ReplicaServicer_to_server(
            AioHellos(self.roster, self.identity.id, self.views), self._server
        )
        forks.on_fork(self)

    async def start(self) -> None:
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
        await self._say(serving=False)
        await self._server.start()

    async def stop(self, grace: float | None = None) -> None:
        """Leaves; returns when it has, and so does `run`.

        A server that was announced drains. One that was only started stops as grpc's does.

        Args:
            grace: Most seconds for calls in flight. None means the server's own; 0 cuts off at
                once what runs, and waits for nobody.
        """
        self._check_fork()
        if self.replica is None and not self._in_run:
            await self._server.stop(grace)
            return
        if grace is not None:
            self.grace = grace
            self._hurried = self._hurried or grace <= 0.0
        self._ordered.set()
        if self._in_run:
            await self._left.wait()
        else:
            await self.drain()

    def end(self) -> None:
        """Has `run` drain and return. Safe from any thread."""
        self._loop.call_soon_threadsafe(self._ordered.set)

    async def wait_for_termination(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - grpc's
        """Waits until the server has stopped, and left the directory if it was announced.

        Returns:
            Whether ``timeout`` seconds passed before that (grpc's sense).
        """
        if self.replica is None:
            return await self._server.wait_for_termination(timeout)
        try:
            await asyncio.wait_for(self._left.wait(), timeout)
        except TimeoutError:
            return True
        return False

    async def serve(
        self,
        directory: DirectoryLike,
        *,
        bind: str = "127.0.0.1:0",
        advertise: str | None = None,
        credentials: grpc.ServerCredentials | None = None,
        timeout: float = 15.0,  # noqa: ASYNC109 - one signature for both servers
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
        await self.start()
        replica = self.identity.replica(host, outside or port, self._names, contract)
        try:
            self._registration = await asyncio.to_thread(
                directory.announce,
                self.identity.service,
                replica,
                timeout=timeout,
                secure=credentials is not None,
                contract=contract,
            )
        except BaseException:
            await self._server.stop(None)
            raise
        # With the time of its announcement.
        self.replica = self._registration.replica
        await self._say(serving=True)
        logger.info("%s serves %s at %s", replica.id, self.identity.service, replica.target)
        return self.replica

    async def run(
        self,
        directory: DirectoryLike,
        *,
        bind: str = "127.0.0.1:0",
        advertise: str | None = None,
        credentials: grpc.ServerCredentials | None = None,
        ready: Callable[[Replica], object] | None = None,
        alive: Callable[[], bool] | None = None,
    ) -> DrainReport:
        """Serves until SIGTERM, SIGINT, `end` or `stop`, then drains; a second signal hurries.

        Signals are only handled when the loop runs on the main thread; what handled them before
        does so again afterwards. Arguments and errors are those of `serve`.

        Under systemd it says READY once announced, STOPPING when it leaves, and to a watchdog that
        it lives: as long as the event loop turns.

        Args:
            directory: Where to announce.
            bind: ``host:port`` to listen on.
            advertise: The host that callers use.
            credentials: For TLS in another way.
            ready: Called with the replica once it is announced.
            alive: Asked before each sign of life to the watchdog: none is given while it says no.

        Returns:
            What the drain saw.
        """
        self._check_fork()
        manager = systemd.Notifier()
        self._in_run = True
        try:
            with self._handling_signals():
                replica = await self.serve(
                    directory, bind=bind, advertise=advertise, credentials=credentials
                )
                try:
                    if ready is not None:
                        ready(replica)
                    manager.say(systemd.READY, f"STATUS=serving at {replica.target}")
                    await manager.watched_aio(self._ordered, alive)
                finally:
                    manager.say(systemd.STOPPING, "STATUS=draining")
                    report = await self.drain()
                return report
        finally:
            self._in_run = False

    async def drain(
        self, *, linger: float | None = None, grace: float | None = None
    ) -> DrainReport:
        """Leaves without a lost call. Idempotent.

        Args:
            linger: Most seconds to wait for callers to move away; the server's own when None.
            grace: Most seconds for calls in flight to end.

        Raises:
            ShoalForkError: the server was made before this process forked.
        """
        self._check_fork()
        async with self._draining:
            if self._report is None:
                self._report = await self._drain(
                    self.linger if linger is None else linger,
                    self.grace if grace is None else grace,
                )
                self._report_drain(self._report)
                self._left.set()
                self._ordered.set()
            return self._report

    async def _drain(self, linger: float, grace: float) -> DrainReport:
        clock = time.monotonic
        drain = Drain(self.roster, clock(), linger=linger, grace=grace)
        await self._say(serving=False)
        registration = self._registration
        if registration is not None:
            try:
                await asyncio.to_thread(registration.update, status=Status.DRAINING, enabled=False)
            except RegistrationError as error:
                # Callers can't hear of it now; those that call are refused later, safely.
                logger.warning("%s drains without the directory: %s", self.identity.id, error)
            else:
                drain.told(clock())
        while (pause := await self._step(drain)) is not None:
            await self._pause(pause)
        stopped = asyncio.ensure_future(self._server.stop(drain.rest(clock())))
        while not (await asyncio.wait({stopped}, timeout=STEP))[0]:
            if self._hurried:
                drain.hurry()
            if drain.cut(clock()):
                await self._server.stop(None)
                break
        await stopped
        if registration is not None:
            await asyncio.to_thread(registration.withdraw)
        return drain.ended(clock())

    async def _step(self, drain: Drain) -> float | None:
        if self._hurried:
            drain.hurry()
        if drain.due(time.monotonic()):
            await asyncio.to_thread(self.roster.look)
        return drain.step(time.monotonic())

    async def _pause(self, seconds: float) -> None:
        """Until a caller has left, a call has ended or a signal came; at most ``seconds``."""
        try:
            await asyncio.wait_for(self._moved.wait(), seconds)
        except TimeoutError:
            return
        self._moved.clear()

    def _wake(self) -> None:
        # Handlers that are not coroutines end on the executor's threads.
        self._loop.call_soon_threadsafe(self._moved.set)

    @contextmanager
    def _handling_signals(self) -> Iterator[None]:
        # The loop would leave the system's default behind; this puts back what was there.
        with signals.handling(lambda *_: None):
            if not signals.on_main_thread():
                yield
                return
            for number in signals.STOPPING:
                self._loop.add_signal_handler(number, self._signalled)
            try:
                yield
            finally:
                for number in signals.STOPPING:
                    self._loop.remove_signal_handler(number)

    def _signalled(self) -> None:
        self._hurried = self._hurried or self._ordered.is_set()
        self._ordered.set()
        self._moved.set()

    async def _say(self, *, serving: bool) -> None:
        if self._health is not None:
            await self._health.say((*self._names, REPLICA_SERVICE), serving=serving)
