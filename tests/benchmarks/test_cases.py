"""Each case of `make bench`, as small as it goes: what it counts and what it hands back.

How long anything takes is not looked at here: that is what the benchmark itself is for.
"""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.paired.bench import Bench
from benchmarks.paired.callers import CORE, OURS
from benchmarks.paired.cases import CASES
from benchmarks.paired.cases.security import WITHOUT
from benchmarks.paired.gateways import HAPROXY, NGINX
from tests.support.echo import ROOT
from tests.support.waiting import eventually


@pytest.fixture
def bench():
    return Bench(rounds=1, quick=True)


def figures(name, bench):
    """Metric and peer → the only round's value."""
    rows = CASES[name](bench)
    assert rows
    assert all(len(row.values) >= 1 for row in rows)
    return {(row.metric, row.peer): row.values[0] for row in rows}


@pytest.mark.parametrize("name", ["latency", "latency-aio"])
def test_latency_is_divided_by_every_peer_that_is_there(name, bench):
    found = figures(name, bench)
    for peer in (CORE, HAPROXY, NGINX):
        if peer == CORE or not any(peer in remark for remark in bench.remarks):
            assert found["latency ÷ peer's", peer] > 0.0


@pytest.mark.parametrize("name", ["throughput", "throughput-aio"])
def test_throughput_is_divided_by_the_core_s(name, bench):
    assert figures(name, bench)["throughput ÷ peer's", CORE] > 0.0


def test_a_slow_replica_is_compared_in_throughput_and_tail(bench):
    found = figures("slow", bench)
    assert found["throughput ÷ peer's", CORE] > 0.0
    assert found["p99 ÷ peer's", CORE] > 0.0
    assert found["calls to the slow one, %", OURS] < found["calls to the slow one, %", CORE]


def test_a_failing_replica_fails_no_idempotent_call(bench):
    found = figures("failing", bench)
    assert found["failed idempotent calls", OURS] == 0
    assert found["failed idempotent calls", CORE] > 0


def test_a_killed_replica_fails_no_idempotent_call(bench):
    found = figures("kill", bench)
    assert found["failed idempotent calls", OURS] == 0
    assert found["worst idempotent call, ms", OURS] > 0.0


def test_a_stopped_replica_fails_fewer_calls_than_without_attempts_of_their_own(bench):
    found = figures("stop", bench)
    assert found["failed idempotent calls", OURS] <= found["failed idempotent calls", CORE]


def test_the_pick_is_timed_for_three_sizes(bench):
    found = figures("pick", bench)
    for size in (3, 100, 10_000):
        assert found["pick, µs", f"{size} replicas"] > 0.0


def test_memory_is_that_of_a_list_and_of_a_list_in_use(bench):
    found = figures("memory", bench)
    assert {metric for metric, _ in found} == {
        "memory of the list, MB",
        "the same after 20 calls, MB",
    }


def test_replicas_that_come_and_go_are_called_and_left(bench):
    found = figures("membership", bench)
    assert found["a new replica's first call, ms", OURS] > 0.0
    assert found["last new call after SIGTERM, ms", OURS] >= 0.0
    assert found["create to watch, ms", "ZooKeeper alone"] > 0.0


@pytest.mark.parametrize("name", ["steps", "steps-aio"])
def test_the_time_of_a_call_is_taken_apart(name, bench):
    found = figures(name, bench)
    assert found["all of it, without grpc, µs", OURS] > 0.0
    assert found["a call, µs", OURS] > found["the caller's thread at work, µs", OURS] > 0.0


def children(pid):
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [int(child) for child in found]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_what_it_started(number, tmp_path):
    run = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.paired", "--only", "throughput", "--out", tmp_path],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        started = eventually(lambda: len(children(run.pid)) == 3 and children(run.pid))
        run.send_signal(number)
        said, _ = run.communicate(timeout=60)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 130
    assert "interrupted" in said
    # One that was just being started ends by itself, with its input.
    eventually(lambda: not any(Path(f"/proc/{child}").exists() for child in started))
    assert list(tmp_path.iterdir()) == []


def test_too_few_rounds_are_refused():
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.paired", "--rounds", "4"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    assert "at least 5" in run.stderr


@pytest.mark.parametrize("name", ["tls", "tls-aio"])
def test_tls_is_divided_by_plain_text(name, bench):
    found = figures(name, bench)
    assert found["latency ÷ peer's", WITHOUT] > 0.0
    assert found["throughput ÷ peer's", WITHOUT] > 0.0
