"""What the gateway's processes share: command line, logging, and the way into the directory.

The options mean the same for each service, so that whoever starts a fleet needs one way of saying
where things are.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import shoal.aio
import shoal.directory
from shoal.addresses import advertised, towards
from shoal.aio.server import Server as AioServer
from shoal.drainreport import DrainReport
from shoal.errors import TlsError
from shoal.tls import Tls, check_service, files_of
from shoal_gateway import telemetry
from shoal_gateway.access import CALLERS
from shoal_gateway.aws.metadata import InstanceMetadata, MetadataError
from shoal_gateway.jsonlogs import JsonFormatter
from shoal_gateway.objectstore import ObjectStore, ObjectStoreError
from shoal_gateway.settings import Parser

__all__ = [
    "RELEASE_FILE",
    "Common",
    "Server",
    "common_options",
    "configure_logging",
    "installed_version",
    "objects_option",
    "observed",
    "open_aio_directory",
    "open_directory",
    "open_objects",
    "parser",
]

logger = logging.getLogger(__name__)

# Beside this file in a copy of the code that was given a name; see ``fleet/releases.py``.
RELEASE_FILE = "RELEASE"

# Where a replica listens unless it is told where it is.
LOOPBACK = "127.0.0.1"

LOG_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)s %(name)s %(message)s"
FROM_THE_ENVIRONMENT = (
    "Each option but --version may come from the environment: --log-level is SHOAL_LOG_LEVEL,"
    " --cache is\nSHOAL_CACHE_DIR. The command line wins."
)
LOG_TIME = "%Y-%m-%dT%H:%M:%S"


@dataclass(frozen=True, slots=True)
class Common:
    """The options that every service takes."""

    zookeeper: str
    id: str
    host: str
    bind: str
    advertise: str | None
    zone: str
    version: str
    cache: Path | None
    log_level: str
    tls: Tls | None = None
    log_format: str = "text"
    metrics: tuple[str, int] | None = None
    # Further metadata that it is announced with.
    announced: Mapping[str, str] = field(default_factory=dict)

    def door(self, service: str) -> dict[str, Any]:
        """Whom a service lets in, as keyword arguments of `shoal.Server`."""
        if self.tls is None:
            return {}
        return {"tls": self.tls, "callers": CALLERS[service]}

    def identity(self) -> dict[str, Any]:
        """What a replica says of itself, as keyword arguments of `shoal.Server`."""
        return {"id": self.id, "version": self.version, "zone": self.zone, "host": self.host}


def installed_version() -> str:
    """Version of this code: its release, else that of the installed distribution.

    "unknown" when the code runs from a bare path.
    """
    try:
        return Path(__file__).with_name(RELEASE_FILE).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        pass  # not a release
    try:
        return metadata.version("shoal")
    except metadata.PackageNotFoundError:
        return "unknown"


def parser(service: str, description: str, examples: str) -> argparse.ArgumentParser:
    """A service's command line with the common options; the service adds its own.

    Args:
        service: Name in the directory, "registry".
        description: One sentence for ``--help``.
        examples: Command lines, one per line, shown as they are.
    """
    listed = examples.strip("\n")
    made = Parser(
        prog=f"python -m shoal_gateway.{service}",
        description=description,
        epilog=f"examples:\n{listed}\n\n{FROM_THE_ENVIRONMENT}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.set_defaults(program=made.prog)
    common = made.add_argument_group("options that every service takes")
    common.add_argument(
        "--zookeeper",
        required=True,
        metavar="HOSTS/CHROOT",
        help="where the directory is: 127.0.0.1:2181/gateway",
    )
    common.add_argument(
        "--id", default=None, help="this replica's id in the directory (default: a UUID)"
    )
    common.add_argument("--host", default="", metavar="NAME", help="label of the host it runs on")
    common.add_argument(
        "--bind",
        default=None,
        metavar="ADDR:PORT",
        help=f"where to listen; port 0 takes a free one (default: {LOOPBACK}:0)",
    )
    common.add_argument(
        "--advertise",
        default=None,
        metavar="ADDR",
        help="address that callers reach it at; auto: the one that this host reaches ZooKeeper from"
        " (default: that of --bind)",
    )
    common.add_argument("--zone", default="", help="label of the availability zone")
    common.add_argument(
        "--placement",
        choices=["told", "ec2"],
        default="told",
        help="where host, zone and address come from when they are not given: told: nowhere; ec2:"
        " the instance's metadata (its id, availability zone and private IPv4 address)"
        " (default: %(default)s)",
    )
    common.add_argument(
        "--version",
        default=installed_version(),
        help="version that it is announced with (default: %(default)s)",
    )
    common.add_argument(
        "--cache",
        type=Path,
        default=None,
        metavar="DIR",
        help="where the directory's last good state is kept, to start while ZooKeeper is down"
        " (default: $SHOAL_CACHE_DIR or ~/.cache/shoal)",
    )
    common.add_argument(
        "--tls",
        type=partial(_certificate, service),
        default=None,
        metavar="DIR",
        help="directory with tls.crt, tls.key and ca.crt, of which `shoal certs` makes some for"
        " development: it then speaks TLS only, and takes no caller without a certificate; read"
        " again when they change (default: plain text)",
    )
    common.add_argument(
        "--log-level",
        default="INFO",
        choices=["DEBUG", "INFO", "WARNING", "ERROR"],
        help="default: %(default)s",
    )
    common.add_argument(
        "--log-format",
        default="text",
        choices=["text", "json"],
        help="json: one object a line, with service, replica, and job, attempt and trace where they"
        " are known (default: %(default)s)",
    )
    common.add_argument(
        "--metrics",
        type=telemetry.address,
        default=None,
        metavar="ADDR:PORT",
        help="where Prometheus reads metrics, at /metrics, in plain text and for all who can reach"
        " it; port 0 takes a free one (needs shoal[otel]; default: nowhere). Where OTEL_* ask for"
        " it, metrics and traces are sent by OTLP as well",
    )
    return made


def common_options(options: argparse.Namespace) -> Common:
    """The common options out of what was parsed; asks the machine what it was not told.

    Ends the process with a sentence when ``--placement ec2`` finds no instance, or ``--advertise
    auto`` no way to ZooKeeper.
    """
    advertise = options.advertise
    if advertise == "auto":
        try:
            advertise = towards(options.zookeeper)
        except OSError as error:
            sys.exit(f"--advertise auto: {error}. Name the address, or mend the way there.")
    told = Common(
        zookeeper=options.zookeeper,
        id=options.id or str(uuid.uuid4()),
        host=options.host,
        bind=options.bind or f"{LOOPBACK}:0",
        advertise=advertise,
        zone=options.zone,
        version=options.version,
        cache=options.cache,
        log_level=options.log_level,
        tls=options.tls,
        log_format=options.log_format,
        metrics=options.metrics,
    )
    if options.placement != "ec2":
        return told
    try:
        found = InstanceMetadata().placement()
    except MetadataError as error:
        sys.exit(f"{options.program}: --placement ec2: {error}")
    return replace(
        told,
        host=told.host or found.host,
        zone=told.zone or found.zone,
        bind=options.bind or f"{found.address}:0",
        advertise=told.advertise or found.address,
    )


def objects_option(made: argparse.ArgumentParser) -> None:
    """Adds ``--objects`` to a service that reads or writes objects."""
    made.add_argument(
        "--objects",
        required=True,
        metavar="URL",
        help="where inputs, outputs and logs are kept: file:///absolute/path, or s3://bucket/prefix"
        " (needs shoal[aws]; region and credentials are found as boto3 finds them)",
    )


def open_objects(made: argparse.ArgumentParser, url: str) -> ObjectStore:
    """The store that ``--objects`` names; ends the process with a sentence when it can't be."""
    try:
        return ObjectStore.open(url)
    except (ValueError, ObjectStoreError) as error:
        made.exit(1, f"{made.prog}: --objects: {error}\n")


def _certificate(service: str, directory: str) -> Tls:
    tls = Tls.of(directory)
    try:
        # Now, for an error of the command line; what comes later goes to the log.
        check_service(files_of(tls), service)
    except TlsError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return tls


def configure_logging(level: str, form: str = "text", **facts: str) -> None:
    """One line per record to standard error: time, level, logger, message.

    Args:
        level: The least that is written.
        form: "text", with local times, or "json".
        facts: What each line of JSON says besides.
    """
    logging.basicConfig(
        level=level, format=LOG_FORMAT, datefmt=LOG_TIME, stream=sys.stderr, force=True
    )
    if form == "json":
        for handler in logging.root.handlers:
            handler.setFormatter(JsonFormatter(facts))
    if level != "DEBUG":
        # Their INFO lines tell of every watch, ping and credential; what matters we say ourselves.
        for chatty in ("kazoo", "botocore"):
            logging.getLogger(chatty).setLevel(logging.WARNING)


@contextmanager
def observed(service: str, options: Common, *, bare: bool = False) -> Iterator[Common]:
    """Logs, and observes where that is asked for, until the block ends.

    Gives the options with what is announced of it. Ends the process with a sentence when what is
    asked for can't be had.

    Args:
        service: Name in the directory.
        options: What is asked for.
        bare: Whether it goes on, with a warning, where OpenTelemetry is not installed: jobs of a
            flavor may want an environment without it.
    """
    configure_logging(options.log_level, options.log_format, service=service, replica=options.id)
    try:
        wanted = telemetry.Wanted.of(options.metrics, os.environ)
        facts = {
            "service.name": f"shoal-{service}",
            "service.instance.id": options.id,
            "service.version": options.version,
            "host.name": options.host,
            "cloud.availability_zone": options.zone,
        }
        if bare and wanted and not telemetry.installed():
            logger.warning(
                "nothing is observed here: opentelemetry is missing: %s", telemetry.EXTRA
            )
            wanted = telemetry.Wanted()
        with telemetry.observing(wanted, facts) as seen:
            yield replace(options, announced=_announced(seen.page, options))
    except telemetry.TelemetryError as error:
        sys.exit(f"python -m shoal_gateway.{service}: {error}")


def _announced(page: str, options: Common) -> dict[str, str]:
    if not page:
        return {}
    try:
        host, _ = advertised(options.bind, options.advertise)
    except ValueError:
        # The server will say so when it begins.
        return {}
    return {"metrics": telemetry.announced(page, host)}


def open_directory(options: Common) -> shoal.directory.Directory:
    """The process's directory for sync code. Neither blocks nor raises when ZooKeeper is down."""
    return shoal.directory.Directory(options.zookeeper, cache_dir=options.cache, tls=options.tls)


def open_aio_directory(options: Common) -> shoal.aio.Directory:
    """The process's directory for asyncio code."""
    return shoal.aio.Directory(options.zookeeper, cache_dir=options.cache, tls=options.tls)


class Server(AioServer):
    """An asyncio server that tells its service when the drain begins.

    A service that holds calls open on purpose (followers, long polls) or takes work by itself must
    hear of it then; a drain that only waited for them would last as long as its grace.

    Args:
        service: Name in the directory.
        options: Says who the replica is.
        leaving: Called once, on the event loop, when the drain begins.
        facts: Further arguments of `shoal.aio.Server`.
    """

    def __init__(
        self, service: str, options: Common, *, leaving: Callable[[], object], **facts: Any
    ) -> None:
        # Each answer says how loaded the replica is, which is what `shoal top` asks for.
        facts.setdefault("load_reports", True)
        super().__init__(
            service,
            metadata=options.announced,
            **options.identity(),
            **options.door(service),
            **facts,
        )
        self._leaving = leaving
        self._told = False

    async def drain(
        self, *, linger: float | None = None, grace: float | None = None
    ) -> DrainReport:
        """As `shoal.aio.Server.drain`, the service told first."""
        if not self._told:
            self._told = True
            self._leaving()
        return await super().drain(linger=linger, grace=grace)
