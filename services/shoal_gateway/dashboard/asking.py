"""Asks each replica whom it calls, and notices at once when its connection ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any, cast

import grpc
import grpc.aio

from shoal.doors import at_door
from shoal.errors import TlsError
from shoal.security import Security
from shoal.tls import Tls
from shoal_balancer import Replica, Status
from shoal_gateway.dashboard.sights import Key, Reach
from shoal_protos.v1 import replica_pb2, replica_pb2_grpc

logger = logging.getLogger(__name__)

# Seconds between two questions to one replica, and how many a second are asked of all at most.
EVERY = 1.0
QUESTIONS = 100.0
# Seconds for an answer, and how many in a row must be missed until a replica counts as silent: one
# may as well be late by our own fault, on a busy machine.
PATIENCE = 1.5
MISSED = 2
# Not found at the first try, a replica is looked for again soon: it may just have been restarted.
OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Two replicas at one address and port, one after the other, are not one connection.
    ("grpc.use_local_subchannel_pool", 1),
]
SILENT = frozenset({grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})

Told = Callable[[Key, Sequence[Any]], object]
Noticed = Callable[[Key, Reach], object]


class Asker:
    """Keeps a connection to each listed replica, and asks over it.

    It says Hello and Released as every caller does, so that a drain neither waits for it nor counts
    it as a stranger.

    Args:
        caller_id: Who asks.
        tls: Certificate to ask with; None for plain text.
        told: Called with what a replica tells of those it calls; with nothing where it does not
            know the question.
        noticed: Called when it is found that a replica answers, or that it does not.
        rng: Spreads the questions over time.
    """

    def __init__(
        self,
        caller_id: str,
        tls: Tls | None,
        told: Told,
        noticed: Noticed,
        rng: random.Random | None = None,
    ) -> None:
        self._caller_id = caller_id
        self._tls = tls
        self._told = told
        self._noticed = noticed
        self._rng = rng or random.Random()  # noqa: S311 - no secret
        self._tasks: dict[Key, tuple[str, asyncio.Task[None]]] = {}

    def follow(self, service: str, replicas: Sequence[Replica]) -> None:
        """Asks exactly these of a service from now on. On the event loop."""
        wanted = {
            (service, each.id): each for each in replicas if each.status is not Status.DRAINING
        }
        for key, (target, task) in list(self._tasks.items()):
            if key[0] == service and (key not in wanted or wanted[key].target != target):
                task.cancel()
                del self._tasks[key]
        for key, replica in wanted.items():
            if key not in self._tasks:
                task = asyncio.create_task(self._ask(key, replica), name=f"ask {replica.id}")
                self._tasks[key] = (replica.target, task)

    async def close(self) -> None:
        """Asks nobody any more."""
        tasks = [task for _, task in self._tasks.values()]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def every(self) -> float:
        """Seconds between two questions to one replica."""
        return max(EVERY, len(self._tasks) / QUESTIONS)

    async def _ask(self, key: Key, replica: Replica) -> None:
        # Hundreds that were found at once are not asked at once.
        await asyncio.sleep(self._rng.uniform(0.0, self.every / 2))
        try:
            channel = self._channel(key[0], replica)
        except (TlsError, ValueError) as error:
            logger.warning("%s can't be asked: %s", replica.id, error)
            return
        stub = replica_pb2_grpc.ReplicaStub(cast(grpc.Channel, channel))
        try:
            await self._converse(key, channel, stub)
        finally:
            with contextlib.suppress(grpc.RpcError, asyncio.CancelledError):
                goodbye = replica_pb2.ReleasedRequest(caller_id=self._caller_id)
                await asyncio.shield(cast(Any, stub.Released(goodbye, timeout=0.5)))
            await channel.close()

    async def _converse(
        self, key: Key, channel: grpc.aio.Channel, stub: replica_pb2_grpc.ReplicaStub
    ) -> None:
        greeted, missed = False, 0
        while True:
            try:
                if not greeted:
                    hello = replica_pb2.HelloRequest(caller_id=self._caller_id)
                    answer = await cast(Any, stub.Hello(hello, timeout=PATIENCE))
                    greeted = answer.replica_id == key[1]
                    if not greeted:
                        # Somebody else has its port by now.
                        self._noticed(key, Reach.REFUSED)
                        await asyncio.sleep(self.every)
                        continue
                callees = await self._callees(stub)
            except grpc.aio.AioRpcError as error:
                greeted = greeted and error.code() in SILENT
                missed = missed + 1 if error.code() in SILENT else 0
                if missed == 0:
                    self._noticed(key, Reach.REFUSED)
                elif missed >= MISSED:
                    self._noticed(key, Reach.SILENT)
                logger.debug("%s: %s", key[1], error)
                await asyncio.sleep(self.every * self._rng.uniform(0.3, 0.6))
                continue
            missed = 0
            self._noticed(key, Reach.ANSWERS)
            self._told(key, callees)
            await self._pause(channel)

    async def _callees(self, stub: replica_pb2_grpc.ReplicaStub) -> Sequence[Any]:
        try:
            answer = await cast(Any, stub.Callees(replica_pb2.CalleesRequest(), timeout=PATIENCE))
        except grpc.aio.AioRpcError as error:
            # Of an earlier version: it lives, and that is all there is to learn.
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return ()
            raise
        return cast(Sequence[Any], answer.callees)

    async def _pause(self, channel: grpc.aio.Channel) -> None:
        """Until it is time for the next question, or the connection ends."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.every * self._rng.uniform(0.9, 1.1)):
                await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)

    def _channel(self, service: str, replica: Replica) -> grpc.aio.Channel:
        security = Security.of(service, self._tls, None)
        target = at_door(replica, security.speaks).target
        options = [*OPTIONS, *security.options]
        if security.credentials is None:
            return grpc.aio.insecure_channel(target, options=options)
        return grpc.aio.secure_channel(target, security.credentials(), options=options)
