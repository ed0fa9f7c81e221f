"""The client's streams over the loss of who told of them."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from shoal.testing import FixedDirectory
from shoal_gateway.client import Gateway
from shoal_protos.gateway.api.v1 import api_pb2, api_pb2_grpc
from shoal_protos.gateway.model.v1 import job_pb2

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


class Api(api_pb2_grpc.ApiServicer):
    """Two attempts of a job; the first's output breaks off in the middle."""

    OUTPUT = {1: b"first", 2: b"again"}  # noqa: RUF012 - not changed

    def __init__(self):
        self.asked = []
        self.breaks = [2]
        self.attempt = 1
        self.after = []

    def Logs(self, request, context):
        self.asked.append((request.attempt, request.offset))
        attempt = request.attempt or self.attempt
        rest = self.OUTPUT[attempt][request.offset :]
        sent = rest[: self.breaks[0]] if self.breaks else rest
        yield api_pb2.LogsResponse(attempt=attempt, offset=request.offset, data=sent)
        if self.breaks:
            self.breaks.pop()
            context.abort(UNAVAILABLE, "this replica leaves")

    def Watch(self, request, context):
        self.after.append(request.after)
        if self.attempt == 1:
            yield api_pb2.WatchResponse(event=event(1, job_pb2.STATE_QUEUED))
            self.attempt = 2
            yield api_pb2.WatchResponse(event=event(2, job_pb2.STATE_RUNNING))
        yield api_pb2.WatchResponse(event=event(3, job_pb2.STATE_SUCCEEDED))

    def Get(self, request, context):
        return api_pb2.GetResponse(job=job_pb2.Job(id=request.id, attempt=self.attempt))


def event(seq, state):
    return job_pb2.Event(seq=seq, state=state)


@pytest.fixture
def api():
    servicer = Api()
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    api_pb2_grpc.add_ApiServicer_to_server(servicer, server)
    servicer.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer
    server.stop(None).wait()


def test_a_follower_reads_each_attempt_whole_and_no_byte_twice(api):
    with FixedDirectory({"api": [f"127.0.0.1:{api.port}"]}) as directory:
        pieces = list(Gateway(directory, "ann").logs("job-1", follow=True))
    assert b"".join(pieces) == b"firstagain"
    # The offset is into the attempt that was read; the next attempt begins at its first byte.
    assert api.asked == [(0, 0), (1, 2), (2, 0)]


def test_one_look_at_the_logs_is_one_look(api):
    api.breaks = []
    with FixedDirectory({"api": [f"127.0.0.1:{api.port}"]}) as directory:
        assert b"".join(Gateway(directory, "ann").logs("job-1")) == b"first"
    assert api.asked == [(0, 0)]
    assert api.after == []
