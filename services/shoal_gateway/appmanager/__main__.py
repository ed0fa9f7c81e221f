"""Runs one replica of the app manager."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import shoal
from shoal.drain import Phase
from shoal_gateway import following, runtime, telemetry
from shoal_gateway.appmanager import apart
from shoal_gateway.appmanager.logic import AppManager
from shoal_gateway.appmanager.servicer import AppManagerServicer, RegistryCalls
from shoal_gateway.contracts import CALLS
from shoal_gateway.objectstore import ObjectStore
from shoal_protos.gateway.appmanager.v1 import appmanager_pb2_grpc
from shoal_protos.gateway.registry.v1 import registry_pb2_grpc

logger = logging.getLogger(__name__)

EXAMPLES = """
  python -m shoal_gateway.appmanager --zookeeper 127.0.0.1:2181/gateway --flavor local \\
      --root /var/lib/shoal/host --objects file:///var/lib/shoal/objects
  build/flavors/local-legacy/bin/python -m shoal_gateway.appmanager --flavor local-legacy \\
      --zookeeper zk1:2181/gateway --bind 127.0.2.1:0 --host host-2 --slots 4 \\
      --root /var/lib/shoal/host --objects s3://my-bucket/objects
"""


def serve(options: runtime.Common, parsed: argparse.Namespace, objects: ObjectStore) -> None:
    """Manages jobs until told to stop; what runs then is left to the next manager."""
    # Not resolved: the interpreter of a virtual environment is a link.
    python = sys.executable
    accounts = apart.accounts_for(
        parsed.jobs_as, parsed.root.absolute(), python, parsed.job_processes
    )
    if accounts is not None:
        # What this process writes is not for jobs to read; they get a mask of their own.
        os.umask(0o077)
    with runtime.open_directory(options) as directory:
        channel = directory.channel("registry", contract=CALLS)
        calls = RegistryCalls(
            registry_pb2_grpc.RegistryStub(channel),
            manager_id=options.id,
            host=options.host,
            lease=parsed.lease,
            version=options.version,
        )
        manager = AppManager(
            calls,
            objects,
            root=parsed.root,
            flavor=parsed.flavor,
            slots=parsed.slots,
            lease=parsed.lease,
            leash=parsed.leash,
            python=python,
            accounts=accounts,
        )
        manager.open()
        try:
            _follow(directory, channel, calls, manager, parsed)
            _observe(manager)
            server = shoal.Server(
                "appmanager",
                flavor=parsed.flavor,
                metadata={
                    "slots": str(parsed.slots),
                    "jobs_as": "manager" if accounts is None else "own accounts",
                    **options.announced,
                },
                # A call here is short; what makes a manager full is the jobs.
                load_reports=shoal.LoadReporter(utilisation=lambda: manager.utilisation),
                **options.identity(),
                **options.door("appmanager"),
            )
            appmanager_pb2_grpc.add_AppManagerServicer_to_server(
                AppManagerServicer(
                    manager, options.host, lambda: server.roster.phase is not Phase.SERVING
                ),
                server,
            )
            server.run(
                directory, bind=options.bind, advertise=options.advertise, alive=manager.alive
            )
        finally:
            manager.close()


def _observe(manager: AppManager) -> None:
    here, names = telemetry.here(), ("shoal.flavor",)
    flavor = (manager.flavor,)
    here.gauge(
        "shoal.appmanager.slots",
        "{slot}",
        "Jobs that may run here at once",
        names,
        lambda: [(flavor, manager.slots)],
    )
    here.gauge(
        "shoal.appmanager.utilisation",
        "1",
        "Jobs running ÷ slots, at most 1",
        names,
        lambda: [(flavor, manager.utilisation)],
    )
    here.gauge(
        "shoal.appmanager.leases.age",
        "s",
        "Since leases were last renewed; about a quarter of a lease when all is well",
        names,
        lambda: [(flavor, manager.kept_for)],
    )


def _follow(
    directory: shoal.Directory,
    channel: shoal.Channel,
    calls: RegistryCalls,
    manager: AppManager,
    parsed: argparse.Namespace,
) -> None:
    """Takes over what the document says, now and whenever it changes."""
    try:
        from shoal_gateway import tunables
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("shoal"):
            raise
        # The environment of a flavor may be older than this code, or its jobs want another one.
        logger.warning(
            "no configuration is followed here, the command line's holds: %s is missing from the"
            " environment of flavor %s (pip install 'shoal[config]')",
            error.name,
            parsed.flavor,
        )
        return

    def tune(wanted: tunables.AppManager) -> None:
        calls.take_lease(wanted.lease)
        manager.take_lease(wanted.lease, wanted.leash)
        following.retune(channel, wanted.retry)

    told = tunables.AppManager(lease=parsed.lease, leash=parsed.leash)
    following.follow_blocking(directory, "appmanager", told, tune)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = runtime.parser("appmanager", "Runs jobs of one flavor on one host.", EXAMPLES)
    parser.add_argument("--flavor", required=True, help="the kind of jobs: local, local-legacy")
    parser.add_argument(
        "--slots", type=_slots, default=2, help="jobs at once (default: %(default)s)"
    )
    parser.add_argument(
        "--root",
        required=True,
        type=Path,
        metavar="DIR",
        help="this host's own directory: attempts, ledger, installed applications",
    )
    runtime.objects_option(parser)
    parser.add_argument(
        "--lease",
        type=_lease,
        default=6.0,
        metavar="SECONDS",
        help="that a running job may go without a renewal until it is started elsewhere; it is"
        " renewed four times as often (default: %(default)s)",
    )
    parser.add_argument(
        "--leash",
        type=_seconds,
        default=None,
        metavar="SECONDS",
        help="that a job goes on without any manager until its supervisor ends it; longer than the"
        " lease (default: three leases and 15 seconds)",
    )
    parser.add_argument(
        "--jobs-as",
        type=_jobs_as,
        default="auto",
        metavar="WHO",
        help="uids for jobs, one at a time each: 200000-265535; 'auto': a range of ours where this"
        " is root and can use it, else 'manager': all run as this process's account, and can read"
        " each other's files (default: %(default)s)",
    )
    parser.add_argument(
        "--job-processes",
        type=_processes,
        default=apart.PROCESSES,
        metavar="N",
        help="processes and threads of one job, where it has a uid of its own"
        " (default: %(default)s)",
    )
    parsed = parser.parse_args(arguments)
    if parsed.leash is not None and parsed.leash <= parsed.lease:
        parser.error(
            f"--leash {parsed.leash:g} must be longer than --lease {parsed.lease:g}: the next"
            " manager may come until the lease runs out"
        )
    uids = None if parsed.jobs_as == "auto" else apart.parse(parsed.jobs_as)
    if uids is not None and len(uids) < 2 * parsed.slots:
        parser.error(
            f"--jobs-as {parsed.jobs_as} has {len(uids)} uids; {parsed.slots} slots need"
            f" {2 * parsed.slots}: each may have a job's, and one of its worker's"
        )
    options = runtime.common_options(parsed)
    with runtime.observed("appmanager", options, bare=True) as options:
        objects = runtime.open_objects(parser, parsed.objects)
        try:
            serve(options, parsed, objects)
        except apart.ApartError as error:
            parser.exit(1, f"{parser.prog}: --jobs-as: {error}\n")
    return 0


def _jobs_as(text: str) -> str:
    try:
        if text != "auto":
            apart.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _processes(text: str) -> int:
    value = int(text)
    if not 8 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} must be 8 to 1000000")
    return value


def _slots(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1024:
        raise argparse.ArgumentTypeError(f"{text} must be 1 to 1024")
    return value


def _lease(text: str) -> float:
    value = float(text)
    if not 0.5 <= value <= 600.0:
        raise argparse.ArgumentTypeError(f"{text} must be 0.5 to 600 seconds")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.5 <= value <= 3600.0:
        raise argparse.ArgumentTypeError(f"{text} must be 0.5 to 3600 seconds")
    return value


if __name__ == "__main__":
    sys.exit(main())
