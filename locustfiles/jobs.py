"""Users who submit jobs to the gateway and wait for them, for Locust.

    locust -f locustfiles/jobs.py --headless -u 20 -r 5 -t 1m --host 127.0.0.1:2181/gateway

``--host`` is the ZooKeeper address of the fleet (or set SHOAL_ZOOKEEPER): the users find the
replicas there as every caller does, so the load meets no gateway on its way.
"""

# Locust has patched the standard library for gevent before it loads this file; grpc's core must be
# told before its first use, and then blocks greenlets in place of threads.
import grpc.experimental.gevent as grpc_gevent

grpc_gevent.init_gevent()

import os
import time
import uuid
from collections.abc import Callable
from typing import Any

import grpc
from locust import User, between, events, task
from locust.env import Environment
from locust.exception import StopUser

import shoal
from shoal_protos.gateway.api.v1 import api_pb2, api_pb2_grpc
from shoal_protos.gateway.model.v1 import job_pb2

TERMINAL = frozenset(
    {job_pb2.STATE_SUCCEEDED, job_pb2.STATE_FAILED, job_pb2.STATE_CANCELLED, job_pb2.STATE_DEAD}
)


@events.init_command_line_parser.add_listener
def _options(parser: Any) -> None:
    parser.add_argument("--application", default="nap", help="application to submit (default: nap)")
    parser.add_argument("--seconds", default="0.1", help="what each nap lasts (default: 0.1)")


class Submitter(User):
    """Submits one job after the other and waits for each to end.

    Three figures are reported: ``submit`` (until the gateway has written the job down), ``get``
    (one look at it), and ``job`` (from submit to the terminal state, success only when SUCCEEDED).
    """

    wait_time = between(0.0, 0.1)

    def __init__(self, environment: Environment) -> None:
        """Opens this process's directory; users of one process share nothing but the process."""
        super().__init__(environment)
        zookeeper = self.host or os.environ.get("SHOAL_ZOOKEEPER")
        if not zookeeper:
            raise StopUser("say where ZooKeeper is: --host 127.0.0.1:2181/gateway")
        self.options = environment.parsed_options
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
            application=self.options.application,
            parameters={"seconds": self.options.seconds},
        )
        response = self._timed("submit", lambda: self.api.Submit(request, timeout=10.0))
        if response is None:
            return
        job = response.job
        while job.state not in TERMINAL:
            # Locust's users are greenlets: this yields to the others, as a person's pause would.
            time.sleep(0.1)
            looked = self._timed(
                "get", lambda: self.api.Get(api_pb2.GetRequest(id=job.id), timeout=10.0)
            )
            if looked is None:
                return
            job = looked.job
        failure = None
        if job.state != job_pb2.STATE_SUCCEEDED:
            failure = RuntimeError(f"{job.id} is {job_pb2.State.Name(job.state)}: {job.reason}")
        self._fire("job", began, failure)

    def _timed(self, name: str, call: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        try:
            response = call()
        except grpc.RpcError as error:
            self._fire(name, began, error)
            return None
        self._fire(name, began, None)
        return response

    def _fire(self, name: str, began: float, error: Exception | None) -> None:
        self.environment.events.request.fire(
            request_type="shoal",
            name=name,
            response_time=(time.perf_counter() - began) * 1000.0,
            response_length=0,
            exception=error,
            context={},
        )
