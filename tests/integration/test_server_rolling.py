"""Restarts and ends of real replicas, under real callers, with a real ZooKeeper."""

import asyncio
import contextlib
import threading
import time

import grpc
import pytest

import shoal
import shoal.aio
from shoal.worker import Worker
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc
from tests.support.replica import SERVICE, ReplicaProcess
from tests.support.waiting import eventually

# Retries off, ours and grpc's transparent ones too.
NO_RETRIES = {"retry": None, "options": [("grpc.enable_retries", 0)]}


class Late:
    """A directory whose news reach this caller late, as on a machine that has too much to do."""

    def __init__(self, directory, seconds):
        self._directory = directory
        self._seconds = seconds
        self._worker = Worker("late-news")

    def __getattr__(self, name):
        return getattr(self._directory, name)

    def watch(self, service):
        return LateWatch(self._directory.watch(service), self._tell)

    def stop(self):
        self._worker.stop()

    def _tell(self, listener, replicas):
        self._worker.call_later(self._seconds, lambda: listener(replicas))


class LateWatch:
    def __init__(self, watch, tell):
        self._watch = watch
        self._tell = tell

    def __getattr__(self, name):
        return getattr(self._watch, name)

    def subscribe(self, listener):
        # What is known already comes at once.
        listener(self._watch.replicas())
        return self._watch.subscribe(lambda replicas: self._tell(listener, replicas))


class Steady:
    """Calls one after another on threads of its own, and keeps every failure."""

    def __init__(self, directory, threads=3):
        self.served = []
        self.failures = []
        self._stop = threading.Event()
        # One hears of changes at once, the other when the first has long moved away.
        self._late = Late(directory, 1.5)
        self._channels = [
            shoal.Channel(source, SERVICE, **NO_RETRIES) for source in (directory, self._late)
        ]
        self._threads = [
            threading.Thread(target=self._call, args=(self._channels[number % 2],))
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def _call(self, channel):
        stub = echo_pb2_grpc.EchoStub(channel)
        request = echo_pb2.EchoRequest(payload=b"steady", work=0.002)
        while not self._stop.is_set():
            try:
                self.served.append(stub.EchoOnce(request, timeout=30).server)
            except grpc.RpcError as error:
                self.failures.append(f"{time.monotonic():.3f} {error.code()} {error.details()}")

    def more(self, count=30):
        """Waits until that many further calls were answered."""
        target = len(self.served) + count
        eventually(lambda: len(self.served) >= target or self.failures, what="more calls")

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        for channel in self._channels:
            channel.close()
        self._late.stop()


class SteadyAio:
    """The same on an event loop of its own."""

    def __init__(self, hosts, cache):
        self.served = []
        self.failures = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all(hosts, cache)))
        self._thread.start()

    async def _all(self, hosts, cache):
        async with (
            shoal.aio.Directory(hosts, cache_dir=cache) as directory,
            directory.channel(SERVICE, **NO_RETRIES) as channel,
        ):
            stub = echo_pb2_grpc.EchoStub(channel)
            await asyncio.gather(self._call(stub), self._call(stub))

    async def _call(self, stub):
        request = echo_pb2.EchoRequest(payload=b"steady", work=0.002)
        while not self._stop.is_set():
            try:
                self.served.append((await stub.EchoOnce(request, timeout=30)).server)
            except grpc.RpcError as error:
                self.failures.append(f"{time.monotonic():.3f} {error.code()} {error.details()}")

    more = Steady.more

    def stop(self):
        self._stop.set()
        self._thread.join(60)


def both_served(name, *callers):
    failed = any(caller.failures for caller in callers)
    return failed or all(name in caller.served for caller in callers)


@pytest.mark.parametrize("kind", ["sync", "aio"])
def test_a_rolling_restart_of_three_replicas_loses_no_call_with_retries_off(
    kind, chroot, directories, tmp_path
):
    directory = directories()
    idle = directories(cache_dir=tmp_path / "idle")
    with contextlib.ExitStack() as stack:
        replicas = [stack.enter_context(ReplicaProcess(chroot, f"r{n}", kind)) for n in range(3)]
        directory.ready(SERVICE, 30, count=3)
        # Idle callers: one that has called each replica and one that has called none.
        quiet = echo_pb2_grpc.EchoStub(
            idle.channel(SERVICE, policy=shoal.RoundRobin(), **NO_RETRIES)
        )
        for _ in range(3):
            quiet.Echo(echo_pb2.EchoRequest(), timeout=30)
        silent = idle.channel(SERVICE, **NO_RETRIES)
        steady = Steady(directory)
        steady_aio = SteadyAio(chroot, tmp_path / "aio")
        reports = []
        try:
            for number, replica in enumerate(replicas):
                steady.more()
                steady_aio.more()
                replica.terminate()
                reports.append(replica.left())
                name = f"r{number}-next"
                stack.enter_context(ReplicaProcess(chroot, name, kind))
                eventually(
                    lambda name=name: both_served(name, steady, steady_aio), what=f"calls on {name}"
                )
        finally:
            steady.stop()
            steady_aio.stop()
        assert steady.failures == []
        assert steady_aio.failures == []
        for report in reports:
            # Two steady channels, the asyncio one and the quiet one had said hello.
            assert len(report.confirmed) >= 4, report
            assert (report.silent, report.gone, report.refused, report.unfinished) == ((), (), 0, 0)
        # And who was idle all the while finds the new ones.
        assert quiet.Echo(echo_pb2.EchoRequest(), timeout=30).server.endswith("-next")
        first = echo_pb2_grpc.EchoStub(silent).Echo(echo_pb2.EchoRequest(), timeout=30)
        assert first.server.endswith("-next")
