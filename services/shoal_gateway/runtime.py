"""What the gateway's processes share: command line, logging, and the way into the directory.

The options mean the same for each service, so that whoever starts a fleet needs one way of saying
where things are.
"""

from __future__ import annotations

import argparse
import logging
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import shoal.aio
import shoal.directory
from shoal.aio.server import Server as AioServer
from shoal.drainreport import DrainReport

__all__ = [
    "RELEASE_FILE",
    "Common",
    "Server",
    "common_options",
    "configure_logging",
    "installed_version",
    "open_aio_directory",
    "open_directory",
    "parser",
]

# Beside this file in a copy of the code that was given a name; see ``fleet/releases.py``.
RELEASE_FILE = "RELEASE"

LOG_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)s %(name)s %(message)s"
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

    def identity(self) -> dict[str, Any]:
        """What a replica says of itself, as keyword arguments of `shoal.Server`."""
        return {"id": self.id, "version": self.version, "zone": self.zone, "host": self.host}


def encrypted(options: Common) -> bool:  # noqa: ARG001 - what will tell is in there
    """Whether the service's own port speaks TLS. Nothing here does yet."""
    return False


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
    made = argparse.ArgumentParser(
        prog=f"python -m shoal_gateway.{service}",
        description=description,
        epilog=f"examples:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
        default="127.0.0.1:0",
        metavar="ADDR:PORT",
        help="where to listen; port 0 takes a free one (default: %(default)s)",
    )
    common.add_argument(
        "--advertise",
        default=None,
        metavar="ADDR",
        help="address that callers reach it at (default: that of --bind)",
    )
    common.add_argument("--zone", default="", help="label of the availability zone")
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
        "--log-level",
        default="INFO",
        choices=["DEBUG", "INFO", "WARNING", "ERROR"],
        help="default: %(default)s",
    )
    return made


def common_options(options: argparse.Namespace) -> Common:
    """The common options out of what was parsed."""
    return Common(
        zookeeper=options.zookeeper,
        id=options.id or str(uuid.uuid4()),
        host=options.host,
        bind=options.bind,
        advertise=options.advertise,
        zone=options.zone,
        version=options.version,
        cache=options.cache,
        log_level=options.log_level,
    )


def configure_logging(level: str) -> None:
    """One line per record to standard error: time, level, logger, message. Times are local."""
    logging.basicConfig(
        level=level, format=LOG_FORMAT, datefmt=LOG_TIME, stream=sys.stderr, force=True
    )
    if level != "DEBUG":
        # Its INFO lines tell of every watch and ping; what matters of them the SDK says itself.
        logging.getLogger("kazoo").setLevel(logging.WARNING)


def open_directory(options: Common) -> shoal.directory.Directory:
    """The process's directory for sync code. Neither blocks nor raises when ZooKeeper is down."""
    return shoal.directory.Directory(options.zookeeper, cache_dir=options.cache)


def open_aio_directory(options: Common) -> shoal.aio.Directory:
    """The process's directory for asyncio code."""
    return shoal.aio.Directory(options.zookeeper, cache_dir=options.cache)


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
        super().__init__(service, **options.identity(), **facts)
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
