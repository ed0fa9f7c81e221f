"""The TCP proxy that misbehaves on command, with plain sockets at both ends."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from shoal.testing import Fault, FaultProxy
from tests.support.waiting import eventually

# Long enough that an answer on loopback would have come.
SILENCE = 0.3


class Parrot:
    """Answers what it hears, in capitals, and keeps it."""

    def __init__(self) -> None:
        self.heard = b""
        self.ended = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._talk, args=(connection,)))
            self._threads[-1].start()

    def _talk(self, connection) -> None:
        with connection:
            try:
                while said := connection.recv(1024):
                    self.heard += said
                    connection.sendall(said.upper())
            except ConnectionError:
                pass
        self.ended += 1

    def stop(self) -> None:
        # Closing alone does not wake a thread in accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def parrot():
    it = Parrot()
    yield it
    it.stop()


@pytest.fixture
def proxy(parrot):
    with FaultProxy(parrot.target) as it:
        yield it


@pytest.fixture
def dial(proxy):
    made = []

    def connect():
        host, port = proxy.address.split(":")
        made.append(socket.create_connection((host, int(port)), timeout=10))
        return made[-1]

    yield connect
    for each in made:
        each.close()


def silent(connection) -> bool:
    """Whether nothing comes."""
    connection.settimeout(SILENCE)
    try:
        came = connection.recv(1024)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(10)
    raise AssertionError(f"{came!r} came")


def closed(connection) -> bool:
    """Whether the other end has ended it, by a word or by a reset."""
    with contextlib.suppress(ConnectionError):
        return connection.recv(1024) == b""
    return True


def say(connection, words=b"hello"):
    connection.sendall(words)
    return connection.recv(1024)


def test_it_passes_bytes_both_ways(dial, parrot):
    assert say(dial()) == b"HELLO"
    assert parrot.heard == b"hello"


def test_what_was_dropped_is_delivered_when_it_heals(dial, proxy, parrot):
    connection = dial()
    assert say(connection) == b"HELLO"
    proxy.inject(Fault.drop())
    connection.sendall(b"lost?")
    assert silent(connection)
    assert parrot.heard == b"hello"
    assert proxy.hit == len(b"lost?")
    proxy.heal()
    assert connection.recv(1024) == b"LOST?"
    assert proxy.fault.name == "none"


def test_no_connection_is_made_through_a_drop(dial, proxy, parrot):
    proxy.inject(Fault.drop())
    connection = dial()
    connection.sendall(b"x")
    assert silent(connection)
    assert proxy.hit > 0
    assert parrot.heard == b""
    proxy.heal()
    assert connection.recv(1024) == b"X"


def test_a_deaf_server_hears_nothing_and_is_heard(dial, proxy, parrot):
    connection = dial()
    proxy.inject(Fault.mute())
    connection.sendall(b"a")
    eventually(lambda: parrot.heard == b"a")
    assert silent(connection)
    proxy.inject(Fault.deaf())
    # What it had said arrives, for that way is open again.
    assert connection.recv(1024) == b"A"
    connection.sendall(b"b")
    assert silent(connection)
    assert parrot.heard == b"a"
    proxy.heal()
    assert connection.recv(1024) == b"B"


def test_delay_is_each_way(dial, proxy):
    connection = dial()
    say(connection)
    proxy.inject(Fault.late(0.1))
    began = time.monotonic()
    assert say(connection) == b"HELLO"
    assert time.monotonic() - began >= 0.2
    assert proxy.hit == 2 * len(b"hello")


def test_a_half_open_connection_is_closed_for_the_server_and_silent_for_the_caller(
    dial, proxy, parrot
):
    old = dial()
    say(old)
    proxy.inject(Fault.half_open())
    eventually(lambda: parrot.ended == 1)
    old.sendall(b"anybody?")
    assert silent(old)
    assert proxy.hit == 1
    assert say(dial()) == b"HELLO"
    proxy.heal()
    assert silent(old)
    assert proxy.connections == 2
    old.close()
    eventually(lambda: proxy.connections == 1)


def test_a_reset_is_told_to_both(dial, proxy, parrot):
    connection = dial()
    say(connection)
    proxy.reset()
    assert closed(connection)
    eventually(lambda: parrot.ended == 1)


def test_the_end_of_one_is_the_end_of_the_other(dial, proxy, parrot):
    connection = dial()
    say(connection)
    connection.close()
    eventually(lambda: parrot.ended == 1 and proxy.connections == 0)


def test_nobody_behind_it_is_a_reset(proxy, parrot, dial):
    parrot.stop()
    connection = dial()
    assert closed(connection)


def test_a_target_that_is_known_later(parrot):
    where = []
    with FaultProxy(lambda: where[0]) as proxy:
        where.append(parrot.target)
        host, port = proxy.address.split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            assert say(connection) == b"HELLO"


def test_close_ends_connections_and_the_thread(parrot):
    proxy = FaultProxy(parrot.target)
    host, port = proxy.address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        say(connection)
        proxy.close()
        assert closed(connection)
    proxy.close()
    assert not any("fault-proxy" in thread.name for thread in threading.enumerate())


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_delay_must_be_one(seconds):
    with pytest.raises(ValueError, match="positive"):
        Fault.late(seconds)


def test_bad_addresses_are_refused():
    with pytest.raises(ValueError, match="nowhere"):
        FaultProxy("nowhere")
