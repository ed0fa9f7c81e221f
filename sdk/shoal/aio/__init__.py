"""The asyncio half of Shoal: the same directory, channels, servers and recipes, awaited."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.aio.channel import Channel
    from shoal.aio.config import Config
    from shoal.aio.directory import Directory
    from shoal.aio.failures import AioCallError
    from shoal.aio.gathering import Barrier, DoubleBarrier, Group, MeetingPoint
    from shoal.aio.leadership import Leadership, Term
    from shoal.aio.lock import Lock
    from shoal.aio.server import Server
else:
    from shoal import lazily

    # Loaded when they are asked for, as those of `shoal`.
    __getattr__, __dir__ = lazily.names(
        __name__,
        {
            "shoal.aio.channel": "Channel",
            "shoal.aio.config": "Config",
            "shoal.aio.directory": "Directory",
            "shoal.aio.failures": "AioCallError",
            "shoal.aio.gathering": "Barrier DoubleBarrier Group MeetingPoint",
            "shoal.aio.leadership": "Leadership Term",
            "shoal.aio.lock": "Lock",
            "shoal.aio.server": "Server",
        },
    )

__all__ = [
    "AioCallError",
    "Barrier",
    "Channel",
    "Config",
    "Directory",
    "DoubleBarrier",
    "Group",
    "Leadership",
    "Lock",
    "MeetingPoint",
    "Server",
    "Term",
]
