"""The directory for asyncio: the same one, with its ends awaited."""

from __future__ import annotations

import asyncio
import random
import weakref
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import shoal.directory
from shoal.contracts import ServedContract
from shoal.contractstore import Reader
from shoal.errors import DirectoryClosedError
from shoal.registrar import ZooKeeperRegistration
from shoal.servicewatch import ServiceWatch
from shoal.tls import Tls
from shoal_balancer import Replica

if TYPE_CHECKING:
    from shoal.aio.channel import Channel
    from shoal.session import HandlerFactory
    from shoal.views import ChannelView


class Directory:
    """`shoal.Directory` for asyncio code.

        async with shoal.aio.Directory("zk1:2181,zk2:2181/gateway") as directory:
            async with directory.channel("registry") as channel: ...

    A thin shell: ZooKeeper is talked to on threads of the directory's own, never on the event loop,
    and what waits for it is awaited here. Arguments and errors are those of `shoal.Directory`.
    """

    def __init__(
        self,
        hosts: str,
        *,
        session_timeout: float = 10.0,
        cache_dir: Path | str | None = None,
        services_path: str = "/services",
        verify_every: float = 30.0,
        resync_every: float = 60.0,
        handler: HandlerFactory | None = None,
        rng: random.Random | None = None,
        tls: Tls | None = None,
    ) -> None:
        self._directory = shoal.directory.Directory(
            hosts,
            session_timeout=session_timeout,
            cache_dir=cache_dir,
            services_path=services_path,
            verify_every=verify_every,
            resync_every=resync_every,
            handler=handler,
            rng=rng,
            tls=tls,
        )
        self._channels: weakref.WeakSet[Channel] = weakref.WeakSet()
        self._closed = False

    def __repr__(self) -> str:
        return f"shoal.aio.{self._directory!r}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def sync(self) -> shoal.directory.Directory:
        """The directory beneath."""
        return self._directory

    @property
    def caller_id(self) -> str:
        """This process in the eyes of the replicas it calls."""
        return self._directory.caller_id

    def channel(self, service: str, **options: Any) -> Channel:
        """A channel to a service; see `shoal.aio.Channel` for the options.

        Raises:
            DirectoryClosedError: the directory was closed.
        """
        # Here, so that a process that only announces itself does not load the channel.
        from shoal.aio.channel import Channel

        if self._closed:
            raise DirectoryClosedError(f"{self!r} was closed; make a new one")
        if self._directory.tls is not None and options.get("credentials") is None:
            options.setdefault("tls", self._directory.tls)
        channel = Channel(self._directory, service, **options)
        self._channels.add(channel)
        return channel

    def views(self) -> list[ChannelView]:
        """How the channels made here, and those of the directory beneath, find those they call."""
        own = [each.snapshot() for each in list(self._channels) if not each.pool.closed]
        return [*own, *self._directory.views()]

    def watch(self, service: str) -> ServiceWatch:
        """The one watch of a service; does not block. Its listeners run on another thread."""
        return self._directory.watch(service)

    async def ready(
        self,
        service: str,
        timeout: float = 15.0,  # noqa: ASYNC109 - one signature for both directories
        *,
        count: int = 1,
    ) -> tuple[Replica, ...]:
        """Waits until ``count`` replicas of a service take calls, and returns them.

        Raises:
            TimeoutError: there were fewer within ``timeout`` seconds.
        """
        return await asyncio.to_thread(self._directory.ready, service, timeout, count=count)

    def announce(
        self,
        service: str,
        replica: Replica,
        *,
        timeout: float = 15.0,
        secure: bool = False,
        contract: ServedContract | None = None,
    ) -> ZooKeeperRegistration:
        """As `shoal.Directory.announce`: it blocks, so call it on a thread.

        It fits `shoal.protocols.DirectoryLike` that way; `shoal.aio.Server` does the rest.
        """
        return self._directory.announce(
            service, replica, timeout=timeout, secure=secure, contract=contract
        )

    def ask_contract(self, digest: str, reader: Reader) -> None:
        """As `shoal.Directory.ask_contract`."""
        self._directory.ask_contract(digest, reader)

    @property
    def connected(self) -> bool:
        """Whether ZooKeeper answers at the moment."""
        return self._directory.connected

    def describe(self) -> str:
        """The session's state for a person."""
        return self._directory.describe()

    async def aclose(self) -> None:
        """Closes channels, withdraws announcements, ends the session. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for channel in list(self._channels):
            await channel.close()
        await asyncio.to_thread(self._directory.close)

    def close(self) -> None:
        """Ends what is below the channels, blocking; `aclose` is for the event loop."""
        self._closed = True
        self._directory.close()
