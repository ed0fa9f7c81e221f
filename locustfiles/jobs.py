"""Users who submit jobs to the gateway and wait for them, for Locust.

    locust -f locustfiles/jobs.py --headless -u 20 -r 5 -t 1m --host 127.0.0.1:2181/gateway

``--host`` is the ZooKeeper address of the fleet (or set SHOAL_ZOOKEEPER): the users find the
replicas there as every caller does, so the load meets no gateway on its way.
"""

import os
import time
import uuid
from typing import Any

import grpc
import grpc.experimental.gevent as grpc_gevent
from locust import User, between, events, task
from locust.env import Environment
from locust.exception import StopUser

import shoal
from shoal_protos.gateway.api.v1 import api_pb2, api_pb2_grpc
from shoal_protos.gateway.model.v1 import job_pb2

# Locust patched the standard library for gevent when it was imported. grpc's core must be told
# before its first use, and then blocks greenlets in place of threads.
grpc_gevent.init_gevent()

TERMINAL = frozenset(
    {job_pb2.STATE_SUCCEEDED, job_pb2.STATE_FAILED, job_pb2.STATE_CANCELLED, job_pb2.STATE_DEAD}
)


def _options(parser: Any) -> None:
    parser.add_argument("--application", default="nap", help="application to submit (default: nap)")
    parser.add_argument("--seconds", default="0.1", help="what each nap lasts (default: 0.1)")


_parser_made: Any = events.init_command_line_parser
_parser_made.add_listener(_options)


class Submitter(User):
    """Submits one job after the other and waits for each to end.

    Two figures are reported: ``submit`` (until the gateway has written the job down) and ``job``
    (from submit to the terminal state, a success only when that is SUCCEEDED).
    """

    wait_time = between(0.0, 0.1)

    def __init__(self, environment: Environment) -> None:
        """Opens this process's directory; users of one process share nothing but the process."""
        super().__init__(environment)
        zookeeper = self.host or os.environ.get("SHOAL_ZOOKEEPER")
        if not zookeeper:
            raise StopUser("say where ZooKeeper is: --host 127.0.0.1:2181/gateway")
        options = environment.parsed_options
        self.application: str = getattr(options, "application", "nap")
        self.seconds: str = getattr(options, "seconds", "0.1")
        self.directory = shoal.Directory(zookeeper)
        self.channel = self.directory.channel("api")
        self.api = api_pb2_grpc.ApiStub(self.channel)

    def on_stop(self) -> None:
        """Ends the ZooKeeper session."""
        self.directory.close()

    @task
    def submit_and_wait(self) -> None:
        """One job's way through the gateway."""
        began = time.perf_counter()
        request = api_pb2.SubmitRequest(
            owner="locust",
            idempotency_key=str(uuid.uuid4()),
            application=self.application,
            parameters={"seconds": self.seconds},
        )
        try:
            job = self.api.Submit(request, timeout=10.0).job
        except grpc.RpcError as error:
            self._fire("submit", began, error)
            return
        self._fire("submit", began, None)
        try:
            self._fire("job", began, self._outcome(job.id))
        except grpc.RpcError as error:
            self._fire("job", began, error)

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

    def _fire(self, name: str, began: float, error: Exception | None) -> None:
        self.environment.events.request.fire(
            request_type="shoal",
            name=name,
            response_time=(time.perf_counter() - began) * 1000.0,
            response_length=0,
            exception=error,
            context={},
        )
