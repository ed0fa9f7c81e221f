"""Runs one replica of the scheduler."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Sequence
from typing import cast

from shoal_gateway import following, runtime, telemetry, tunables
from shoal_gateway.contracts import CALLS
from shoal_gateway.scheduler.logic import Dispatcher
from shoal_gateway.scheduler.ports import FleetManagers, RegistryQueue
from shoal_gateway.scheduler.servicer import SchedulerServicer
from shoal_protos.gateway.registry.v1 import registry_pb2_grpc
from shoal_protos.gateway.scheduler.v1 import scheduler_pb2_grpc

EXAMPLES = """
  python -m shoal_gateway.scheduler --zookeeper 127.0.0.1:2181/gateway
  python -m shoal_gateway.scheduler --zookeeper zk1:2181,zk2:2181/gateway --id scheduler-2 \\
      --host host-2 --bind 127.0.2.1:0 --poll 0.2 --lease 10
"""


async def serve(options: runtime.Common, poll: float, lease: float) -> None:
    """Schedules until told to stop, then gives back what it holds."""
    async with runtime.open_aio_directory(options) as directory:
        to_registry = directory.channel("registry", contract=CALLS)
        registry = cast(
            "registry_pb2_grpc.RegistryAsyncStub", registry_pb2_grpc.RegistryStub(to_registry)
        )
        queue = RegistryQueue(registry, options.id, lease)
        managers = FleetManagers(directory, lease)
        dispatcher = Dispatcher(
            queue,
            managers,
            poll=poll,
            rng=random.Random(),  # noqa: S311 - spreads polls, hides nothing
        )

        def tune(wanted: tunables.Scheduler) -> None:
            queue.lease_seconds = wanted.lease
            managers.take_lease(wanted.lease)
            dispatcher.poll = wanted.poll
            dispatcher.max_batch = wanted.max_batch
            following.retune(to_registry, wanted.retry)
            # Not after a pause of the old length.
            dispatcher.wake()

        told = tunables.Scheduler(lease=lease, poll=poll)
        following.follow(directory, "scheduler", told, tune)
        _observe(dispatcher)
        server = runtime.Server("scheduler", options, leaving=dispatcher.stop)
        scheduler_pb2_grpc.add_SchedulerServicer_to_server(SchedulerServicer(dispatcher), server)
        async with asyncio.TaskGroup() as group:
            group.create_task(dispatcher.run(), name="dispatcher")
            try:
                await server.run(directory, bind=options.bind, advertise=options.advertise)
            finally:
                dispatcher.stop()


def _observe(dispatcher: Dispatcher) -> None:
    tally = dispatcher.tally
    telemetry.here().gauge(
        "shoal.scheduler.offers",
        "{offer}",
        "Jobs that were leased, started by a manager, given back, or taken by another meanwhile",
        ("shoal.outcome",),
        lambda: [
            (("leased",), tally.leased),
            (("started",), tally.started),
            (("released",), tally.released),
            (("taken",), tally.taken),
        ],
        grows=True,
    )
    telemetry.here().gauge(
        "shoal.scheduler.on_offer",
        "{job}",
        "Jobs that this scheduler holds and has found no manager for yet",
        (),
        lambda: [((), tally.on_offer)],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = runtime.parser(
        "scheduler", "Leases queued jobs and offers them to app managers.", EXAMPLES
    )
    parser.add_argument(
        "--poll",
        type=_seconds,
        default=0.5,
        metavar="SECONDS",
        help="between looks at an empty queue (default: %(default)s)",
    )
    parser.add_argument(
        "--lease",
        type=_seconds,
        default=15.0,
        metavar="SECONDS",
        help="that an offer may take until the job is queued again (default: %(default)s)",
    )
    parsed = parser.parse_args(arguments)
    options = runtime.common_options(parsed)
    with runtime.observed("scheduler", options) as options:
        asyncio.run(serve(options, parsed.poll, parsed.lease))
    return 0


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 600.0:
        raise argparse.ArgumentTypeError(f"{text} must be 0.1 to 600 seconds")
    return value


if __name__ == "__main__":
    sys.exit(main())
