"""The api on the wire: an asyncio server, so that a hundred followers cost no threads."""

# ruff: noqa: N802, D102, ARG002 - methods are named, documented and called as the contract says

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

import grpc

from shoal_gateway import jobtraces
from shoal_gateway import validation as check
from shoal_gateway.api import logic, logs
from shoal_gateway.api.callers import READ, WRITE, Caller, Callers
from shoal_gateway.api.catalogue import Catalogue
from shoal_gateway.api.feed import Feed
from shoal_gateway.api.files import Files
from shoal_gateway.api.hints import WakeHints
from shoal_gateway.api.signers import Signers
from shoal_gateway.api.tails import Tails
from shoal_gateway.api.tracking import Tracker
from shoal_gateway.convert import duration
from shoal_gateway.errors import (
    AlreadyExistsError,
    DeniedError,
    NotFoundError,
    PreconditionError,
    QuotaError,
)
from shoal_gateway.status import speaks_status
from shoal_gateway.together import Together
from shoal_protos.gateway.api.v1 import api_pb2, api_pb2_grpc
from shoal_protos.gateway.model.v1 import job_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2, registry_pb2_grpc

# Seconds for one call to the registry, all its attempts included.
CALL_TIMEOUT = 10.0
# Seconds that followers have to end by themselves when this replica leaves: most jobs are short,
# and who is sent away has to come back with a cursor.
FOLLOWERS_GRACE = 3.0
# Submits that share a call, and their bytes, within what gRPC takes in a message.
MAX_TOGETHER = 256
MAX_BYTES = 2 << 20
MAX_PAGE = 1000
MAX_OFFSET = 2**63 - 1


class RegistryClient:
    """The calls to the registry that the api makes, each with its timeout."""

    def __init__(self, stub: registry_pb2_grpc.RegistryAsyncStub) -> None:
        self.stub = stub
        # Each call of the registry that writes is one transaction; those who submit at the same
        # time share one.
        self.create = Together(
            self._create,
            most=MAX_TOGETHER,
            size=registry_pb2.CreateJobRequest.ByteSize,
            limit=MAX_BYTES,
        )

    async def _create(
        self, jobs: Sequence[registry_pb2.CreateJobRequest]
    ) -> list[registry_pb2.CreateJobResponse | Exception]:
        if len(jobs) == 1 and not jobs[0].account:
            return [await self.stub.CreateJob(jobs[0], timeout=CALL_TIMEOUT)]
        # A quota is told within an answer: as a status it would count against the replica, and a
        # user who goes on asking could have healthy registries passed over.
        request = registry_pb2.CreateJobsRequest(jobs=jobs, whole=True)
        try:
            answer = await self.stub.CreateJobs(request, timeout=CALL_TIMEOUT)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.INVALID_ARGUMENT or len(jobs) == 1:
                raise
            # One that can't be written down is said to who sent it, and to nobody else.
            return await asyncio.gather(*(self._create_one(each) for each in jobs))
        return [
            _refusal(item)
            if item.error
            else registry_pb2.CreateJobResponse(job=item.job, created=item.created)
            for item in answer.items
        ]

    async def _create_one(
        self, job: registry_pb2.CreateJobRequest
    ) -> registry_pb2.CreateJobResponse | Exception:
        try:
            (answer,) = await self._create([job])
        except grpc.RpcError as error:
            return error
        return answer

    async def job(self, job_id: str) -> job_pb2.Job:
        """A job as it is now."""
        return (await self.with_history(job_id)).job

    async def with_history(self, job_id: str) -> registry_pb2.GetJobResponse:
        """A job and its events."""
        return await self.stub.GetJob(registry_pb2.GetJobRequest(id=job_id), timeout=CALL_TIMEOUT)

    async def changes(
        self, after: int, max_events: int, wait: float
    ) -> registry_pb2.ChangesResponse:
        """The history after a cursor."""
        return await self.stub.Changes(
            registry_pb2.ChangesRequest(after=after, max_events=max_events, wait=duration(wait)),
            timeout=wait + CALL_TIMEOUT,
        )


@speaks_status
class ApiServicer(api_pb2_grpc.ApiServicer):
    """Users' calls.

    Args:
        catalogue: What may be run.
        registry: Where jobs are.
        files: Inputs and outputs.
        feed: The history as it grows.
        tails: Logs as they grow.
        hints: Told of every new job.
        signers: Who signed what; by default nobody has to.
        callers: Who calls; by default nobody has to say it.
        charge: Counts bytes that a user is about to store.
        now: Seconds since 1970.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        registry: RegistryClient,
        files: Files,
        feed: Feed,
        tails: Tails,
        hints: WakeHints,
        *,
        signers: Signers | None = None,
        callers: Callers | None = None,
        charge: Callable[[str, int], Awaitable[None]] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._catalogue = catalogue
        self._registry = registry
        self._files = files
        self._feed = feed
        self._tails = tails
        self._hints = hints
        self._signers = signers or Signers()
        self._callers = callers or Callers()
        self._charge = charge
        self._tracker = Tracker(feed, registry.job)
        self._now = now

    def leave(self) -> None:
        """The drain begins: followers have a moment to come to their end, then are sent away."""
        loop = asyncio.get_running_loop()
        loop.call_later(FOLLOWERS_GRACE, self._feed.leave)
        loop.call_later(FOLLOWERS_GRACE, self._tails.leave)

    async def Applications(
        self, request: api_pb2.ApplicationsRequest, context: Any
    ) -> api_pb2.ApplicationsResponse:
        await self._callers.of(context)
        return api_pb2.ApplicationsResponse(
            applications=[logic.described(each) for each in self._catalogue.applications]
        )

    async def Upload(
        self, request_iterator: AsyncIterator[api_pb2.UploadRequest], context: Any
    ) -> api_pb2.UploadResponse:
        caller = await self._callers.of(context, WRITE)

        async def charge(count: int) -> None:
            if caller.user and self._charge is not None:
                await self._charge(caller.user, count)

        stored = await self._files.upload(aiter(request_iterator), caller.user, charge)
        return api_pb2.UploadResponse(object=stored)

    async def Submit(self, request: api_pb2.SubmitRequest, context: Any) -> api_pb2.SubmitResponse:
        caller = await self._callers.of(context, WRITE)
        _name_owner(request, caller)
        signed_by = self._signers.of(request)
        asked = logic.submission(request, self._catalogue, self._now(), signed_by, caller.user)
        await self._files.check_inputs(list(asked.spec.inputs))
        trace = jobtraces.submitted(context.invocation_metadata())
        answer = await self._registry.create(_creation(asked, trace))
        self._hints.give()
        return api_pb2.SubmitResponse(job=answer.job, created=answer.created)

    async def SubmitMany(
        self, request: api_pb2.SubmitManyRequest, context: Any
    ) -> api_pb2.SubmitManyResponse:
        caller = await self._callers.of(context, WRITE)
        for index, one in enumerate(request.requests):
            _name_owner(one, caller, f"requests[{index}].")
        # A thousand signatures take a tenth of a second: not on the loop.
        signed_by = (
            await asyncio.to_thread(self._signers.of_all, request)
            if any(each.HasField("signature") for each in request.requests)
            else self._signers.of_all(request)
        )
        asked = logic.submissions(request, self._catalogue, self._now(), signed_by, caller.user)
        for each in asked:
            if each.spec.inputs:
                await self._files.check_inputs(list(each.spec.inputs))
        trace = jobtraces.submitted(context.invocation_metadata())
        answer = await self._registry.stub.CreateJobs(
            registry_pb2.CreateJobsRequest(jobs=[_creation(each, trace) for each in asked]),
            timeout=CALL_TIMEOUT,
        )
        self._hints.give()
        return api_pb2.SubmitManyResponse(
            items=[
                api_pb2.SubmitManyResponse.Item(
                    id=item.id,
                    created=item.created,
                    state=item.state,
                    error=item.error,
                    quota=item.quota,
                )
                for item in answer.items
            ]
        )

    async def Get(self, request: api_pb2.GetRequest, context: Any) -> api_pb2.GetResponse:
        caller = await self._callers.of(context, READ)
        answer = await self._registry.with_history(check.job_id(request.id))
        caller.own(answer.job)
        return api_pb2.GetResponse(job=answer.job, events=answer.events)

    async def List(self, request: api_pb2.ListRequest, context: Any) -> api_pb2.ListResponse:
        caller = await self._callers.of(context, READ)
        for index, state in enumerate(check.at_most(request.states, "states", limit=64)):
            check.known(state, f"states[{index}]", job_pb2.State.DESCRIPTOR)
        answer = await self._registry.stub.ListJobs(
            registry_pb2.ListJobsRequest(
                owner=check.optional(request.owner, "owner", limit=check.MAX_NAME),
                states=request.states,
                page_size=check.whole(request.page_size, "page_size", 0, MAX_PAGE),
                page_token=request.page_token,
                account="" if caller.admin else caller.user,
            ),
            timeout=CALL_TIMEOUT,
        )
        # A registry from before there were users does not choose.
        shown = [each for each in answer.jobs if caller.sees(each)]
        return api_pb2.ListResponse(jobs=shown, next_page_token=answer.next_page_token)

    async def Watch(
        self, request: api_pb2.WatchRequest, context: Any
    ) -> AsyncIterator[api_pb2.WatchResponse]:
        caller = await self._callers.of(context, READ)
        after = check.whole(request.after, "after", -1, MAX_OFFSET)
        wanted = set(check.at_most(request.states, "states", limit=64))
        for index, state in enumerate(request.states):
            check.known(state, f"states[{index}]", job_pb2.State.DESCRIPTOR)
        events = (
            self._events_of(check.job_id(request.job_id, "job_id"), after, caller)
            if request.job_id
            else self._all_events(after, caller)
        )
        async with aclosing(self._callers.watched(events, context, READ)) as allowed:
            async for event in allowed:
                if not wanted or event.state in wanted:
                    yield api_pb2.WatchResponse(event=event)

    async def Cancel(self, request: api_pb2.CancelRequest, context: Any) -> api_pb2.CancelResponse:
        caller = await self._callers.of(context, WRITE)
        job_id, reason = check.job_id(request.id), check.optional(request.reason, "reason")
        await self._make_sure(caller, job_id)
        answer = await self._registry.stub.CancelJob(
            registry_pb2.CancelJobRequest(id=job_id, reason=reason), timeout=CALL_TIMEOUT
        )
        return api_pb2.CancelResponse(job=answer.job)

    async def Replay(self, request: api_pb2.ReplayRequest, context: Any) -> api_pb2.ReplayResponse:
        caller = await self._callers.of(context, WRITE)
        job_id = check.job_id(request.id)
        await self._make_sure(caller, job_id)
        try:
            answer = await self._registry.stub.ReplayJob(
                registry_pb2.ReplayJobRequest(id=job_id), timeout=CALL_TIMEOUT
            )
        except grpc.RpcError as error:
            # That is how the registry tells of a quota, lest it count against a replica.
            said = error.details() or ""
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION and said.startswith("quota "):
                raise QuotaError(said.split()[1].rstrip(":"), said) from error
            raise
        self._hints.give()
        return api_pb2.ReplayResponse(job=answer.job)

    async def Logs(
        self, request: api_pb2.LogsRequest, context: Any
    ) -> AsyncIterator[api_pb2.LogsResponse]:
        caller = await self._callers.of(context, READ)
        job_id = check.job_id(request.job_id, "job_id")
        check.known(request.stream, "stream", api_pb2.LogStream.DESCRIPTOR)
        check.whole(request.offset, "offset", 0, MAX_OFFSET)
        check.whole(request.attempt, "attempt", 0, 2**31 - 1)
        async with self._tracker.follow(job_id) as tracked:
            caller.own(tracked.job)
            pieces = logs.pieces(request, tracked, self._tails)
            async with aclosing(self._callers.watched(pieces, context, READ)) as allowed:
                async for piece in allowed:
                    yield piece

    async def Outputs(
        self, request: api_pb2.OutputsRequest, context: Any
    ) -> api_pb2.OutputsResponse:
        caller = await self._callers.of(context, READ)
        job = await self._succeeded(check.job_id(request.job_id, "job_id"), caller)
        return api_pb2.OutputsResponse(manifest=job.manifest, published_at=job.ended_at)

    async def Download(
        self, request: api_pb2.DownloadRequest, context: Any
    ) -> AsyncIterator[api_pb2.DownloadResponse]:
        caller = await self._callers.of(context, READ)
        job_id = check.job_id(request.job_id, "job_id")
        name = check.file_name(request.name, "name")
        job = await self._succeeded(job_id, caller)
        for file in job.manifest.files:
            if file.name == name:
                break
        else:
            published = ", ".join(file.name for file in job.manifest.files) or "nothing"
            raise NotFoundError(f"name: job {job.id} did not publish {name!r} but {published}")
        async with aclosing(
            self._callers.watched(self._files.download(file), context, READ)
        ) as parts:
            async for part in parts:
                yield part

    async def _make_sure(self, caller: Caller, job_id: str) -> None:
        """That a job is the caller's. Whose it is never changes, so what comes after is theirs."""
        if not caller.admin:
            caller.own(await self._registry.job(job_id))

    async def _succeeded(self, job_id: str, caller: Caller) -> job_pb2.Job:
        job = caller.own(await self._registry.job(job_id))
        if job.state != job_pb2.STATE_SUCCEEDED:
            name = job_pb2.State.Name(job.state).removeprefix("STATE_")
            raise PreconditionError(f"job {job_id} is {name}; only a SUCCEEDED job has outputs")
        return job

    async def _all_events(self, after: int, caller: Caller) -> AsyncGenerator[job_pb2.Event, None]:
        # "From now on" is the registry's now; the feed may be a moment behind it.
        cursor = after if after >= 0 else (await self._registry.changes(-1, 1, 0.0)).last
        async for event in self._feed.follow(cursor):
            if caller.sees(event):
                yield event

    async def _events_of(
        self, job_id: str, after: int, caller: Caller
    ) -> AsyncGenerator[job_pb2.Event, None]:
        # In this order: what happens after the position reaches us through the feed, and what
        # happened before it is in the history.
        position = await self._feed.position()
        found = await self._registry.with_history(job_id)
        caller.own(found.job)
        history = found.events
        for event in history:
            if 0 <= after < event.seq:
                yield event
        last = history[-1]
        if last.state in logic.TERMINAL:
            return
        async for event in self._feed.follow(position):
            if event.job_id == job_id and event.seq > max(after, last.seq):
                yield event
                if event.state in logic.TERMINAL:
                    return


def _creation(asked: logic.Submission, trace: str) -> registry_pb2.CreateJobRequest:
    return registry_pb2.CreateJobRequest(
        owner=asked.owner,
        idempotency_key=asked.idempotency_key,
        spec=asked.spec,
        fingerprint=asked.fingerprint,
        signed_by=asked.signed_by,
        account=asked.account,
        trace_context=trace,
    )


def _refusal(item: registry_pb2.CreateJobsResponse.Item) -> AlreadyExistsError | QuotaError:
    return QuotaError(item.quota, item.error) if item.quota else AlreadyExistsError(item.error)


def _name_owner(request: api_pb2.SubmitRequest, caller: Caller, field: str = "") -> None:
    """Has a submit be its caller's, where callers say who they are."""
    if not caller.user:
        return
    if request.owner not in ("", caller.user):
        raise DeniedError(
            f"{field}owner: is {request.owner!r}, and the token is {caller.user}'s; leave it out"
        )
    request.owner = caller.user
