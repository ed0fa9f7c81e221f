"""The metadata example: a writer is elected, replaced and fenced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

import shoal
from examples.metadata.store import StaleFenceError, Store
from shoal_protos.examples.metadata.v1 import metadata_pb2 as pb
from shoal_protos.examples.metadata.v1 import metadata_pb2_grpc
from tests.support.stopping import stop

ROOT = Path(__file__).parents[2]
WAIT = 60.0


def test_the_store_refuses_who_was_deposed(tmp_path):
    store = Store(tmp_path / "facts.db")
    store.put("owner", "ada", 5)
    store.put("owner", "bob", 9)
    with pytest.raises(StaleFenceError, match="fence 5 is stale"):
        store.put("owner", "eve", 5)
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


@pytest.fixture
def replicas(chroot, tmp_path):
    made = [Replica(chroot, tmp_path / "facts.db", tmp_path / "cache") for _ in range(3)]
    yield made
    for each in made:
        each.process.send_signal(signal.SIGCONT)
        each.process.kill()
        each.process.wait()
        each.process.stdout.close()


def test_writes_go_on_when_the_writer_is_killed_or_stopped(replicas, directories):
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

        stopped = writer(second)
        stop(stopped.process.pid)
        third = put("four")
        assert third.fence > second.fence
        stopped.process.send_signal(signal.SIGCONT)
        # Asked directly, the deposed one writes nothing.
        with grpc.insecure_channel(stopped.target) as direct:
            with pytest.raises(grpc.RpcError) as caught:
                metadata_pb2_grpc.MetadataStub(direct).Put(
                    pb.PutRequest(name="owner", value="stale"), timeout=WAIT
                )
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            # It still reads.
            read = metadata_pb2_grpc.MetadataStub(direct).Get(
                pb.GetRequest(name="owner"), timeout=WAIT
            )
            assert read.value == "four"
