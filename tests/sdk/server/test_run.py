"""A blocking server's run: what ends it, and which signals it takes."""

import os
import signal
import threading

import pytest

from shoal_protos.v1 import replica_pb2, replica_pb2_grpc
from tests.sdk.server.support import WAIT


def run_in_thread(server, directory, **options):
    reports = []
    ready = threading.Event()
    thread = threading.Thread(
        target=lambda: reports.append(server.run(directory, ready=lambda _: ready.set(), **options))
    )
    thread.start()
    assert ready.wait(WAIT)
    return thread, reports


def test_run_ends_by_stop_from_another_thread_and_leaves_signals_alone(made, directory):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    server = made()
    thread, reports = run_in_thread(server, directory)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert server.stop().wait(WAIT)
    thread.join(WAIT)
    assert reports == [server.drain()]


def test_run_ends_when_somebody_else_drains(made, directory):
    server = made()
    thread, reports = run_in_thread(server, directory)
    report = server.drain()
    thread.join(WAIT)
    assert reports == [report]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_drains_by_signal_and_puts_handlers_back(made, directory, number):
    def mine(*_):
        raise AssertionError("the signal came after run had ended")

    before = signal.signal(number, mine)
    try:
        report = made().run(directory, ready=lambda _: os.kill(os.getpid(), number))
        assert signal.getsignal(number) is mine
    finally:
        signal.signal(number, before)
    assert report.unfinished == 0
    assert directory.watch("echo").replicas() == ()


def test_a_second_signal_hurries(made, directory, channel_to):
    server = made(linger=WAIT, grace=WAIT)

    def ready(replica):
        replica_pb2_grpc.ReplicaStub(channel_to(replica.target)).Hello(
            replica_pb2.HelloRequest(caller_id="stuck"), timeout=WAIT
        )
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    report = server.run(directory, ready=ready)
    assert len(report.silent) == 1
    assert report.seconds < WAIT / 2


def test_an_error_in_ready_still_drains(made, directory):
    def ready(_):
        raise LookupError("no place to write the port to")

    with pytest.raises(LookupError):
        made().run(directory, ready=ready)
    assert directory.watch("echo").replicas() == ()
