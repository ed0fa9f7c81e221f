"""Runs the dashboard: binds, follows the fleet, serves until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from shoal.directory import Directory
from shoal.errors import BindError
from shoal.treewatch import TreeWatch
from shoal_gateway.dashboard.documents import Documents
from shoal_gateway.dashboard.gateway import Gateway
from shoal_gateway.dashboard.watcher import Watcher
from shoal_gateway.dashboard.web import Actor, Pages
from shoal_gateway.fleet.layout import SERVICES

DEFAULT_PORT = 8470


@dataclass(frozen=True, slots=True)
class Options:
    """How the page is served.

    Attributes:
        bind: Address to listen on.
        port: Port; None: `DEFAULT_PORT`, or a free one where that is taken.
        names: Names of this machine by which browsers come, besides ``bind``.
        token: Shown to the gateway; None where nobody asks for one.
        url_file: Written with the URL when it is served; None: nothing.
    """

    bind: str = "127.0.0.1"
    port: int | None = None
    names: Collection[str] = field(default_factory=tuple)
    token: str | None = None
    url_file: Path | None = None


def bound(address: str, port: int | None) -> socket.socket:
    """A listening socket.

    Raises:
        BindError: it can't be had; says why.
    """
    if port is None:
        with contextlib.suppress(BindError):
            return bound(address, DEFAULT_PORT)
        return bound(address, 0)
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
        made = socket.socket(found[0][0], socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(found[0][4])
            made.listen(128)
        except BaseException:
            made.close()
            raise
    except OSError as error:
        why = error.strerror or str(error)
        raise BindError(
            f"the dashboard can't listen on {address}:{port}: {why}; --port 0 takes a free one"
        ) from error
    return made


def url_of(made: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = made.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = socket.gethostname()
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class Server(uvicorn.Server):
    """Uvicorn's, whose signals are ours."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.serves = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Says when it serves."""
        await super().startup(sockets)
        self.serves.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals alone."""
        yield


async def serve(
    directory: Directory,
    options: Options,
    *,
    actor: Actor | None = None,
    ready: Callable[[str], object] = lambda _: None,
) -> None:
    """Serves until SIGINT or SIGTERM.

    Args:
        directory: Of the fleet.
        options: How.
        actor: What may be done to the fleet; None: nothing.
        ready: Called with the URL once it is served.

    Raises:
        BindError: the address can't be had.
        Exception: what follows the fleet has failed, and the page was ended with it.
    """
    listening = bound(options.bind, options.port)
    url = url_of(listening)
    names = {options.bind, socket.gethostname(), *options.names}
    watcher = Watcher(directory, hosts=directory.hosts, state=directory.describe)
    gateway = Gateway(directory, options.token)
    documents = Documents(directory)
    pages = Pages(watcher, gateway, documents, actor, title=directory.hosts, names=names)
    loop = asyncio.get_running_loop()
    watcher.follow(SERVICES)
    services = TreeWatch(directory, directory.services_below)
    unsubscribe = services.subscribe(
        lambda tree: loop.call_soon_threadsafe(watcher.follow, sorted(tree))
    )
    server = Server(
        uvicorn.Config(
            pages.app(), log_level="warning", access_log=False, timeout_graceful_shutdown=2
        )
    )

    def end() -> None:
        server.should_exit = True
        # Pages stay connected for ever; a server that waits for them never ends.
        watcher.hub.close()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    work: list[asyncio.Task[Any]] = [
        asyncio.create_task(watcher.run()),
        asyncio.create_task(gateway.follow(watcher.note_job)),
        asyncio.create_task(_tell(server, url, options.url_file, ready)),
    ]

    def ended(task: asyncio.Task[Any]) -> None:
        # A page that stands still must not look like a fleet that does.
        if not task.cancelled() and task.exception() is not None:
            end()

    for task in work:
        task.add_done_callback(ended)
    try:
        await server.serve(sockets=[listening])
    finally:
        for task in work:
            task.cancel()
        results = await asyncio.gather(*work, return_exceptions=True)
        unsubscribe()
        services.stop()
        await gateway.close()
        listening.close()
    for result in results:
        if isinstance(result, Exception):
            raise result


async def _tell(
    server: Server, url: str, file: Path | None, ready: Callable[[str], object]
) -> None:
    await server.serves.wait()
    if file is not None:
        fresh = file.with_suffix(".tmp")
        fresh.write_text(url + "\n", encoding="utf-8")
        fresh.replace(file)
    ready(url)
