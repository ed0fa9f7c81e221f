"""A server that hears who comes and goes."""

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from shoal_balancer import Replica
from shoal_protos.testing.v1 import echo_pb2_grpc
from shoal_protos.v1 import replica_pb2, replica_pb2_grpc
from tests.support.echo import Echo


class Listener(replica_pb2_grpc.ReplicaServicer):
    """Hears hello and released; after ``slow`` seconds."""

    def __init__(self):
        self.heard = []
        self.slow = 0.0

    @property
    def words(self):
        return [word for word, _ in self.heard]

    def Hello(self, request, context):
        threading.Event().wait(self.slow)
        self.heard.append(("hello", request.caller_id))
        return replica_pb2.HelloResponse()

    def Released(self, request, context):
        self.heard.append(("released", request.caller_id))
        return replica_pb2.ReleasedResponse()


@pytest.fixture
def listener():
    """A server that hears who comes and goes."""
    found = Listener()
    server = grpc.server(ThreadPoolExecutor(8))
    echo_pb2_grpc.add_EchoServicer_to_server(Echo("listener"), server)
    replica_pb2_grpc.add_ReplicaServicer_to_server(found, server)
    found.replica = Replica("l", "127.0.0.1", server.add_insecure_port("127.0.0.1:0"))
    server.start()
    yield found
    server.stop(None).wait()
