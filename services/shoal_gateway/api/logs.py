"""Following a job's output over its attempts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from shoal_gateway.api.logic import TERMINAL, attempt_numbered, log_prefix
from shoal_gateway.api.tails import Tail, Tails
from shoal_gateway.api.tracking import Tracked
from shoal_gateway.errors import NotFoundError, UnavailableError
from shoal_protos.gateway.api.v1 import api_pb2
from shoal_protos.gateway.model.v1 import job_pb2


async def pieces(
    request: api_pb2.LogsRequest, tracked: Tracked, tails: Tails
) -> AsyncGenerator[api_pb2.LogsResponse, None]:
    """What a job wrote and, with ``follow``, what it writes.

    Without an attempt in the request a follower goes on with each attempt that the job starts anew,
    from its first byte.

    Raises:
        NotFoundError: the request names an attempt that the job has not had.
    """
    job = tracked.job
    number, offset = request.attempt or job.attempt, request.offset
    if request.attempt and attempt_numbered(job, request.attempt) is None:
        raise NotFoundError(f"attempt: job {job.id} has had {job.attempt}, not {request.attempt}")
    while True:
        attempt = attempt_numbered(tracked.job, number)
        if attempt is not None:
            async with aclosing(_of_attempt(request, tracked, attempt, offset, tails)) as written:
                async for begin, data in written:
                    yield api_pb2.LogsResponse(data=data, offset=begin, attempt=number)
        if not request.follow or request.attempt:
            return
        following = await _later_attempt(tracked, number)
        if following is None:
            return
        if number:
            # The caller's offset was into the attempt that has ended.
            offset = 0
        number = following


async def _of_attempt(
    request: api_pb2.LogsRequest,
    tracked: Tracked,
    attempt: job_pb2.Attempt,
    offset: int,
    tails: Tails,
) -> AsyncGenerator[tuple[int, bytes], None]:
    prefix = log_prefix(request.job_id, attempt, request.stream)
    if not request.follow:
        tail = tails.once(prefix)
        if attempt.HasField("ended_at"):
            tail.end()
        async for piece in tail.present(offset):
            yield piece
        return
    async with tails.follow(prefix) as tail:
        ending = asyncio.create_task(_end_with_attempt(tracked, attempt.number, tail))
        try:
            async for piece in tail.follow(offset):
                yield piece
        finally:
            ending.cancel()


async def _end_with_attempt(tracked: Tracked, number: int, tail: Tail) -> None:
    while True:
        seen = tracked.job
        attempt = attempt_numbered(seen, number)
        if attempt is not None and attempt.HasField("ended_at"):
            tail.end()
            return
        try:
            await tracked.change(seen)
        except UnavailableError as error:
            tail.fail(error)
            return


async def _later_attempt(tracked: Tracked, number: int) -> int | None:
    """The next attempt after one, once it is started; None when the job ends without it."""
    while True:
        seen = tracked.job
        if seen.attempt > number:
            return number + 1
        if seen.state in TERMINAL:
            return None
        await tracked.change(seen)
