"""What a server says to systemd, over a real socket."""

import asyncio
import logging
import threading

import pytest

import shoal.aio
from shoal.systemd import Notifier
from shoal_protos.testing.v1 import echo_pb2_grpc
from tests.support.notified import LIMIT, Manager
from tests.support.replica import AioEcho
from tests.support.waiting import eventually

WAIT = 30


@pytest.fixture
def manager(monkeypatch):
    made = Manager()
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()


def test_without_a_manager_nothing_is_said_and_nothing_watched():
    notifier = Notifier({})
    notifier.say("READY=1")
    assert notifier.every is None
    assert Notifier({"WATCHDOG_USEC": "900000"}).every is None


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_states_arrive_in_one_datagram(tmp_path, kind):
    made = Manager(tmp_path / "n" if kind == "path" else None)
    Notifier(made.environment()).say("READY=1", "STATUS=serving at 127.0.0.1:1")
    assert made.hears() == ["READY=1", "STATUS=serving at 127.0.0.1:1"]
    made.close()


def test_a_manager_that_is_gone_is_logged_and_no_more(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).say("READY=1")
    assert "systemd could not be told ('READY=1',)" in caplog.text


@pytest.mark.parametrize(
    ("limit", "pid", "every"),
    [("900000", None, 0.3), ("900000", "7", 0.3), ("900000", "8", None), ("0", None, None),
     ("soon", None, None)],
)  # fmt: skip
def test_a_watchdog_is_fed_three_times_in_its_limit_if_it_is_ours(limit, pid, every):
    environment = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": limit}
    if pid:
        environment["WATCHDOG_PID"] = pid
    assert Notifier(environment, pid=7).every == (every and pytest.approx(every))


def in_thread(server, directory, **options):
    """Runs a server beside the test; tells when it has left."""
    thread = threading.Thread(target=lambda: server.run(directory, **options))
    thread.start()
    return thread


def test_a_server_is_ready_when_it_is_announced_and_says_when_it_stops(made, directory, manager):
    server = made()
    seen = []
    # Announced, and nothing said so far.
    thread = in_thread(
        server, directory, ready=lambda _: seen.append((server.replica, manager.hears(0.2)))
    )
    said = manager.awaits("READY=1")
    ((replica, before),) = seen
    assert directory.watch("echo").replicas() == (replica,)
    assert (before, said) == (None, ["READY=1", f"STATUS=serving at {replica.target}"])
    assert [manager.hears(), manager.hears()] == [["WATCHDOG=1"], ["WATCHDOG=1"]]
    server.stop()
    manager.awaits("STOPPING=1")
    thread.join(WAIT)
    assert manager.hears(2 * LIMIT) is None


def test_no_sign_of_life_while_the_threads_that_answer_health_checks_hang(made, directory, manager):
    server = made()
    go, stuck = threading.Event(), []
    thread = in_thread(server, directory)
    manager.awaits("WATCHDOG=1")
    for _ in range(2):
        server._care.submit(lambda: (stuck.append(1), go.wait(WAIT)))
    eventually(lambda: len(stuck) == 2)
    # The next proof waits for a thread; what was proven before has been said.
    eventually(lambda: server._care._work_queue.qsize() == 1)
    manager.forgets()
    assert manager.hears(LIMIT) is None
    go.set()
    manager.awaits("WATCHDOG=1")
    server.stop()
    thread.join(WAIT)


def denied():
    return False


def unknown():
    raise OSError("a file with the time of the last round is gone")


@pytest.mark.parametrize("answer", [denied, unknown])
def test_no_sign_of_life_while_the_service_denies_it(made, directory, manager, answer):
    server = made()
    well = threading.Event()
    thread = in_thread(server, directory, alive=lambda: well.is_set() or answer())
    manager.awaits("READY=1")
    assert manager.hears(LIMIT) is None
    well.set()
    manager.awaits("WATCHDOG=1")
    server.stop()
    thread.join(WAIT)


@pytest.mark.parametrize("answer", [denied, unknown])
async def test_no_sign_of_life_while_an_asyncio_service_denies_it(manager, answer):
    well, ordered = threading.Event(), asyncio.Event()
    notifier = Notifier()
    watched = asyncio.create_task(notifier.watched_aio(ordered, lambda: well.is_set() or answer()))
    assert await asyncio.to_thread(manager.hears, LIMIT) is None
    well.set()
    await asyncio.to_thread(manager.awaits, "WATCHDOG=1")
    ordered.set()
    await watched


async def test_an_asyncio_server_lives_as_long_as_its_loop_turns(directory, manager):
    server = shoal.aio.Server("echo", id="one", linger=0.3, grace=20.0)
    echo_pb2_grpc.add_EchoServicer_to_server(AioEcho(), server)
    running = asyncio.create_task(server.run(directory))
    await asyncio.to_thread(manager.awaits, "READY=1")
    await asyncio.to_thread(manager.awaits, "WATCHDOG=1")
    manager.forgets()
    # The loop stands still meanwhile, for this is its thread.
    assert manager.hears(LIMIT) is None
    await asyncio.to_thread(manager.awaits, "WATCHDOG=1")
    await server.stop()
    await asyncio.to_thread(manager.awaits, "STOPPING=1")
    await running
