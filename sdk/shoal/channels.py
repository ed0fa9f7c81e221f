"""What every directory does with channels: make them, and close them when it closes."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Self, cast

from shoal.errors import DirectoryClosedError
from shoal.protocols import DirectoryLike
from shoal.tls import Tls, files_of

if TYPE_CHECKING:
    from shoal.channel import Channel
    from shoal.views import ChannelView


class ChannelOwner:
    """Makes channels and closes those that are still open at the end.

    Args:
        tls: Certificate and trusted authorities of the channels; None for plaintext.
    """

    def __init__(self, tls: Tls | None = None) -> None:
        self.tls = tls
        # Here, and not at the first call: who starts a process should hear of it.
        self._files = files_of(tls) if tls is not None else None
        self._channels: weakref.WeakSet[Channel] = weakref.WeakSet()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def channel(self, service: str, **options: Any) -> Channel:
        """A channel to a service; see `shoal.Channel` for the options.

        Raises:
            DirectoryClosedError: the directory was closed.
        """
        # Here, so that a process that only announces itself does not load the channel.
        from shoal.channel import Channel

        self._check_open()
        if self.tls is not None and options.get("credentials") is None:
            options.setdefault("tls", self.tls)
        channel = Channel(cast(DirectoryLike, self), service, **options)
        self._channels.add(channel)
        return channel

    def views(self) -> list[ChannelView]:
        """How the channels made here find those they call."""
        return [each.snapshot() for each in list(self._channels) if not each.pool.closed]

    def close(self) -> None:
        """Closes the channels made here. Idempotent."""
        self._closed = True
        for channel in list(self._channels):
            channel.close()

    def _check_open(self) -> None:
        if self._closed:
            raise DirectoryClosedError(f"{self!r} was closed; make a new one")
