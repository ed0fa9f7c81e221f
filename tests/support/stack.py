"""The gateway's three core services in one process, over real gRPC, without ZooKeeper.

App managers are whatever a test puts in their place.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
import grpc.aio

from shoal.aio.channel import Channel
from shoal.testing import FixedDirectory
from shoal_balancer import Replica
from shoal_gateway import tokens
from shoal_gateway.api.accounts import AccountsClient, AccountsServicer
from shoal_gateway.api.callers import Callers
from shoal_gateway.api.catalogue import Catalogue
from shoal_gateway.api.feed import Feed
from shoal_gateway.api.files import Files, LogSegments
from shoal_gateway.api.hints import WakeHints
from shoal_gateway.api.servicer import ApiServicer, RegistryClient
from shoal_gateway.api.tails import Tails
from shoal_gateway.errors import AlreadyExistsError
from shoal_gateway.objectstore import ObjectStore
from shoal_gateway.registry.logic import Registry
from shoal_gateway.registry.members import Members
from shoal_gateway.registry.members_servicer import MembersServicer
from shoal_gateway.registry.servicer import RegistryServicer
from shoal_gateway.registry.store import Store
from shoal_gateway.scheduler.logic import Dispatcher
from shoal_gateway.scheduler.ports import FleetManagers, RegistryQueue
from shoal_gateway.scheduler.servicer import SchedulerServicer
from shoal_protos.gateway.api.v1 import accounts_pb2_grpc as api_accounts_pb2_grpc
from shoal_protos.gateway.api.v1 import api_pb2_grpc
from shoal_protos.gateway.appmanager.v1 import appmanager_pb2_grpc
from shoal_protos.gateway.registry.v1 import accounts_pb2_grpc as registry_accounts_pb2_grpc
from shoal_protos.gateway.registry.v1 import registry_pb2_grpc
from shoal_protos.gateway.scheduler.v1 import scheduler_pb2_grpc

NAP = """
name = "nap"
version = "1.0"
flavor = "local"
command = ["{python}", "{app}/nap.py", "--seconds", "{seconds}", "--out", "nap.json"]
outputs = ["nap.json"]

[[parameters]]
name = "seconds"
type = "number"
default = 0.1
"""


class AioDirectory:
    """A fixed directory that makes asyncio channels."""

    def __init__(self, fixed: FixedDirectory) -> None:
        self.fixed = fixed

    def watch(self, service):
        return self.fixed.watch(service)

    def channel(self, service, **options):
        return Channel(self.fixed, service, **options)


class Stack:
    """Registry, api and scheduler, each on a port of its own.

    With ``users`` the api asks for tokens; `token` makes one.
    """

    def __init__(self, directory, stack, root, catalogue, *, users=False, clock=time.monotonic):
        self._users = users
        self._clock = clock
        self.directory = directory
        self.objects = ObjectStore.open(f"file://{root}/objects")
        self.store = Store(f"sqlite:///{root}/registry.db")
        stack.callback(self.store.close)
        self._stack = stack
        self._catalogue = catalogue
        self.members = Members(self.store)
        self.registry_logic = Registry(self.store, quotas=lambda: self.members.quotas)

    def token(self, user, *scopes, valid=3600.0) -> str:
        """The secret of a new token of a user, who is made if there is none of that name."""
        with contextlib.suppress(AlreadyExistsError):
            self.members.put_user(user, {}, create=True)
        fresh = tokens.new()
        wanted = [tokens.SCOPES[each] for each in scopes or ("jobs:read", "jobs:write")]
        self.members.create_token(fresh.id, fresh.digest, user, wanted, label="", valid=valid)
        return fresh.text

    async def start(self) -> None:
        servicer = RegistryServicer(self.registry_logic)
        self._stack.push_async_callback(servicer.close)
        self._background(servicer.keep_swept())
        await self.serve(
            "registry",
            registry_pb2_grpc.add_RegistryServicer_to_server,
            servicer,
            (
                registry_accounts_pb2_grpc.add_AccountsServicer_to_server,
                MembersServicer(self.members, servicer),
            ),
        )
        self.to_registry = self.channel("registry")
        self.registry = registry_pb2_grpc.RegistryStub(self.to_registry)

        executor = self._stack.enter_context(ThreadPoolExecutor(8))
        client = RegistryClient(self.registry)
        feed = Feed(client.changes)
        hints = WakeHints(scheduler_pb2_grpc.SchedulerStub(self.channel("scheduler")))
        self._background(feed.run())
        self._background(hints.run())
        self.tails = Tails(LogSegments(self.objects), executor)
        accounts = AccountsClient(registry_accounts_pb2_grpc.AccountsStub(self.to_registry))
        callers = Callers(accounts.whose if self._users else None, now=self._clock)
        api = ApiServicer(
            self._catalogue,
            client,
            Files(self.objects, executor),
            feed,
            self.tails,
            hints,
            callers=callers,
            charge=accounts.charge,
        )
        self.api_servicer = api
        await self.serve(
            "api",
            api_pb2_grpc.add_ApiServicer_to_server,
            api,
            (
                api_accounts_pb2_grpc.add_AccountsServicer_to_server,
                AccountsServicer(callers, accounts),
            ),
        )
        self.api = api_pb2_grpc.ApiStub(self.channel("api"))

        self.dispatcher = Dispatcher(
            RegistryQueue(self.registry, "scheduler-1", 15.0),
            FleetManagers(AioDirectory(self.directory), 15.0),
            poll=0.1,
            rng=random.Random(1),
        )
        self._background(self.dispatcher.run())
        await self.serve(
            "scheduler",
            scheduler_pb2_grpc.add_SchedulerServicer_to_server,
            SchedulerServicer(self.dispatcher),
        )
        self.scheduler = scheduler_pb2_grpc.SchedulerStub(self.channel("scheduler"))

    async def serve(self, service, add, servicer, *more) -> str:
        """Serves on a free port; the target, which the directory knows from now on."""
        server = grpc.aio.server()
        for each, with_servicer in [(add, servicer), *more]:
            each(with_servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        self._stack.push_async_callback(server.stop, 0)
        target = f"127.0.0.1:{port}"
        self.directory.set(service, [target])
        return target

    async def serve_managers(self, servicers, flavor="local") -> None:
        """Puts app managers in place, one server each."""
        replicas = []
        for index, servicer in enumerate(servicers):
            target = await self.serve(
                "unused", appmanager_pb2_grpc.add_AppManagerServicer_to_server, servicer
            )
            port = int(target.rpartition(":")[2])
            replicas.append(Replica(f"appmanager-{index}", "127.0.0.1", port, flavor=flavor))
        self.directory.set("appmanager", replicas)

    def channel(self, service):
        channel = Channel(self.directory, service)
        self._stack.push_async_callback(channel.close)
        return channel

    def raw(self, service) -> grpc.aio.Channel:
        """A plain grpc channel to a service's one replica."""
        (replica,) = self.directory.watch(service).replicas()
        channel = grpc.aio.insecure_channel(replica.target)
        self._stack.push_async_callback(channel.close)
        return channel

    def _background(self, work) -> None:
        task = asyncio.create_task(work)

        async def end():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._stack.push_async_callback(end)


@contextlib.asynccontextmanager
async def running(root, **options):
    """The three services, until the block ends."""
    catalogue = root / "catalogue"
    catalogue.mkdir()
    (catalogue / "nap.toml").write_text(NAP)
    async with contextlib.AsyncExitStack() as stack:
        made = Stack(FixedDirectory({}), stack, root, Catalogue.load(catalogue), **options)
        await made.start()
        yield made


def new_key() -> str:
    return str(uuid.uuid4())
