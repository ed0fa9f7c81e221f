"""The few frames of ZooKeeper's protocol that a load needs.

A load through a full client would measure the client: kazoo takes a whole core for a few thousand
requests a second. So requests are packed once and sent again, and of answers only the header is
read. Everything else of the system speaks through kazoo.

Source: ZooKeeper's ``zookeeper.jute``: each frame is a length and a record, big-endian.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

CREATE, DELETE, GET_DATA, SET_DATA, CLOSE = 1, 2, 4, 5, -11
# Anybody may do anything, as in tests; the load has a chroot of its own.
_OPEN_ACL = struct.pack(">ii", 1, 31)
_HEADER = struct.Struct(">iqi")
_LENGTH = struct.Struct(">i")


class WireError(Exception):
    """The connection ended, or the server would not have us."""


def _text(text: str) -> bytes:
    encoded = text.encode()
    return _LENGTH.pack(len(encoded)) + encoded


def _bytes(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


def request(xid: int, kind: int, body: bytes = b"") -> bytes:
    """A whole frame."""
    return struct.pack(">iii", 8 + len(body), xid, kind) + body


def get(path: str) -> bytes:
    """The body of a read, without a watch."""
    return _text(path) + b"\0"


def put(path: str, data: bytes) -> bytes:
    """The body of a write, whatever version is there."""
    return _text(path) + _bytes(data) + _LENGTH.pack(-1)


def make(path: str, data: bytes) -> bytes:
    """The body of a create of a lasting node."""
    return _text(path) + _bytes(data) + _OPEN_ACL + _text("world") + _text("anyone") + bytes(4)


def remove(path: str) -> bytes:
    """The body of a delete, whatever version is there."""
    return _text(path) + _LENGTH.pack(-1)


class Connection:
    """A session of its own on one server.

    Args:
        host: The server's address.
        port: Its client port.
        timeout: Seconds to connect, and for each blocking answer.
        session: The session's timeout, seconds.

    Raises:
        OSError: nobody listens there.
        WireError: whoever listens doesn't serve.
    """

    def __init__(
        self, host: str, port: int, *, timeout: float = 5.0, session: float = 10.0
    ) -> None:
        self.socket = socket.create_connection((host, port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        body = struct.pack(">iqiq", 0, 0, int(session * 1000), 0) + _bytes(bytes(16)) + b"\0"
        try:
            self.socket.sendall(_bytes(body))
            while (answer := self._frame()) is None:
                self._receive()
        except (OSError, WireError):
            self.socket.close()
            raise
        (granted,) = struct.unpack_from(">i", answer, 4)
        if granted <= 0:
            self.socket.close()
            raise WireError(f"{host}:{port} refused the session")

    def send(self, frames: bytes) -> None:
        """Sends whole frames, however long the server takes to read them.

        Raises:
            OSError: the connection has ended.
        """
        rest = memoryview(frames)
        while rest:
            try:
                rest = rest[self.socket.send(rest) :]
            except TimeoutError:
                # Both sides' buffers are full; the server answers before it reads on.
                self._receive()

    def arrived(self) -> Iterator[int]:
        """The error codes of what has been answered, in the order of the requests; 0 is none.

        Waits for the socket's timeout at most. ZooKeeper answers a session in order.

        Raises:
            OSError, WireError: the connection has ended.
        """
        try:
            self._receive()
        except TimeoutError:
            return
        while (frame := self._frame()) is not None:
            xid, _, error = _HEADER.unpack_from(frame)
            if xid > 0:  # others are pings and watches
                yield error

    def call(self, kind: int, body: bytes) -> int:
        """One request and its answer; returns the error code.

        Raises:
            OSError, WireError: the connection has ended.
        """
        self.socket.sendall(request(1, kind, body))
        while True:
            while (frame := self._frame()) is None:
                self._receive()
            xid, _, error = _HEADER.unpack_from(frame)
            if xid == 1:
                return int(error)

    def close(self) -> None:
        """Ends the session, if the server still listens."""
        try:
            self.socket.sendall(request(1, CLOSE))
        except OSError:
            # It is dead, and forgets the session by itself.
            pass
        finally:
            self.socket.close()

    def _receive(self) -> None:
        data = self.socket.recv(1 << 18)
        if not data:
            raise WireError("the server closed the connection")
        self._buffer += data

    def _frame(self) -> bytes | None:
        buffer = self._buffer
        if len(buffer) < 4:
            return None
        (length,) = _LENGTH.unpack_from(buffer)
        if len(buffer) < 4 + length:
            return None
        frame = bytes(buffer[4 : 4 + length])
        del buffer[: 4 + length]
        return frame
