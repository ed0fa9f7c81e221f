"""The socket on which systemd hears of its services, with a test at the other end."""

import socket
import time
import uuid

# systemd would kill after so long without a sign of life, seconds; a third of it lies between two.
LIMIT = 0.9


class Manager:
    """Hears what processes say that are born with its environment.

    Args:
        path: Of the socket; an abstract one if None.
    """

    def __init__(self, path=None) -> None:
        self.name = str(path) if path else f"@shoal-{uuid.uuid4()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.name if path else f"\0{self.name[1:]}")

    def environment(self, limit=LIMIT):
        """What a process needs to speak to it."""
        return {"NOTIFY_SOCKET": self.name, "WATCHDOG_USEC": str(round(limit * 1e6))}

    def hears(self, timeout=30.0):
        """The next message's lines; None when there was none in time."""
        self._socket.settimeout(timeout)
        try:
            return self._socket.recv(4096).decode().splitlines()
        except TimeoutError:
            return None

    def awaits(self, state, timeout=30.0):
        """Reads on until a message with a state comes."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0.0:
            lines = self.hears(left)
            if lines and state in lines:
                return lines
        raise AssertionError(f"systemd was not told {state} within {timeout:g} s")

    def forgets(self):
        """Drops what was said until now."""
        self._socket.settimeout(0.0)
        try:
            while True:
                self._socket.recv(4096)
        except BlockingIOError:
            return

    def close(self):
        self._socket.close()
