"""The sync server: a ``grpc.Server`` that announces itself and drains."""

from __future__ import annotations

import logging
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import grpc

from shoal import forks
from shoal.drain import NOTICE, REFUSING_TIME, DrainReport, Phase, Roster
from shoal.errors import RegistrationError
from shoal.protocols import DirectoryLike, Registration
from shoal.serving import (
    HEALTH_SERVICE,
    MISSING,
    Gate,
    Identity,
    advertised,
    bound,
    exclusive,
    names_of,
    split_address,
)
from shoal_balancer import Replica, Status
from shoal_protos.v1 import replica_pb2, replica_pb2_grpc

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _Replica(replica_pb2_grpc.ReplicaServicer):
    """Hello and Released."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def Hello(  # noqa: N802 - the proto's name
        self, request: replica_pb2.HelloRequest, context: grpc.ServicerContext
    ) -> replica_pb2.HelloResponse:
        if not request.caller_id:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "caller_id: must not be empty")
        roster = self._server.roster
        roster.hello(request.caller_id, context.peer())
        return replica_pb2.HelloResponse(
            replica_id=self._server.identity.id, draining=roster.phase is not Phase.SERVING
        )

    def Released(  # noqa: N802 - the proto's name
        self, request: replica_pb2.ReleasedRequest, context: grpc.ServicerContext
    ) -> replica_pb2.ReleasedResponse:
        if not request.caller_id:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "caller_id: must not be empty")
        self._server.roster.released(request.caller_id)
        return replica_pb2.ReleasedResponse()


class Server(grpc.Server):
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
        workers: Threads for handlers.
        options: grpc's server options. Ports are not shared unless ``grpc.so_reuseport`` says so.
        interceptors: grpc's.
        compression: grpc's default compression.
        maximum_concurrent_rpcs: Beyond them grpc answers RESOURCE_EXHAUSTED.
        health: Whether to serve ``grpc.health.v1.Health``.
        reflection: Whether to serve reflection.
        linger: Most seconds to wait for callers to move away in a drain.
        grace: Most seconds for calls in flight to end after that.

    Raises:
        ImportError: health or reflection is wanted and its package is not installed.
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
    ) -> None:
        facts: dict[str, Any] = {"id": id} if id is not None else {}
        self.identity = Identity(
            service,
            version=version,
            flavor=flavor,
            zone=zone,
            host=host,
            weight=weight,
            metadata=dict(metadata or {}),
            **facts,
        )
        self.linger = linger
        self.grace = grace
        self.replica: Replica | None = None
        self._moved = threading.Event()
        self.roster = Roster(self._moved.set)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=f"shoal-{service}")
        self._server = grpc.server(
            self._pool,
            interceptors=[Gate(self.roster), *interceptors],
            options=exclusive(options),
            compression=compression,
            maximum_concurrent_rpcs=maximum_concurrent_rpcs,
        )
        self._names: list[str] = []
        self._registration: Registration | None = None
        self._orders: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._hurry = False
        self._drain_lock = threading.Lock()
        self._report: DrainReport | None = None
        self._started = False
        self._forked = False
        self._reflection = reflection
        self._health = _make_health(self._server) if health else None
        if reflection:
            _check_reflection()
        replica_pb2_grpc.add_ReplicaServicer_to_server(_Replica(self), self)
        forks.on_fork(self)

    def __repr__(self) -> str:
        where = self.replica.target if self.replica is not None else "not bound"
        return f"<shoal.Server {self.identity.service} {self.identity.id} {where}>"

    def add_generic_rpc_handlers(
        self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]
    ) -> None:
        """As grpc's; generated ``add_…_to_server`` functions call it."""
        handlers = tuple(generic_rpc_handlers)
        self._names += [name for name in names_of(handlers) if name not in self._names]
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Any) -> None:
        """As grpc's; generated ``add_…_to_server`` functions call it."""
        if service_name not in self._names:
            self._names.append(service_name)
        self._server.add_registered_method_handlers(service_name, method_handlers)

    def add_insecure_port(self, address: str) -> int:
        """Binds a plaintext port; returns it.

        Raises:
            BindError: it is taken, or the address is not this machine's.
        """
        return bound(address, lambda: self._server.add_insecure_port(address))

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """Binds a TLS port; returns it.

        Raises:
            BindError: it is taken, or the address is not this machine's.
        """
        return bound(address, lambda: self._server.add_secure_port(address, server_credentials))

    def start(self) -> None:
        """Starts to serve, without announcing anything.

        Raises:
            ShoalForkError: the server was made before this process forked.
        """
        self._check_fork()
        if self._reflection:
            _add_reflection([*self._names, HEALTH_SERVICE], self._server)
        self._server.start()
        self._started = True

    def stop(self, grace: float | None = None) -> threading.Event:
        """As grpc's, without a drain: ends within ``grace`` seconds. Also ends `run`, drained."""
        self._orders.put("stop")
        return self._server.stop(grace)

    def wait_for_termination(self, timeout: float | None = None) -> bool:
        """As grpc's."""
        return self._server.wait_for_termination(timeout)

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
            advertise: The host that callers use, where that is another than the one bound.
            credentials: For TLS; None for plaintext.
            timeout: Seconds for the directory to take the announcement.

        Raises:
            BindError: the address can't be bound.
            RegistrationError: it could not be announced; the server is stopped again.
            ValueError: ``bind`` can't be read, or listens everywhere without ``advertise``.
        """
        self._check_fork()
        address = advertised(bind, advertise)
        split_address(bind)
        if credentials is None:
            port = self.add_insecure_port(bind)
        else:
            port = self.add_secure_port(bind, credentials)
        self.start()
        self.replica = self.identity.replica(address, port, self._names)
        secure = {"secure": True} if credentials is not None else {}
        try:
            self._registration = directory.announce(
                self.identity.service, self.replica, timeout=timeout, **secure
            )
        except RegistrationError:
            self._server.stop(None).wait()
            raise
        self._set_health(serving=True)
        logger.info(
            "%s serves %s at %s", self.identity.id, self.identity.service, self.replica.target
        )
        return self.replica

    def run(
        self,
        directory: DirectoryLike,
        *,
        bind: str = "127.0.0.1:0",
        advertise: str | None = None,
        credentials: grpc.ServerCredentials | None = None,
        ready: Callable[[Replica], object] | None = None,
    ) -> DrainReport:
        """Serves until SIGTERM, SIGINT or `stop`, then drains; a second signal hurries.

        Signals are only handled when this runs on the main thread. Arguments are those of `serve`.

        Args:
            directory: Where to announce.
            bind: ``host:port`` to listen on.
            advertise: The host that callers use.
            credentials: For TLS.
            ready: Called with the replica once it is announced.

        Returns:
            What the drain saw.
        """
        on_main = threading.current_thread() is threading.main_thread()
        before: dict[signal.Signals, Any] = {}
        if on_main:
            before = {number: signal.signal(number, self._signalled) for number in _SIGNALS}
        try:
            replica = self.serve(directory, bind=bind, advertise=advertise, credentials=credentials)
            if ready is not None:
                ready(replica)
            self._orders.get()
            return self.drain()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def drain(self, *, linger: float | None = None, grace: float | None = None) -> DrainReport:
        """Leaves without a lost call; blocks until it has. Idempotent.

        Args:
            linger: Most seconds to wait for callers to move away; the server's own when None.
            grace: Most seconds for calls in flight to end.
        """
        with self._drain_lock:
            if self._report is None:
                self._report = self._drain(
                    self.linger if linger is None else linger,
                    self.grace if grace is None else grace,
                )
                logger.info("%s %s", self.identity.id, self._report)
            return self._report

    def set_status(self, status: Status) -> None:
        """Tells callers how it is; they keep calling a BUSY one and leave a DRAINING one.

        Raises:
            RegistrationError: the directory did not take it in time; it is kept and written later.
        """
        if self._registration is not None:
            self._registration.update(status=status)

    def after_fork(self) -> None:
        """In a forked child: the server is the parent's."""
        self._forked = True

    def _drain(self, linger: float, grace: float) -> DrainReport:
        began = time.monotonic()
        self.roster.phase = Phase.LEAVING
        self._set_health(serving=False)
        registration = self._registration
        if registration is not None:
            try:
                registration.update(status=Status.DRAINING, enabled=False)
            except RegistrationError as error:
                # Callers can't hear of it now; those that call are refused later, safely.
                logger.warning("draining without the directory: %s", error)
            self._wait_for_callers(began, linger)
        self.roster.phase = Phase.REFUSING
        if self.roster.remaining or self.roster.strangers:
            self._pause(REFUSING_TIME)
        stopping = time.monotonic()
        grace = 0.0 if self._hurry else grace
        stopped = self._server.stop(grace)
        while not stopped.wait(0.1):
            if self._hurry and grace:
                grace = 0.0
                self._server.stop(None)
        unfinished = time.monotonic() - stopping >= grace > 0.0
        if registration is not None:
            registration.withdraw()
        self._pool.shutdown(wait=False)
        return self.roster.report(began, unfinished=unfinished)

    def _wait_for_callers(self, began: float, linger: float) -> None:
        while not self._hurry:
            waited = time.monotonic() - began
            everyone_left = not self.roster.remaining and not self.roster.strangers
            if waited >= linger or (waited >= NOTICE and everyone_left):
                return
            # Bounded, for a second signal may not touch the event.
            self._moved.wait(min(0.1, linger - waited))
            self._moved.clear()

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._hurry and (rest := until - time.monotonic()) > 0.0:
            self._moved.wait(min(0.1, rest))
            self._moved.clear()

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        # SimpleQueue.put is re-entrant, which an Event's lock is not.
        self._hurry = self.roster.phase is not Phase.SERVING
        self._orders.put(signal.Signals(number).name)

    def _set_health(self, *, serving: bool) -> None:
        if self._health is not None:
            self._health(["", *self._names], serving)

    def _check_fork(self) -> None:
        if self._forked:
            raise forks.server_error(f"the server of '{self.identity.service}'")


def _make_health(server: grpc.Server) -> Callable[[Sequence[str], bool], None]:
    try:
        from grpc_health.v1 import health, health_pb2, health_pb2_grpc
    except ImportError as error:
        raise ImportError(MISSING) from error
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)

    def say(names: Sequence[str], serving: bool) -> None:
        states = health_pb2.HealthCheckResponse
        state = states.SERVING if serving else states.NOT_SERVING
        for name in names:
            servicer.set(name, state)

    return say


def _check_reflection() -> None:
    try:
        import grpc_reflection.v1alpha.reflection  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise ImportError(MISSING) from error


def _add_reflection(names: Sequence[str], server: Any) -> None:
    from grpc_reflection.v1alpha import reflection

    reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
