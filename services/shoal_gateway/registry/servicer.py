"""The registry on the wire.

An asyncio server in front of threads for SQL. A call of `Changes` waits up to ten seconds; in a
threaded server each follower would hold a worker for that time, and a dozen of them would starve
submits. Here a waiting call is a coroutine and costs no thread.

Writes go through one thread of the process: SQLite has one writer at a time, and those who wait for
it are better off in our queue, where order is kept and a call whose deadline passed is dropped,
than in the database's busy loop. With PostgreSQL a second thread would win nothing: each write
waits for the journal's counter until the one before has committed. Reads have threads of their own,
for both databases let them pass.
"""

# ruff: noqa: N802, D102, ARG002 - methods are named, documented and called as the contract says

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, TypeVar

from shoal.aio.leadership import Term
from shoal_gateway import validation as check
from shoal_gateway.errors import PreconditionError, QuotaError, UnavailableError
from shoal_gateway.registry import checks
from shoal_gateway.registry.feed import Feed
from shoal_gateway.registry.fences import StaleFenceError
from shoal_gateway.registry.logic import Registry
from shoal_gateway.registry.outages import why
from shoal_gateway.status import speaks_status
from shoal_protos.gateway.model.v1 import job_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2, registry_pb2_grpc

logger = logging.getLogger(__name__)

T = TypeVar("T")

READERS = 4
# Seconds between looks for expired leases, beside those that every Lease takes: nobody leases
# while everything is full, and a cancelled job whose runner is gone must end all the same.
SWEEP_EVERY = 1.0
# Seconds after which a replica looks, whoever leads.
BACKSTOP = 30.0
# Refusals of a leader's fence after which it has no successor: longer than a session lasts.
STALE = 30

DEFAULT_PAGE = 100
MAX_PAGE = 1000
DEFAULT_EVENTS = 1000
MAX_EVENTS = 10_000
MAX_WAIT = 10.0


@speaks_status
class RegistryServicer(registry_pb2_grpc.RegistryServicer):
    """Checks requests, runs them on a thread, and lets followers wait.

    Args:
        registry: The jobs.

    Attributes:
        sweep_every: Seconds between looks for expired leases; may be changed while it works.
    """

    def __init__(self, registry: Registry) -> None:
        self.sweep_every = SWEEP_EVERY
        self._registry = registry
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="registry-write")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="registry-read")
        self._feed = Feed(lambda: self.reading(registry.latest))

    def leave(self) -> None:
        """The drain begins: followers are sent away with what there is, to wait elsewhere."""
        self._feed.leave()

    async def close(self) -> None:
        """Ends the threads once what they do is done."""
        await self._feed.close()
        self._writer.shutdown()
        self._readers.shutdown()

    async def reap(self, term: Term) -> None:
        """Takes expired leases back while this replica leads.

        A leader whose fence is stale has a successor, and hears of it soon. One that goes on
        leading has none: ZooKeeper has lost its data, and counts fences from the beginning. Then
        leases are taken back without a fence, for somebody has to.
        """
        refused = 0
        while not await term.wait(self.sweep_every):
            try:
                await self._sweep(term.fence if refused < STALE else None)
            except StaleFenceError as error:
                refused += 1
                logger.warning("expired leases were not looked for: %s", error)
                if refused == STALE:
                    logger.error(  # noqa: TRY400 - what happened stands above
                        "this replica leads for longer than a session lasts, and its fence is stale"
                        " all the same: has ZooKeeper lost its data? From now on expired leases are"
                        " taken back without a fence"
                    )

    async def keep_swept(self, alone: Callable[[], bool] = lambda: True) -> None:
        """Takes expired leases back without being the leader, until cancelled.

        Once in `BACKSTOP` seconds whoever leads, for the leader may be stuck, or nobody may be
        able to lead.

        Args:
            alone: Whether this replica has to do it at the moment: it can't hear of any leader.
        """
        swept = time.monotonic()
        while True:
            await asyncio.sleep(self.sweep_every)
            if alone() or time.monotonic() - swept >= BACKSTOP:
                await self._sweep(None)
                swept = time.monotonic()

    async def _sweep(self, fence: int | None) -> None:
        try:
            swept = await self.writing(self._registry.sweep, fence)
        except UnavailableError as error:
            logger.warning("expired leases were not looked for: %s", error)
            return
        if swept:
            logger.info("took back %d jobs whose lease or deadline had passed", swept)

    async def CreateJob(
        self, request: registry_pb2.CreateJobRequest, context: Any
    ) -> registry_pb2.CreateJobResponse:
        asked = checks.creation(request)
        job, created = await self.writing(
            self._registry.create,
            asked.owner,
            asked.key,
            asked.spec,
            asked.fingerprint,
            asked.signed_by,
            asked.account,
            asked.trace_context,
        )
        return registry_pb2.CreateJobResponse(job=job, created=created)

    async def CreateJobs(
        self, request: registry_pb2.CreateJobsRequest, context: Any
    ) -> registry_pb2.CreateJobsResponse:
        creations = checks.creations(request)
        create = functools.partial(self._registry.create_many, whole=request.whole)
        answers = await self.writing(create, creations)
        return registry_pb2.CreateJobsResponse(
            items=[
                registry_pb2.CreateJobsResponse.Item(
                    id=each.id,
                    created=each.created,
                    state=job_pb2.State.ValueType(each.state),
                    error=each.error,
                    job=each.job,
                    quota=each.quota,
                )
                for each in answers
            ]
        )

    async def GetJob(
        self, request: registry_pb2.GetJobRequest, context: Any
    ) -> registry_pb2.GetJobResponse:
        job, events = await self.reading(self._registry.get, check.job_id(request.id))
        return registry_pb2.GetJobResponse(job=job, events=events)

    async def ListJobs(
        self, request: registry_pb2.ListJobsRequest, context: Any
    ) -> registry_pb2.ListJobsResponse:
        owner = check.optional(request.owner, "owner", limit=check.MAX_NAME)
        for index, state in enumerate(check.at_most(request.states, "states", limit=64)):
            check.known(state, f"states[{index}]", job_pb2.State.DESCRIPTOR)
        account = check.optional(request.account, "account", limit=check.MAX_NAME)
        size = check.default(
            request.page_size, "page_size", 1, MAX_PAGE, instead_of_zero=DEFAULT_PAGE
        )
        jobs, token = await self.reading(
            self._registry.page, owner, list(request.states), size, request.page_token, account
        )
        return registry_pb2.ListJobsResponse(jobs=jobs, next_page_token=token)

    async def CancelJob(
        self, request: registry_pb2.CancelJobRequest, context: Any
    ) -> registry_pb2.CancelJobResponse:
        job_id = check.job_id(request.id)
        reason = check.optional(request.reason, "reason")
        job = await self.writing(self._registry.cancel, job_id, reason)
        return registry_pb2.CancelJobResponse(job=job)

    async def ReplayJob(
        self, request: registry_pb2.ReplayJobRequest, context: Any
    ) -> registry_pb2.ReplayJobResponse:
        try:
            job = await self.writing(self._registry.replay, check.job_id(request.id))
        except QuotaError as error:
            # RESOURCE_EXHAUSTED would count against this replica, which is well.
            raise PreconditionError(str(error)) from error
        return registry_pb2.ReplayJobResponse(job=job)

    async def Lease(
        self, request: registry_pb2.LeaseRequest, context: Any
    ) -> registry_pb2.LeaseResponse:
        scheduler = check.required(request.scheduler_id, "scheduler_id")
        limit = check.whole(request.max_jobs, "max_jobs", 1, checks.MAX_BATCH)
        seconds = checks.lease(request.lease)
        for index, flavor in enumerate(check.at_most(request.flavors, "flavors")):
            check.label(flavor, f"flavors[{index}]")
        offers = await self.writing(
            self._registry.lease, scheduler, limit, seconds, list(request.flavors)
        )
        return registry_pb2.LeaseResponse(offers=offers)

    async def Release(
        self, request: registry_pb2.ReleaseRequest, context: Any
    ) -> registry_pb2.ReleaseResponse:
        offers = [
            checks.claim(claim, f"claims[{index}]")
            for index, claim in enumerate(
                check.some(request.claims, "claims", limit=checks.MAX_BATCH)
            )
        ]
        reason = check.optional(request.reason, "reason")
        release = functools.partial(self._registry.release, keep_place=request.keep_place)
        released = await self.writing(release, offers, reason)
        return registry_pb2.ReleaseResponse(released=released)

    async def Begin(
        self, request: registry_pb2.BeginRequest, context: Any
    ) -> registry_pb2.BeginResponse:
        start = checks.start(request)
        seconds = checks.lease(request.lease)
        fence = await self.writing(self._registry.begin, start, seconds)
        return registry_pb2.BeginResponse(fence=fence)

    async def BeginMany(
        self, request: registry_pb2.BeginManyRequest, context: Any
    ) -> registry_pb2.BeginManyResponse:
        starts = checks.starts(request)
        seconds = checks.lease(request.lease)
        answers = await self.writing(self._registry.begin_many, starts, seconds)
        return registry_pb2.BeginManyResponse(
            items=[
                registry_pb2.BeginManyResponse.Item(job_id=start.job_id, reason=answer)
                if isinstance(answer, str)
                else registry_pb2.BeginManyResponse.Item(job_id=start.job_id, fence=answer)
                for start, answer in zip(starts, answers, strict=True)
            ]
        )

    async def Renew(
        self, request: registry_pb2.RenewRequest, context: Any
    ) -> registry_pb2.RenewResponse:
        holdings = checks.holdings(request)
        seconds = checks.lease(request.lease)
        items = await self.writing(self._registry.renew, holdings, seconds)
        return registry_pb2.RenewResponse(items=items)

    async def Report(
        self, request: registry_pb2.ReportRequest, context: Any
    ) -> registry_pb2.ReportResponse:
        items = await self.writing(self._registry.report, checks.reports(request))
        return registry_pb2.ReportResponse(items=items)

    async def Changes(
        self, request: registry_pb2.ChangesRequest, context: Any
    ) -> registry_pb2.ChangesResponse:
        after = check.whole(request.after, "after", -1, 2**63 - 1)
        limit = check.default(
            request.max_events, "max_events", 1, MAX_EVENTS, instead_of_zero=DEFAULT_EVENTS
        )
        wait = check.seconds(request.wait, "wait", 0.0, MAX_WAIT)
        events, last = await self.reading(self._registry.changes, after, limit)
        if not events and wait:
            await self._feed.beyond(last, wait)
            events, last = await self.reading(self._registry.changes, last, limit)
        return registry_pb2.ChangesResponse(events=events, last=last)

    async def Summary(
        self, request: registry_pb2.SummaryRequest, context: Any
    ) -> registry_pb2.SummaryResponse:
        owner = check.optional(request.owner, "owner", limit=check.MAX_NAME)
        found = await self.reading(self._registry.counts, owner)
        return registry_pb2.SummaryResponse(
            counts=[
                registry_pb2.SummaryResponse.Count(
                    state=job_pb2.State.ValueType(state), jobs=found[state]
                )
                for state in sorted(found)
            ]
        )

    async def reading(self, call: Callable[..., T], *arguments: Any) -> T:
        """Runs what reads the store on one of its threads."""
        return await self._on(self._readers, call, *arguments)

    async def writing(self, call: Callable[..., T], *arguments: Any) -> T:
        """Runs what writes to the store on the one thread that does."""
        try:
            return await self._on(self._writer, call, *arguments)
        finally:
            self._feed.nudge()

    async def _on(self, threads: Executor, call: Callable[..., T], *arguments: Any) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, call, *arguments)
        except UnavailableError as error:
            logger.warning("%s (%s)", error, why(error))
            raise
