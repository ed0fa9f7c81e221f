"""The gateway's api as the page asks it: jobs, their logs and outputs, and the events of all."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

import grpc
import grpc.aio

from shoal.aio.channel import Channel
from shoal_gateway.client import state_name
from shoal_gateway.contracts import CALLS
from shoal_gateway.convert import unix
from shoal_gateway.dashboard.watcher import Source
from shoal_gateway.tokens import METADATA_KEY
from shoal_protos.gateway.api.v1 import api_pb2, api_pb2_grpc
from shoal_protos.gateway.model.v1 import job_pb2

logger = logging.getLogger(__name__)

# Seconds for a call; the channel tries other replicas within them.
TIMEOUT = 10.0
PAGE = 100
# Longest pause before the events are followed again, seconds.
LONGEST = 2.0


class Gateway:
    """Calls the api with the token of whoever started the dashboard. On one event loop.

    Args:
        directory: Where its replicas are found.
        token: Shows who calls; None where nobody has to.
    """

    def __init__(self, directory: Source, token: str | None = None) -> None:
        self._channel = Channel(cast(Any, directory), "api", contract=CALLS, tls=directory.tls)
        self._api = api_pb2_grpc.ApiStub(cast(grpc.Channel, self._channel))
        self._metadata = ((METADATA_KEY, f"Bearer {token}"),) if token is not None else ()

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()

    async def jobs(
        self, *, states: Sequence[int], owner: str, token: str, size: int = PAGE
    ) -> dict[str, Any]:
        """A page of jobs, newest first."""
        request = api_pb2.ListRequest(
            owner=owner,
            states=states,  # type: ignore[arg-type] # stubs want the enum
            page_size=size,
            page_token=token,
        )
        answer = await self._ask(self._api.List, request)
        return {
            "jobs": [job_json(job) for job in answer.jobs],
            "next": answer.next_page_token,
        }

    async def job(self, job_id: str) -> dict[str, Any]:
        """A job with its attempts, history and outputs."""
        answer = await self._ask(self._api.Get, api_pb2.GetRequest(id=job_id))
        job: job_pb2.Job = answer.job
        return {
            **job_json(job),
            "command": list(job.spec.command),
            "function": job.spec.function,
            "flavor": job.spec.flavor,
            "parameters": dict(job.spec.parameters),
            "signed_by": job.signed_by,
            "attempts": [attempt_json(each) for each in job.attempts],
            "events": [
                {
                    "at": unix(each.at),
                    "state": state_name(each.state),
                    "message": each.message,
                }
                for each in answer.events
            ],
            "outputs": [
                {"name": each.name, "size": each.object.size, "sha256": each.object.sha256}
                for each in job.manifest.files
            ],
        }

    async def logs(
        self, job_id: str, *, stderr: bool, attempt: int, offset: int
    ) -> AsyncIterator[api_pb2.LogsResponse]:
        """What an attempt wrote, from an offset on, and what it writes until it ends."""
        request = api_pb2.LogsRequest(
            job_id=job_id,
            stream=api_pb2.LOG_STREAM_STDERR if stderr else api_pb2.LOG_STREAM_STDOUT,
            offset=offset,
            attempt=attempt,
            follow=True,
        )
        call = cast(Any, self._api.Logs(request, metadata=self._metadata))
        try:
            async for response in call:
                yield response
        finally:
            call.cancel()

    async def download(self, job_id: str, name: str) -> AsyncIterator[bytes]:
        """A published file."""
        request = api_pb2.DownloadRequest(job_id=job_id, name=name)
        call = cast(Any, self._api.Download(request, timeout=60.0, metadata=self._metadata))
        try:
            async for response in call:
                if response.chunk:
                    yield response.chunk
        finally:
            call.cancel()

    async def follow(self, note: Callable[[str, str, float], object]) -> None:
        """Tells of each job's change from now on, until it is cancelled.

        Over the deaths of replicas it goes on where it was. While nobody answers it tries again.
        """
        after, bound = -1, 0.05
        while True:
            request = api_pb2.WatchRequest(after=after)
            call = cast(Any, self._api.Watch(request, wait_for_ready=True, metadata=self._metadata))
            try:
                async for response in call:
                    event = response.event
                    after, bound = event.seq, 0.05
                    note(event.job_id, state_name(event.state), unix(event.at))
            except grpc.RpcError as error:
                level = (
                    logging.DEBUG if code_of(error) is grpc.StatusCode.UNAVAILABLE else logging.INFO
                )
                logger.log(level, "job events are not told: %s", error)
            finally:
                call.cancel()
            await asyncio.sleep(random.uniform(bound / 2.0, bound))  # noqa: S311 - no secret
            bound = min(bound * 2.0, LONGEST)

    async def _ask(self, method: Any, request: Any) -> Any:
        return await method(request, timeout=TIMEOUT, metadata=self._metadata)


def code_of(error: Exception) -> grpc.StatusCode | None:
    """How a call has failed; None where that is not told."""
    return cast(grpc.StatusCode | None, getattr(error, "code", lambda: None)())


def job_json(job: job_pb2.Job) -> dict[str, Any]:
    """A job for the table."""
    return {
        "id": job.id,
        "application": job.spec.application,
        "owner": job.account or job.owner,
        "state": state_name(job.state),
        "reason": job.reason,
        "cancelling": job.cancelling,
        "attempt": job.attempt,
        "submitted": unix(job.submitted_at),
        "started": unix(job.started_at),
        "ended": unix(job.ended_at),
        "exit_code": job.exit_code if job.HasField("exit_code") else None,
    }


def attempt_json(attempt: job_pb2.Attempt) -> dict[str, Any]:
    """One start of a job."""
    return {
        "number": attempt.number,
        "host": attempt.host,
        "manager": attempt.manager_id,
        "version": attempt.manager_version,
        "runner": attempt.runner_id,
        "started": unix(attempt.started_at),
        "ended": unix(attempt.ended_at),
        "outcome": attempt.outcome,
        "exit_code": attempt.exit_code if attempt.HasField("exit_code") else None,
    }
