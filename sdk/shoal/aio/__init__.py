"""The asyncio half of Shoal: the same directory, channels, servers and recipes, awaited."""

from typing import TYPE_CHECKING, Any

from shoal.aio.channel import Channel
from shoal.aio.directory import Directory
from shoal.aio.failures import AioCallError
from shoal.aio.server import Server

if TYPE_CHECKING:
    from shoal.aio.config import Config
    from shoal.aio.gathering import Barrier, DoubleBarrier, Group, MeetingPoint
    from shoal.aio.leadership import Leadership, Term
    from shoal.aio.lock import Lock

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

# Loaded when they are asked for: most programs never do, and need not have what they stand on.
_RECIPES = {
    "Barrier": "shoal.aio.gathering",
    "Config": "shoal.aio.config",
    "DoubleBarrier": "shoal.aio.gathering",
    "Group": "shoal.aio.gathering",
    "Leadership": "shoal.aio.leadership",
    "Lock": "shoal.aio.lock",
    "MeetingPoint": "shoal.aio.gathering",
    "Term": "shoal.aio.leadership",
}


def __getattr__(name: str) -> Any:
    if name in _RECIPES:
        from importlib import import_module

        return getattr(import_module(_RECIPES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
