"""Runs one replica of the api."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from shoal.directory import Directory
from shoal.retry import Retry
from shoal_gateway import following, runtime, tunables
from shoal_gateway.api.accounts import AccountsClient, AccountsServicer
from shoal_gateway.api.callers import Callers
from shoal_gateway.api.catalogue import Catalogue, CatalogueError
from shoal_gateway.api.feed import Feed
from shoal_gateway.api.files import Files, LogSegments
from shoal_gateway.api.hints import WakeHints
from shoal_gateway.api.servicer import ApiServicer, RegistryClient
from shoal_gateway.api.signers import Signers
from shoal_gateway.api.tails import Tails
from shoal_gateway.contracts import CALLS
from shoal_gateway.objectstore import ObjectStore
from shoal_protos.gateway.api.v1 import accounts_pb2_grpc as api_accounts_pb2_grpc
from shoal_protos.gateway.api.v1 import api_pb2_grpc
from shoal_protos.gateway.registry.v1 import accounts_pb2_grpc, registry_pb2_grpc
from shoal_protos.gateway.scheduler.v1 import scheduler_pb2_grpc

logger = logging.getLogger(__name__)

EXAMPLES = """
  python -m shoal_gateway.api --zookeeper 127.0.0.1:2181/gateway \\
      --objects file:///var/lib/shoal/objects --catalogue /etc/shoal/catalogue
  python -m shoal_gateway.api --zookeeper zk1:2181,zk2:2181/gateway --id api-2 --host host-2 \\
      --bind 127.0.2.1:0 --objects s3://my-bucket/objects --catalogue ./catalogue \\
      --users required
"""

# Threads for calls to the object store.
THREADS = 8
# Seconds that one registry has for a call before another is asked. Where a network swallows
# packets nobody says that a connection is dead, and followers of all jobs hang on one call.
ATTEMPT = 4.0


@dataclass(frozen=True, slots=True)
class Signing:
    """What is asked of signatures.

    Attributes:
        required: Whether unsigned jobs are refused.
        trust_for: Seconds for which public keys are trusted when ZooKeeper can't be asked; None:
            without an end.
    """

    required: bool = False
    trust_for: float | None = None


async def serve(
    options: runtime.Common,
    catalogue: Catalogue,
    objects: ObjectStore,
    signing: Signing,
    *,
    users: bool = False,
) -> None:
    """Serves until told to stop, then drains."""
    if users:
        logger.info("callers need a token: users are required")
    else:
        logger.info("open to everybody who can reach it: users are not required (--users)")
    executor = ThreadPoolExecutor(THREADS, thread_name_prefix="objects")
    background: list[asyncio.Task[None]] = []
    try:
        async with runtime.open_aio_directory(options) as directory:
            to_registry = directory.channel(
                "registry", contract=CALLS, retry=Retry(attempt_timeout=ATTEMPT)
            )
            registry = RegistryClient(
                cast(
                    "registry_pb2_grpc.RegistryAsyncStub",
                    registry_pb2_grpc.RegistryStub(to_registry),
                )
            )
            accounts = AccountsClient(
                cast(
                    "accounts_pb2_grpc.AccountsAsyncStub",
                    accounts_pb2_grpc.AccountsStub(to_registry),
                )
            )
            callers = Callers(accounts.whose if users else None)
            feed = Feed(registry.changes)
            to_schedulers = directory.channel("scheduler", contract=CALLS)
            hints = WakeHints(
                cast(
                    "scheduler_pb2_grpc.SchedulerAsyncStub",
                    scheduler_pb2_grpc.SchedulerStub(to_schedulers),
                )
            )
            servicer = ApiServicer(
                catalogue,
                registry,
                Files(objects, executor),
                feed,
                Tails(LogSegments(objects), executor),
                hints,
                signers=signers(directory.sync, signing),
                callers=callers,
                charge=accounts.charge,
            )
            server = runtime.Server(
                "api", options, leaving=servicer.leave, limit=following.UNLIMITED
            )

            def tune(wanted: tunables.Api) -> None:
                following.limit(server.admission, wanted.limit)
                following.retune(to_registry, wanted.retry)
                following.retune(to_schedulers, wanted.retry)

            following.follow(directory, "api", tunables.Api(), tune)
            api_pb2_grpc.add_ApiServicer_to_server(servicer, server)
            api_accounts_pb2_grpc.add_AccountsServicer_to_server(
                AccountsServicer(callers, accounts), server
            )
            background += [
                asyncio.create_task(feed.run(), name="feed"),
                asyncio.create_task(hints.run(), name="wake hints"),
            ]
            await server.run(directory, bind=options.bind, advertise=options.advertise)
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        executor.shutdown()


def signers(directory: Directory, signing: Signing) -> Signers:
    """Who judges signatures; without ``cryptography`` one that can't verify any."""
    try:
        from shoal.recipes.keys import Keys
    except ModuleNotFoundError as error:
        if error.name != "cryptography":
            raise
        return Signers(required=signing.required)
    # Followed until the directory is closed.
    return Signers(Keys(directory, trust_for=signing.trust_for), required=signing.required)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = runtime.parser("api", "The gateway's face to its users.", EXAMPLES)
    runtime.objects_option(parser)
    parser.add_argument(
        "--catalogue",
        required=True,
        type=Path,
        metavar="DIR",
        help="directory of *.toml files, one application each; read once, at the start",
    )
    parser.add_argument(
        "--require-signed",
        action="store_true",
        help="refuse jobs that are not signed with a published key of their owner",
    )
    parser.add_argument(
        "--trust-keys-for",
        type=float,
        default=None,
        metavar="SECONDS",
        help="refuse signed jobs for the moment when ZooKeeper, and so the news of revoked keys,"
        " has been away for longer (default: go on with the keys that are known)",
    )
    parser.add_argument(
        "--users",
        choices=["open", "required"],
        default="open",
        help="whether callers need a token, and see their own jobs only; the first one is made with"
        " `python -m shoal_gateway.registry.first_admin` (default: %(default)s)",
    )
    parser.add_argument(
        "--tokens-in-plain-text",
        action="store_true",
        help="with --users required, take tokens over connections that anybody on the way can read,"
        " and so use them as well",
    )
    parsed = parser.parse_args(arguments)
    options = runtime.common_options(parsed)
    users = parsed.users == "required"
    if users and not parsed.tokens_in_plain_text and in_plain_text(options):
        parser.error(
            f"--users required on {options.bind}: without TLS, whoever sees a token on its way can"
            " use it; give the api a certificate, bind it to a loopback address, or say"
            " --tokens-in-plain-text where the network itself is private"
        )
    with runtime.observed("api", options) as options:
        try:
            catalogue = Catalogue.load(parsed.catalogue)
        except CatalogueError as error:
            parser.exit(1, f"{parser.prog}: {error}\n")
        signing = Signing(parsed.require_signed, parsed.trust_keys_for)
        objects = runtime.open_objects(parser, parsed.objects)
        asyncio.run(serve(options, catalogue, objects, signing, users=users))
    return 0


def in_plain_text(options: runtime.Common) -> bool:
    """Whether what callers send can be read on its way here: no TLS, and not within this host."""
    host = options.bind.rpartition(":")[0].strip("[]")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    return options.tls is None and not loopback


if __name__ == "__main__":
    sys.exit(main())
