"""Hundreds of replicas that answer, in one process: what a page must be able to draw."""

from __future__ import annotations

import asyncio
import random
import time

import grpc.aio

from shoal.testing import FixedDirectory
from shoal_balancer import Replica, Status
from shoal_protos.v1 import replica_pb2, replica_pb2_grpc

SERVICES = ("api", "scheduler", "registry", "appmanager")
CALLS = {"api": "registry", "scheduler": "appmanager", "appmanager": "registry"}


class Member(replica_pb2_grpc.ReplicaServicer):
    """One replica: tells of callees whose calls grow with time."""

    def __init__(self, name, callees, rng):
        self._name = name
        self._callees = callees
        self._rates = [rng.uniform(0.5, 6.0) for _ in callees]
        self._began = time.monotonic()

    async def Hello(self, request, context):
        return replica_pb2.HelloResponse(replica_id=self._name)

    async def Released(self, request, context):
        return replica_pb2.ReleasedResponse()

    async def Callees(self, request, context):
        seconds = time.monotonic() - self._began
        return replica_pb2.CalleesResponse(
            callees=[
                replica_pb2.Callee(
                    service=service,
                    replica_id=name,
                    target=target,
                    calls=int(seconds * rate),
                    latency_seconds=0.004,
                    reachable=True,
                )
                for (service, name, target), rate in zip(self._callees, self._rates, strict=True)
            ]
        )


class Swarm:
    """So many replicas of the gateway's four services, announced in a directory of its own."""

    def __init__(self, count, per_host=4, seed=1):
        self.directory = FixedDirectory({service: [] for service in SERVICES})
        self.count = count
        self._per_host = per_host
        self._rng = random.Random(seed)
        self._servers = {}

    async def __aenter__(self):
        places = []
        for number in range(self.count):
            service = SERVICES[number % len(SERVICES)]
            server = grpc.aio.server()
            port = server.add_insecure_port("127.0.0.1:0")
            name = f"{service}-{number // len(SERVICES) + 1}"
            places.append((service, name, f"127.0.0.1:{port}"))
            self._servers[name] = server
        by_service = {
            service: [each for each in places if each[0] == service] for service in SERVICES
        }
        for service, name, _ in places:
            callees = by_service.get(CALLS.get(service), [])
            some = self._rng.sample(callees, min(3, len(callees)))
            replica_pb2_grpc.add_ReplicaServicer_to_server(
                Member(name, some, self._rng), self._servers[name]
            )
            await self._servers[name].start()
        for service, found in by_service.items():
            self.directory.set(service, [self._replica(*each) for each in found])
        return self

    async def __aexit__(self, *_):
        await asyncio.gather(*(each.stop(0) for each in self._servers.values()))

    async def end(self, name):
        """Closes a replica's port; the directory lists it all the same."""
        await self._servers[name].stop(0)

    def say(self, service, name, status):
        """A replica changes its status."""
        replicas = self.directory.watch(service).replicas()
        self.directory.set(
            service,
            [
                Replica(
                    each.id,
                    each.address,
                    each.port,
                    version=each.version,
                    flavor=each.flavor,
                    host=each.host,
                    status=Status(status) if each.id == name else each.status,
                )
                for each in replicas
            ],
        )

    def _replica(self, service, name, target):
        number = int(name.rpartition("-")[2])
        host = f"host-{(number - 1) // self._per_host + 1}"
        flavor = ("local", "slurm")[number % 2] if service == "appmanager" else ""
        version = "1.5.0" if number % 12 == 0 else "1.4.2"
        port = int(target.rpartition(":")[2])
        return Replica(name, "127.0.0.1", port, version=version, flavor=flavor, host=host)
