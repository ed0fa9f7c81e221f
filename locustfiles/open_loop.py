"""Jobs that arrive at their moments, whatever became of those before: an open loop, for Locust.

    locust -f locustfiles/open_loop.py --headless --processes 2 -u 2 -r 2 --rate 5 --count 100 \
        --host 127.0.0.1:2181/gateway

As many users as processes, for each process has one generator. The run ends by itself when all jobs
have ended. ``job`` in Locust's table is the time from a job's scheduled arrival to its end.
"""

import logging
import time
from pathlib import Path
from typing import Any

import gevent
from gevent.event import AsyncResult
from locust import constant, events, task
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner

from shoal_gateway.load.locusts import Caller, options
from shoal_gateway.load.openloop import Generator, Plan

logger = logging.getLogger(__name__)
_locust: Any = events  # its methods have no types

READY, BEGIN, DONE = "shoal_ready", "shoal_begin", "shoal_done"
# Seconds between the word to begin and the beginning: enough for the message to arrive.
LEAD = 0.5


def _options(parser: Any) -> None:
    parser.add_argument("--application", default="nap", help="application to submit (default: nap)")
    parser.add_argument(
        "--parameter", action="append", default=[], metavar="NAME=VALUE", help="of the application"
    )
    parser.add_argument("--rate", type=float, default=2.0, help="jobs per second; 0: all at once")
    parser.add_argument("--count", type=int, default=60, help="how many jobs (default: 60)")
    parser.add_argument("--arrivals", default="poisson", help="poisson (default) or constant")
    parser.add_argument("--seed", type=int, default=1, help="of the arrivals (default: 1)")
    parser.add_argument(
        "--patience", type=float, default=30.0, help="a job that takes longer, in s, has failed"
    )
    parser.add_argument(
        "--drain", type=float, default=300.0, help="seconds to wait for ends (default: 300)"
    )
    parser.add_argument("--owner", default="locust", help="whose jobs (default: locust)")
    parser.add_argument("--label", default="open-loop", help="name of this run in the history")
    parser.add_argument("--history", default="", help="JSONL file to append each event to")


options(_options)


class Together:
    """Lets the generators of all processes begin at the same moment, and ends the run after them.

    Args:
        environment: Locust's.
    """

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.begin: AsyncResult = AsyncResult()
        self.taken = False
        self._ready: list[str] = []
        self._done = 0
        runner = environment.runner
        if isinstance(runner, WorkerRunner):
            runner.register_message(BEGIN, self._began)
        elif isinstance(runner, MasterRunner):
            runner.register_message(READY, self._one_ready)
            runner.register_message(DONE, self._one_done)

    def ready(self) -> Any:
        """Says so, and waits for the word to begin: (moment, index, of how many)."""
        runner = self.environment.runner
        if isinstance(runner, WorkerRunner):
            runner.send_message(READY)
        else:
            self.begin.set((time.monotonic() + LEAD, 0, 1))
        return self.begin.get()

    def done(self, error: str) -> None:
        """This process is through."""
        runner = self.environment.runner
        if isinstance(runner, WorkerRunner):
            runner.send_message(DONE, {"error": error})
        else:
            self._end(error)

    def _began(self, msg: Any, **_: Any) -> None:
        self.begin.set((msg.data["at"], msg.data["index"], msg.data["of"]))

    def _one_ready(self, msg: Any, **_: Any) -> None:
        runner = self.environment.runner
        assert isinstance(runner, MasterRunner)  # noqa: S101 - it alone listens for this
        self._ready.append(msg.node_id)
        if len(self._ready) == runner.worker_count:
            # Linux's monotonic clock is the same for all processes of a machine.
            at = time.monotonic() + LEAD
            for index, worker in enumerate(self._ready):
                data = {"at": at, "index": index, "of": len(self._ready)}
                runner.send_message(BEGIN, data, client_id=worker)

    def _one_done(self, msg: Any, **_: Any) -> None:
        self._done += 1
        runner = self.environment.runner
        assert isinstance(runner, MasterRunner)  # noqa: S101 - it alone listens for this
        error = msg.data["error"]
        if error or self._done == runner.worker_count:
            self._end(error)

    def _end(self, error: str) -> None:
        if error:
            logger.error("the run is void: %s", error)
            self.environment.process_exit_code = 4
        elif self.environment.process_exit_code is None:
            # Jobs that failed are a result and no error of this program.
            self.environment.process_exit_code = 0
        runner = self.environment.runner
        if runner is not None:
            gevent.spawn_later(0.1, runner.quit)


_together: dict[int, Together] = {}


def _begin(environment: Environment, **_: Any) -> None:
    _together[id(environment)] = Together(environment)


_locust.init.add_listener(_begin)


class OpenLoop(Caller):
    """The generator of its process; further users of a process have nothing to do."""

    wait_time = constant(1.0)

    @task
    def generate(self) -> None:
        """All that this process sends."""
        together = _together[id(self.environment)]
        if together.taken:
            raise StopUser
        together.taken = True
        error = "it was stopped"
        try:
            generator = Generator(self.directory(), self._plan(), self._report)
            generator.prepare()
            generator.run(*together.ready())
            error = ""
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
            raise
        finally:
            together.done(error)
        raise StopUser

    def _report(self, name: str, scheduled: float, error: Exception | None, served: Any) -> None:
        service = "api" if served is not None else ""
        self.fire(name, scheduled, error, service=service, served=served)

    def _plan(self) -> Plan:
        given: Any = self.environment.parsed_options
        pairs = (each.partition("=") for each in given.parameter)
        return Plan(
            application=given.application,
            parameters={name: value for name, _, value in pairs},
            rate=given.rate,
            count=given.count,
            kind=given.arrivals,
            seed=given.seed,
            patience=given.patience,
            drain=given.drain,
            owner=given.owner,
            step=given.label,
            history=Path(given.history) if given.history else None,
        )
