"""Users who make plain calls, for Locust: reads of the gateway, or the testing service's echo.

    locust -f locustfiles/calls.py GatewayReader --headless -u 20 -r 20 -t 30s --host HOSTS/CHROOT
    locust -f locustfiles/calls.py EchoCaller --headless -u 20 -r 20 -t 30s --host HOSTS/CHROOT

Name one of the two classes: a fleet of the gateway has no echo service, and the other way round.
"""

from typing import Any

from locust import constant, task
from locust.env import Environment

from shoal_gateway.load.locusts import Caller, options
from shoal_protos.gateway.api.v1 import api_pb2, api_pb2_grpc
from shoal_protos.gateway.registry.v1 import registry_pb2, registry_pb2_grpc
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc


def _options(parser: Any) -> None:
    parser.add_argument("--echo", default="echo", help="name of the echo service (default: echo)")
    parser.add_argument("--payload", type=int, default=100, help="bytes of an echo (default: 100)")


options(_options)


class GatewayReader(Caller):
    """Lists jobs and looks at single ones, by the api and by the registry behind it."""

    wait_time = constant(0.0)

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.api = api_pb2_grpc.ApiStub(self.channel("api"))
        self.registry = registry_pb2_grpc.RegistryStub(self.channel("registry"))
        self.known = ""

    @task
    def api_list(self) -> None:
        """The newest jobs; the first of them is what the other calls look at."""
        response = self.call("api", "api List", self.api.List, api_pb2.ListRequest(page_size=20))
        if response is not None and response.jobs:
            self.known = response.jobs[0].id

    @task(4)
    def api_get(self) -> None:
        """A job with its history; nothing while there is no job."""
        if self.known:
            self.call("api", "api Get", self.api.Get, api_pb2.GetRequest(id=self.known))

    @task(4)
    def registry_get(self) -> None:
        """The same from the registry."""
        if self.known:
            request = registry_pb2.GetJobRequest(id=self.known)
            self.call("registry", "registry GetJob", self.registry.GetJob, request)

    @task
    def registry_summary(self) -> None:
        """Counts by state."""
        request = registry_pb2.SummaryRequest()
        self.call("registry", "registry Summary", self.registry.Summary, request)


class EchoCaller(Caller):
    """Sends some bytes and gets them back: what the SDK and grpc can do, without any work."""

    wait_time = constant(0.0)

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        given = environment.parsed_options
        self.service: str = getattr(given, "echo", "echo")
        self.request = echo_pb2.EchoRequest(payload=bytes(getattr(given, "payload", 100)))
        self.stub = echo_pb2_grpc.EchoStub(self.channel(self.service))

    @task
    def echo(self) -> None:
        """One call."""
        self.call(self.service, "echo", self.stub.Echo, self.request)
