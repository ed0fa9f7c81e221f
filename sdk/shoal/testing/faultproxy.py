"""A TCP proxy that misbehaves on command: what networks do to calls, on one machine.

    with FaultProxy("127.0.0.1:50051") as proxy:
        server.run(directory, bind="127.0.0.1:50051", advertise=proxy.address)
        proxy.inject(Fault.drop())
        ...
        proxy.heal()

What a fault holds back is not lost to TCP: it is passed on when the proxy heals, as a network that
comes back delivers what was sent again meanwhile. To the two ends that is one and the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from shoal.addresses import split_address

T = TypeVar("T")

CHUNK = 65536
# Chunks on their way in one direction; beyond them the sender has to wait, as for a full window.
ON_THE_WAY = 64
# Until a command was carried out or the proxy has ended, seconds.
PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong on a way.

    Attributes:
        name: For people.
        requests: Whether bytes from callers to the server pass.
        answers: Whether bytes from the server to callers pass.
        delay: Seconds that every byte is late by, in either direction.
        forgets: Connections that stand when it begins are forgotten for good: the server sees them
            closed, callers see nothing, ever. New ones pass.
    """

    name: str
    requests: bool = True
    answers: bool = True
    delay: float = 0.0
    forgets: bool = False

    @classmethod
    def drop(cls) -> Fault:
        """Nothing passes, and nobody is told: a cable that was pulled."""
        return cls("drop", requests=False, answers=False)

    @classmethod
    def late(cls, seconds: float) -> Fault:
        """Everything is late by so many seconds, each way.

        Raises:
            ValueError: that is no delay.
        """
        if not 0.0 < seconds < float("inf"):
            raise ValueError(f"a delay is a positive number of seconds, not {seconds!r}")
        return cls(f"delay of {seconds:g} s", delay=seconds)

    @classmethod
    def half_open(cls) -> Fault:
        """The connections that stand are forgotten on the way, as by a firewall that restarts."""
        return cls("half-open", forgets=True)

    @classmethod
    def deaf(cls) -> Fault:
        """One-way: the server hears nothing, and what it says arrives."""
        return cls("one-way, requests lost", requests=False)

    @classmethod
    def mute(cls) -> Fault:
        """One-way: the server hears and does everything, and its answers don't arrive."""
        return cls("one-way, answers lost", answers=False)


PASSES = Fault("none")


class _Way:
    """One direction of a connection: read here, written there, late or never."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool
    ) -> None:
        self._reader = reader
        self._writer = writer
        self.back = back
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(ON_THE_WAY)

    async def take(self, proxy: FaultProxy) -> None:
        """Reads until the end; an empty chunk says so to `give`."""
        clock = asyncio.get_running_loop().time
        while True:
            try:
                chunk = await self._reader.read(CHUNK)
            except ConnectionError:
                chunk = b""
            proxy.noticed(len(chunk), back=self.back)
            await self._queue.put((clock() + proxy.fault.delay, chunk))
            if not chunk:
                return

    async def give(self, proxy: FaultProxy) -> None:
        """Writes what is due, while the fault lets it pass."""
        clock = asyncio.get_running_loop().time
        while True:
            due, chunk = await self._queue.get()
            await asyncio.sleep(max(0.0, due - clock()))
            await proxy.gate(back=self.back).wait()
            if not chunk:
                return
            self._writer.write(chunk)
            await self._writer.drain()


@dataclass(eq=False, slots=True)
class _Connection:
    """A caller's connection and ours to the server.

    Attributes:
        client: The caller's.
        server: Ours; None before it is made, and when it was forgotten.
        forgotten: The caller's end stands and nobody is behind it.
    """

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    forgotten: asyncio.Event = field(default_factory=asyncio.Event)


class FaultProxy:
    """Passes bytes on between callers and a server, as a `Fault` lets it.

    It runs on a thread of its own from its construction until `close`.

    Args:
        target: The server's ``host:port``; a function where it is known later. Where nobody
            listens there, a caller's connection is reset, as by a dead server's host.
        listen: Where callers connect; port 0 takes a free one.

    Attributes:
        address: Where callers connect, as ``host:port``.
        fault: What goes wrong now.
        hit: How many bytes, and connections that were forgotten, met with the fault since it began.

    Raises:
        OSError: it can't listen there.
        ValueError: an address can't be read.
    """

    def __init__(self, target: str | Callable[[], str], listen: str = "127.0.0.1:0") -> None:
        if isinstance(target, str):
            split_address(target)
        self._target = target
        # Bound here, so that an error is the constructor's.
        self._listener = socket.create_server(split_address(listen))
        host, port = self._listener.getsockname()[:2]
        self.address = f"{host}:{port}"
        self.fault = PASSES
        self.hit = 0
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"fault-proxy {self.address}")
        self._thread.start()
        self._ready.wait()

    def __repr__(self) -> str:
        return f"<FaultProxy {self.address} fault={self.fault.name} hit={self.hit}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def connections(self) -> int:
        """How many callers' connections stand, the forgotten ones too."""
        return len(self._connections)

    def inject(self, fault: Fault) -> None:
        """From now on things go wrong that way, on connections that stand and on new ones."""
        self._do(self._inject(fault))

    def heal(self) -> None:
        """All passes again, and what was held back is delivered; what was forgotten stays so."""
        self._do(self._inject(PASSES))

    def reset(self) -> None:
        """Breaks all connections, and both ends are told: a process that died, a router's RST."""
        self._do(self._reset())

    def close(self) -> None:
        """Ends it, with all connections."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join(PATIENCE)

    # What follows runs on the proxy's own loop.

    def gate(self, *, back: bool) -> asyncio.Event:
        """Set while bytes of a direction pass."""
        return self._answers if back else self._requests

    def noticed(self, size: int, *, back: bool) -> None:
        """Bytes came to be passed on: ``size`` of them, ``back`` if they are answers."""
        fault = self.fault
        if fault.delay or not (fault.answers if back else fault.requests):
            self.hit += size

    def _do(self, command: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(command, self._loop).result(PATIENCE)

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._ended = asyncio.Event()
        self._requests, self._answers = asyncio.Event(), asyncio.Event()
        self._requests.set()
        self._answers.set()
        server = await asyncio.start_server(self._accepted, sock=self._listener)
        self._ready.set()
        await self._ended.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _inject(self, fault: Fault) -> None:
        self.fault = fault
        self.hit = 0
        for event, passes in ((self._requests, fault.requests), (self._answers, fault.answers)):
            if passes:
                event.set()
            else:
                event.clear()
        if fault.forgets:
            for each in self._connections:
                if not each.forgotten.is_set():
                    self.hit += 1
                    each.forgotten.set()

    async def _reset(self) -> None:
        for each in list(self._connections):
            _abort(each.client)
            if each.server is not None:
                _abort(each.server)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._connected(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(writer)
        self._connections.add(connection)
        if not self.fault.requests:
            self.hit += 1
        try:
            # A handshake that does not arrive: the caller waits.
            await self._requests.wait()
            await self._between(connection, reader)
        finally:
            self._connections.discard(connection)
            _abort(writer)

    async def _between(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        target = self._target() if callable(self._target) else self._target
        try:
            from_server, to_server = await asyncio.open_connection(*split_address(target))
        except OSError:
            return  # nobody there; the caller is told by the reset of its own connection
        connection.server = to_server
        ways = (
            _Way(reader, to_server, back=False),
            _Way(from_server, connection.client, back=True),
        )
        steps = [asyncio.ensure_future(step(self)) for way in ways for step in (way.take, way.give)]
        givers = steps[1::2]
        forgotten = asyncio.ensure_future(connection.forgotten.wait())
        try:
            # One end's close is the other's, once what came before it has arrived.
            await asyncio.wait([*givers, forgotten], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for step in (*steps, forgotten):
                step.cancel()
            await asyncio.gather(*steps, forgotten, return_exceptions=True)
            _abort(to_server)
        if connection.forgotten.is_set():
            connection.server = None
            # Silence, until the caller itself gives up.
            await _until_closed(reader)


async def _until_closed(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        while await reader.read(CHUNK):
            pass


def _abort(writer: asyncio.StreamWriter) -> None:
    """Closes at once; the other end gets a reset for what it had not read."""
    writer.transport.abort()
