"""Output as it grows, over segments and attempts, for many followers."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from shoal_gateway.api import logs
from shoal_gateway.api.tails import Tails
from shoal_gateway.api.tracking import Tracked
from shoal_gateway.errors import NotFoundError, UnavailableError
from shoal_protos.gateway.api.v1 import api_pb2
from shoal_protos.gateway.model.v1 import job_pb2

DEADLINE = 30.0


class FakeSegments:
    def __init__(self):
        self.stored = {}
        self.listed = 0
        self.read = []
        self.broken = 0
        self._lock = threading.Lock()

    def write(self, prefix, data):
        offset = sum(len(found) for key, found in self.stored.items() if key.startswith(prefix))
        with self._lock:
            self.stored[f"{prefix}{offset:020d}"] = data

    def keys(self, prefix):
        with self._lock:
            self.listed += 1
            if self.broken:
                self.broken -= 1
                raise UnavailableError("the disk is away")
            return [key for key in self.stored if key.startswith(prefix)]

    def content(self, key):
        self.read.append(key)
        return self.stored[key]


@pytest.fixture
def segments():
    return FakeSegments()


@pytest.fixture
def tails(segments):
    with ThreadPoolExecutor(4) as executor:
        yield Tails(segments, executor, interval=0.02)


def job(state=job_pb2.STATE_RUNNING, *attempts):
    made = job_pb2.Job(id="7", state=state, attempt=len(attempts))
    for number, word in enumerate(attempts, start=1):
        attempt = made.attempts.add(number=number, runner_id=f"runner-{number}")
        if word == "ended":
            attempt.ended_at.FromSeconds(1)
    return made


def prefix(attempt=1, stream="stdout"):
    return f"jobs/7/attempt-{attempt}/runner-{attempt}/logs/{stream}/"


def request(**changes):
    fields = {"job_id": "7", "stream": api_pb2.LOG_STREAM_STDOUT, "follow": True}
    return api_pb2.LogsRequest(**{**fields, **changes})


async def collect(asked, tracked, tails):
    async with asyncio.timeout(DEADLINE):
        return [piece async for piece in logs.pieces(asked, tracked, tails)]


def text(pieces):
    return b"".join(piece.data for piece in pieces)


async def test_what_is_there_is_read_from_an_offset(segments, tails):
    segments.write(prefix(), b"hello ")
    segments.write(prefix(), b"world")
    tracked = Tracked(job(job_pb2.STATE_RUNNING, "runs"))
    pieces = await collect(request(follow=False, offset=4), tracked, tails)
    assert text(pieces) == b"o world"
    assert [(piece.offset, piece.attempt) for piece in pieces] == [(4, 1), (6, 1)]
    assert await collect(request(follow=False, offset=99), tracked, tails) == []
    stderr = request(follow=False, stream=api_pb2.LOG_STREAM_STDERR)
    assert await collect(stderr, tracked, tails) == []


async def test_a_hundred_followers_share_one_tail(segments, tails):
    tracked = Tracked(job(job_pb2.STATE_RUNNING, "runs"))
    followers = [asyncio.create_task(collect(request(), tracked, tails)) for _ in range(100)]
    for number in range(20):
        segments.write(prefix(), b"line %d\n" % number)
        await asyncio.sleep(0.01)
    assert len(tails) == 1
    tracked.replace(job(job_pb2.STATE_SUCCEEDED, "ended"))
    expected = b"".join(b"line %d\n" % number for number in range(20))
    for pieces in await asyncio.gather(*followers):
        assert text(pieces) == expected
    # Each segment was read once for all of them, and nothing goes on when they have gone.
    assert len(segments.read) == 20
    assert len(tails) == 0


async def test_what_is_written_between_the_last_listing_and_the_end_is_not_lost(segments, tails):
    tracked = Tracked(job(job_pb2.STATE_RUNNING, "runs"))
    follower = asyncio.create_task(collect(request(), tracked, tails))
    while not segments.listed:  # noqa: ASYNC110 - set on another thread
        await asyncio.sleep(0.005)
    segments.write(prefix(), b"last words")
    tracked.replace(job(job_pb2.STATE_FAILED, "ended"))
    assert text(await follower) == b"last words"


async def test_a_follower_goes_on_with_the_next_attempt(segments, tails):
    segments.write(prefix(1), b"first try")
    segments.write(prefix(2), b"second try")
    tracked = Tracked(job(job_pb2.STATE_RUNNING, "runs"))
    follower = asyncio.create_task(collect(request(offset=6), tracked, tails))
    await asyncio.sleep(0.05)
    tracked.replace(job(job_pb2.STATE_QUEUED, "ended"))
    await asyncio.sleep(0.05)
    tracked.replace(job(job_pb2.STATE_RUNNING, "ended", "runs"))
    await asyncio.sleep(0.05)
    tracked.replace(job(job_pb2.STATE_SUCCEEDED, "ended", "ended"))
    pieces = await follower
    assert [(piece.attempt, piece.offset, piece.data) for piece in pieces] == [
        (1, 6, b"try"),
        (2, 0, b"second try"),
    ]


async def test_a_follower_of_a_job_that_waits_begins_when_it_starts(segments, tails):
    tracked = Tracked(job(job_pb2.STATE_QUEUED))
    follower = asyncio.create_task(collect(request(), tracked, tails))
    await asyncio.sleep(0.02)
    segments.write(prefix(), b"hello")
    tracked.replace(job(job_pb2.STATE_SUCCEEDED, "ended"))
    assert text(await follower) == b"hello"


async def test_a_job_that_ends_without_a_start_ends_its_followers(tails):
    tracked = Tracked(job(job_pb2.STATE_QUEUED))
    follower = asyncio.create_task(collect(request(), tracked, tails))
    await asyncio.sleep(0.02)
    tracked.replace(job(job_pb2.STATE_CANCELLED))
    assert await follower == []


async def test_one_attempt_can_be_asked_for_and_must_have_been(segments, tails):
    segments.write(prefix(1), b"first try")
    tracked = Tracked(job(job_pb2.STATE_RUNNING, "ended", "runs"))
    assert text(await collect(request(attempt=1), tracked, tails)) == b"first try"
    with pytest.raises(NotFoundError, match="has had 2, not 3"):
        await collect(request(attempt=3), tracked, tails)


async def test_a_segment_that_was_lost_leaves_a_gap_that_shows(segments, tails):
    segments.stored[prefix() + "0" * 20] = b"abc"
    segments.stored[prefix() + f"{10:020d}"] = b"xyz"
    tracked = Tracked(job(job_pb2.STATE_FAILED, "ended"))
    pieces = await collect(request(), tracked, tails)
    assert [(piece.offset, piece.data) for piece in pieces] == [(0, b"abc"), (10, b"xyz")]


async def test_a_large_segment_comes_in_pieces(segments, tails):
    segments.write(prefix(), b"x" * 200_000)
    tracked = Tracked(job(job_pb2.STATE_SUCCEEDED, "ended"))
    pieces = await collect(request(), tracked, tails)
    assert text(pieces) == b"x" * 200_000
    assert max(len(piece.data) for piece in pieces) <= 64 * 1024


async def test_a_store_that_is_away_for_a_moment_is_waited_for(segments, tails, caplog):
    segments.broken = 3
    segments.write(prefix(), b"hello")
    tracked = Tracked(job(job_pb2.STATE_SUCCEEDED, "ended"))
    assert text(await collect(request(), tracked, tails)) == b"hello"
    assert "the disk is away" in caplog.text
