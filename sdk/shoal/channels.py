"""What every directory does with channels: make them, and close them when it closes."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Self, cast

from shoal.errors import DirectoryClosedError
from shoal.protocols import DirectoryLike

if TYPE_CHECKING:
    from shoal.channel import Channel


class ChannelOwner:
    """Makes channels and closes those that are still open at the end."""

    def __init__(self) -> None:
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
        channel = Channel(cast(DirectoryLike, self), service, **options)
        self._channels.add(channel)
        return channel

    def close(self) -> None:
        """Closes the channels made here. Idempotent."""
        self._closed = True
        for channel in list(self._channels):
            channel.close()

    def _check_open(self) -> None:
        if self._closed:
            raise DirectoryClosedError(f"{self!r} was closed; make a new one")
