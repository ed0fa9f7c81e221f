"""Runs one replica of the registry."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from shoal.aio.leadership import Leadership
from shoal_gateway import following, runtime, telemetry, tunables
from shoal_gateway.registry import fences
from shoal_gateway.registry.counted import Counted
from shoal_gateway.registry.logic import Registry
from shoal_gateway.registry.members import Members
from shoal_gateway.registry.members_servicer import MembersServicer
from shoal_gateway.registry.quotas import Quotas
from shoal_gateway.registry.servicer import RegistryServicer
from shoal_gateway.registry.store import Store, StoreError
from shoal_protos.gateway.registry.v1 import accounts_pb2_grpc, registry_pb2_grpc

EXAMPLES = """
  python -m shoal_gateway.registry --zookeeper 127.0.0.1:2181/gateway \\
      --store sqlite:////var/lib/shoal/registry.db
  python -m shoal_gateway.registry --zookeeper zk1:2181,zk2:2181/gateway --id registry-2 \\
      --host host-2 --bind 127.0.2.1:0 --store postgresql://shoal@db.example/shoal
"""


async def serve(options: runtime.Common, store: Store) -> None:
    """Serves until told to stop, then drains."""
    members = Members(store)
    registry = Registry(store, quotas=lambda: members.quotas)
    servicer = RegistryServicer(registry)
    server = runtime.Server("registry", options, leaving=servicer.leave, limit=following.UNLIMITED)

    def tune(wanted: tunables.Registry) -> None:
        following.limit(server.admission, wanted.limit)
        servicer.sweep_every = wanted.sweep_every
        members.quotas = Quotas(**wanted.quotas.model_dump())

    telemetry.here().gauge(
        "shoal.jobs",
        "{job}",
        "Jobs in the store, by state; every replica says the same",
        ("shoal.state",),
        Counted(registry.counts),
    )
    registry_pb2_grpc.add_RegistryServicer_to_server(servicer, server)
    accounts_pb2_grpc.add_AccountsServicer_to_server(MembersServicer(members, servicer), server)
    background: list[asyncio.Task[None]] = []
    try:
        async with runtime.open_aio_directory(options) as directory:
            following.follow(directory, "registry", tunables.Registry(), tune)
            # One replica takes expired leases back. Who can't hear from ZooKeeper does not know
            # whether one does, and does it too: leases expire in an outage as well.
            sweeping = servicer.keep_swept(lambda: not directory.connected)
            background.append(asyncio.create_task(sweeping, name="registry sweeper"))
            async with Leadership(directory, fences.REAPER, servicer.reap, who=options.id):
                await server.run(directory, bind=options.bind, advertise=options.advertise)
    finally:
        for each in background:
            each.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await servicer.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = runtime.parser(
        "registry",
        "The store of jobs, attempts, events and manifests, and the only way to it. Several"
        " replicas work on one store.",
        EXAMPLES,
    )
    parser.add_argument(
        "--store",
        required=True,
        metavar="URL",
        help="SQLAlchemy URL of the store: sqlite:////absolute/path/registry.db, or, for several"
        " hosts, postgresql://user@host:5432/database",
    )
    parser.add_argument(
        "--store-wait",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="to wait at the start for a store that does not answer yet (default: %(default)g)",
    )
    parsed = parser.parse_args(arguments)
    options = runtime.common_options(parsed)
    with runtime.observed("registry", options) as options:
        try:
            store = Store(parsed.store, wait=parsed.store_wait)
        except StoreError as error:
            parser.exit(1, f"{parser.prog}: {error}\n")
        try:
            asyncio.run(serve(options, store))
        finally:
            store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
