"""The asyncio half of Shoal: the same directory, channels and servers, awaited."""

from shoal.aio.channel import Channel
from shoal.aio.directory import Directory
from shoal.aio.failures import AioCallError
from shoal.aio.server import Server

__all__ = ["AioCallError", "Channel", "Directory", "Server"]
