"""Users who submit jobs to the gateway and wait for them, for Locust.

    locust -f locustfiles/jobs.py --headless -u 20 -r 5 -t 1m --host 127.0.0.1:2181/gateway

``--host`` is the ZooKeeper address of the fleet (or set SHOAL_ZOOKEEPER): the users find the
replicas there as every caller does, so the load meets no gateway on its way.
"""

import time
import uuid
from typing import Any

import grpc
from locust import between, task
from locust.env import Environment

from shoal_gateway.client import TERMINAL
from shoal_gateway.load.locusts import Caller, options
from shoal_protos.gateway.api.v1 import api_pb2, api_pb2_grpc
from shoal_protos.gateway.model.v1 import job_pb2


def _options(parser: Any) -> None:
    parser.add_argument("--application", default="nap", help="application to submit (default: nap)")
    parser.add_argument("--seconds", default="0.1", help="what each nap lasts (default: 0.1)")


options(_options)


class Submitter(Caller):
    """Submits one job after the other and waits for each to end.

    Two figures are reported: ``submit`` (until the gateway has written the job down) and ``job``
    (from submit to the terminal state, a success only when that is SUCCEEDED).
    """

    wait_time = between(0.0, 0.1)

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        given = environment.parsed_options
        self.application: str = getattr(given, "application", "nap")
        self.seconds: str = getattr(given, "seconds", "0.1")
        self.api = api_pb2_grpc.ApiStub(self.channel("api"))

    @task
    def submit_and_wait(self) -> None:
        """One job's way through the gateway."""
        began = time.monotonic()
        request = api_pb2.SubmitRequest(
            owner="locust",
            idempotency_key=str(uuid.uuid4()),
            application=self.application,
            parameters={"seconds": self.seconds},
        )
        response = self.call("api", "submit", self.api.Submit, request)
        if response is None:
            return
        try:
            self.fire("job", began, self._outcome(response.job.id))
        except grpc.RpcError as error:
            self.fire("job", began, error)

    def _outcome(self, job_id: str) -> Exception | None:
        """Follows a job to its end; what was wrong with that end, if anything."""
        watch = api_pb2.WatchRequest(job_id=job_id, after=0)
        for response in self.api.Watch(watch, timeout=120.0):
            event = response.event
            if event.state == job_pb2.STATE_SUCCEEDED:
                return None
            if event.state in TERMINAL:
                name = job_pb2.State.Name(event.state)
                return RuntimeError(f"job {job_id} is {name}: {event.message}")
        return RuntimeError(f"the watch of job {job_id} ended before the job did")
