"""More callers than a server can serve in time: what a limit is for."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

import shoal
from shoal.refusal import pushback_in
from shoal_protos.testing.v1 import echo_pb2

WORK = 0.02
WORKERS = 4
CALLERS = 48
# A caller's patience. All callers at once would have to wait for CALLERS ÷ WORKERS × WORK = 0.24 s.
PATIENCE = 0.15
SECONDS = 2.0


def crowd(stub):
    """What becomes of calls when everybody calls again as soon as they may."""
    ends = Counter()
    lock = threading.Lock()
    until = time.monotonic() + SECONDS

    def caller():
        while time.monotonic() < until:
            pause = 0.0
            try:
                stub.Echo(echo_pb2.EchoRequest(), timeout=PATIENCE)
                code = grpc.StatusCode.OK
            except grpc.RpcError as error:
                code = error.code()
                pause = pushback_in(error.trailing_metadata()) or 0.0
            with lock:
                ends[code] += 1
            time.sleep(pause)

    with ThreadPoolExecutor(CALLERS) as callers:
        for done in [callers.submit(caller) for _ in range(CALLERS)]:
            done.result()
    return ends


@pytest.fixture
def ends(made, directory, stub_to):
    def under(limit):
        server = made(workers=WORKERS, limit=limit)
        server.echo.script = lambda _: time.sleep(WORK)
        return crowd(stub_to(server.serve(directory).target))

    return under


def test_without_a_limit_most_of_the_work_is_for_nobody(ends):
    seen = ends(None)
    assert seen[grpc.StatusCode.DEADLINE_EXCEEDED] > seen[grpc.StatusCode.OK]
    assert seen[grpc.StatusCode.RESOURCE_EXHAUSTED] == 0


@pytest.mark.parametrize(
    "limit",
    [
        shoal.FixedLimit(8),
        shoal.AdaptiveLimit(initial=6, least=4, most=12, window=0.2),
    ],
)
def test_with_a_limit_what_is_let_in_is_answered_in_time(ends, limit):
    seen = ends(limit)
    # The other way round than without; five to one and more where the machine has time.
    assert seen[grpc.StatusCode.OK] > seen[grpc.StatusCode.DEADLINE_EXCEEDED]
    assert seen[grpc.StatusCode.RESOURCE_EXHAUSTED] > 0
    # And the threads are kept busy meanwhile: half of what they could do at best.
    assert seen[grpc.StatusCode.OK] > 0.5 * SECONDS * WORKERS / WORK
