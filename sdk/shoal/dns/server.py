"""The sockets of the DNS server: UDP and TCP on one port, in one asyncio loop."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Self, cast

from shoal.dns.view import View
from shoal.dns.wire import LONGEST_QUERY, respond
from shoal.errors import BindError

logger = logging.getLogger(__name__)

# TCP connections at once, and how long one may be silent, seconds (RFC 7766).
CONNECTIONS = 200
IDLE = 10.0
# Tries for a free port that is free for UDP and TCP both.
TRIES = 20


class DnsServer:
    """Answers from views of a zone, until it is closed.

        async with DnsServer(zone_watch.view, "127.0.0.1", 5353) as server:
            await stopped.wait()

    Args:
        view: Gives the current view; called once a query, on the loop's thread.
        host: Address to bind.
        port: The same for UDP and TCP; 0: a free one.
        rng: Orders the records of an answer.
    """

    def __init__(
        self,
        view: Callable[[], View],
        host: str = "127.0.0.1",
        port: int = 5353,
        *,
        rng: random.Random | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self._view = view
        self._rng = rng or random.Random()  # noqa: S311 - it spreads load, it keeps no secret
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Binds and answers.

        Raises:
            BindError: the address or the port can't be had; says why.
        """
        last: OSError | None = None
        for _ in range(TRIES if self.port == 0 else 1):
            try:
                await self._bind()
                return
            except OSError as error:
                await self.close()
                last = error
        raise BindError(
            f"can't answer DNS at {self.host} port {self.port}: {last}. Ports below 1024 need root,"
            " and another resolver may have that one: choose another"
        ) from last

    async def _bind(self) -> None:
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(
            self._accepted, self.host, self.port, limit=2 * LONGEST_QUERY
        )
        address = self._tcp.sockets[0].getsockname()
        self._udp, _ = await loop.create_datagram_endpoint(
            lambda: _Udp(self._respond), local_addr=(address[0], address[1])
        )
        self.port = address[1]

    async def close(self) -> None:
        """Answers no more. Idempotent."""
        if self._udp is not None:
            self._udp.close()
            self._udp = None
        if self._tcp is not None:
            self._tcp.close()
            for task in tuple(self._serving):
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)
            await self._tcp.wait_closed()
            self._tcp = None

    def _respond(self, packet: bytes, *, udp: bool) -> bytes | None:
        return respond(packet, self._view(), self._rng, udp=udp)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._serving) >= CONNECTIONS:
            writer.close()
            return
        self._serving.add(task)
        try:
            await self._converse(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            logger.debug("a TCP connection ended: %r", error)
        except asyncio.CancelledError:
            pass  # by close; whoever started this task does not look at it
        finally:
            self._serving.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(IDLE):
                size = int.from_bytes(await reader.readexactly(2))
                if size > LONGEST_QUERY:
                    return
                packet = await reader.readexactly(size)
                reply = self._respond(packet, udp=False)
                if reply is None:
                    return
                writer.write(len(reply).to_bytes(2) + reply)
                await writer.drain()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, respond: Callable[..., bytes | None]) -> None:
        self._respond = respond
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        try:
            reply = self._respond(data, udp=True)
            if reply is not None and self._transport is not None:
                self._transport.sendto(reply, addr)
        except Exception:
            # The next packet is somebody else's.
            logger.exception("a packet from %s was not answered", addr)

    def error_received(self, exc: Exception) -> None:
        # Somebody did not wait for the answer.
        logger.debug("UDP: %r", exc)


def split_address(bind: str) -> tuple[str, int]:
    """Host and port of ``127.0.0.1:5353`` or ``[::1]:5353``.

    Raises:
        ValueError: it is no address and port.
    """
    host, colon, port = bind.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{bind!r} is no address with a port, like 127.0.0.1:5353 or [::1]:5353")
    try:
        socket.getaddrinfo(host, int(port), flags=socket.AI_NUMERICHOST)
    except OSError as error:
        raise ValueError(f"{bind!r}: {host!r} is no IP address") from error
    return host, int(port)
