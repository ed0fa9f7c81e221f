"""A way to a PostgreSQL that loses the answer to a commit."""

from __future__ import annotations

import contextlib
import select
import socket
import threading

import sqlalchemy as sa

# How a client says it, as a query of its own.
COMMIT = b"COMMIT\0"


class CommitCutter:
    """Passes bytes on between clients and a server, until a commit comes by while it is armed.

    Then both connections are cut: after the server has answered, and nobody hears it ("after"), or
    before the server has heard of it ("before").
    """

    def __init__(self, url: str) -> None:
        real = sa.make_url(url)
        self._server = (real.host, real.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = real.set(
            host="127.0.0.1", port=self._listener.getsockname()[1]
        ).render_as_string(hide_password=False)
        self._armed, self._skip = "", 0
        self.cuts = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self, when: str, *, skip: int = 0) -> None:
        """Arms it: "before" or "after" the next commit, once it has let ``skip`` of them pass."""
        self._skip, self._armed = skip, when

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=30)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._pass_on, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _pass_on(self, client: socket.socket) -> None:
        # One of the two may be reset: then both are done with.
        with (
            client,
            socket.create_connection(self._server) as server,
            contextlib.suppress(ConnectionError),
        ):
            while self._passed_on(client, server):
                pass

    def _passed_on(self, client: socket.socket, server: socket.socket) -> bool:
        """Passes on what there is; False when that was the last."""
        ready, _, _ = select.select([client, server], [], [])
        for source in ready:
            data = source.recv(65536)
            if not data:
                return False
            if source is client and self._armed and COMMIT in data:
                if not self._skip:
                    self._cut(server, data)
                    return False
                self._skip -= 1
            (client if source is server else server).sendall(data)
        return True

    def _cut(self, server: socket.socket, data: bytes) -> None:
        when, self._armed = self._armed, ""
        if when == "after":
            server.sendall(data)
            assert server.recv(65536)
        self.cuts += 1
