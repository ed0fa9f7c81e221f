"""What tests of the blocking server ask it."""

import threading

from grpc_health.v1 import health_pb2

from shoal.refusal import refusal_in
from shoal_protos.testing.v1 import echo_pb2

ECHO = "shoal.testing.v1.Echo"


WAIT = 30


REQUEST = echo_pb2.EchoRequest(payload=b"x")


def refused_codes(stub):
    """Sends one call of each kind; their codes and reasons."""
    calls = [
        stub.Echo.future(REQUEST, timeout=WAIT),
        stub.EchoDown(REQUEST, timeout=WAIT),
        stub.EchoUp.future(iter([REQUEST, REQUEST]), timeout=WAIT),
        stub.EchoBoth(iter([REQUEST, REQUEST]), timeout=WAIT),
    ]
    return [(call.code(), refusal_in(call.trailing_metadata())) for call in calls]


def held(server):
    """Has the server's calls wait for the returned event."""
    release = threading.Event()
    server.echo.script = lambda context: release.wait(WAIT)
    return release


def health_of(stub, service=""):
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=WAIT).status
