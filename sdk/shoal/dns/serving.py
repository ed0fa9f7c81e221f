"""A directory's services answered by DNS, from a directory to sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shoal.directory import Directory
from shoal.dns.server import DnsServer
from shoal.dns.view import Zone
from shoal.dns.zonewatch import ZoneWatch


async def serve(
    directory: Directory,
    zone: Zone,
    host: str,
    port: int,
    stopped: asyncio.Event,
    *,
    started: Callable[[DnsServer], object] = lambda _server: None,
) -> None:
    """Answers until ``stopped`` is set.

    Args:
        directory: Whose services.
        zone: Their zone.
        host: Address to bind.
        port: For UDP and TCP; 0: a free one.
        stopped: Ends it.
        started: Called when it answers, with the server, which knows its port.

    Raises:
        BindError: the address or the port can't be had.
        DirectoryClosedError: the directory was closed.
    """
    watch = ZoneWatch(directory, zone)
    try:
        async with DnsServer(watch.view, host, port) as server:
            started(server)
            await stopped.wait()
    finally:
        watch.close()
