"""The metadata example: a writer is elected, replaced and fenced."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import grpc
import pytest

import shoal
from examples.metadata.store import StaleFenceError, Store
from shoal_protos.examples.metadata.v1 import metadata_pb2 as pb
from shoal_protos.examples.metadata.v1 import metadata_pb2_grpc
from tests.support.stopping import stop
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
WAIT = 60.0


def test_the_store_refuses_who_was_deposed(tmp_path):
    store = Store(tmp_path / "facts.db")
    store.put("owner", "ada", 5)
    store.put("owner", "bob", 9)
    with pytest.raises(StaleFenceError, match="fence 5 is stale"):
        store.put("owner", "eve", 5)
    assert store.get("owner") == "bob"
    # One who was promoted and has not written yet counts, too.
    store.claim(12)
    with pytest.raises(StaleFenceError, match="fence 9 is stale"):
        store.put("owner", "eve", 9)
    with pytest.raises(StaleFenceError, match="fence 9 is stale"):
        store.claim(9)
    assert store.get("owner") == "bob"
    assert store.get("nobody") is None


class Replica:
    """One of the processes."""

    def __init__(self, zookeeper, store, cache):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "examples.metadata.service", "--zookeeper", zookeeper,
             "--store", store, "--session", "2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "SHOAL_CACHE_DIR": str(cache)},
            cwd=ROOT,
            text=True,
        )  # fmt: skip
        self.target = self.process.stdout.readline().strip()

    def opened(self, path):
        """Whether it has a file open. It opens the store for each call, and after its look."""
        for each in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # It was closed meanwhile.
                if each.readlink() == path:
                    return True
        return False


@pytest.fixture
def store(tmp_path):
    return tmp_path / "facts.db"


@pytest.fixture
def replicas(chroot, store, tmp_path):
    made = [Replica(chroot, store, tmp_path / "cache") for _ in range(3)]
    yield made
    for each in made:
        each.process.send_signal(signal.SIGCONT)
        each.process.kill()
        each.process.wait()
        each.process.stdout.close()


def test_writes_go_on_when_the_writer_is_killed_or_stopped(replicas, store, directories):
    directory = directories()
    directory.ready("metadata", count=3)
    # As often as it takes until somebody is promoted; a stopped one answers nothing.
    retry = shoal.Retry(attempts=1000, attempt_timeout=2.0)
    with directory.channel("metadata", retry=retry) as channel:
        stub = metadata_pb2_grpc.MetadataStub(channel)

        def put(value):
            return stub.Put(pb.PutRequest(name="owner", value=value), timeout=WAIT)

        def writer(answer):
            target = next(
                each.target
                for each in directory.watch("metadata").replicas()
                if each.id == answer.replica
            )
            return next(each for each in replicas if each.target == target)

        first = put("one")
        assert put("two") == first
        writer(first).process.kill()
        second = put("three")
        assert second.replica != first.replica
        assert second.fence > first.fence

        # The next one is stopped in the middle of a write: it has seen that it leads, and waits for
        # the store, which somebody else is writing to.
        stopped = writer(second)
        with grpc.insecure_channel(stopped.target) as direct:
            deposed = metadata_pb2_grpc.MetadataStub(direct)
            with closing(sqlite3.connect(store, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                late = deposed.Put.future(pb.PutRequest(name="owner", value="stale"), timeout=WAIT)
                eventually(lambda: stopped.opened(store), WAIT)
                stop(stopped.process.pid)
                other.execute("ROLLBACK")
                # The successor shows its fence before it has written anything.
                eventually(
                    lambda: other.execute("SELECT seen FROM fence").fetchone()[0] > second.fence,
                    WAIT,
                )
            third = put("four")
            assert third.replica != second.replica
            assert third.fence > second.fence
            stopped.process.send_signal(signal.SIGCONT)
            # Its write comes after the successor's, and the store refuses it.
            assert late.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert f"fence {second.fence} is stale" in late.details()
            # Asked again, it knows that it does not lead, and reads.
            with pytest.raises(grpc.RpcError, match="only reads"):
                deposed.Put(pb.PutRequest(name="owner", value="stale"), timeout=WAIT)
            read = deposed.Get(pb.GetRequest(name="owner"), timeout=WAIT)
            assert (read.value, read.replica) == ("four", second.replica)
