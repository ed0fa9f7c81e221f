"""Load on a real ZooKeeper, and what is said of a series of failures."""

from __future__ import annotations

import threading
import time

import pytest

from shoal.testing import ZooKeeperServer
from shoal_gateway.experiments.ensemble import load, series, tables, wire
from shoal_gateway.experiments.ensemble.load import BUCKET, Counted, Plan
from shoal_gateway.experiments.ensemble.press import Press
from shoal_gateway.experiments.ensemble.run import shortcomings
from shoal_gateway.experiments.faults import Happened
from shoal_gateway.fleet import FleetError


@pytest.fixture(scope="module")
def server():
    with ZooKeeperServer() as made:
        load.prepare((made.address, made.port))
        yield made


def plan(server, seconds=0.5, **changes):
    now = time.monotonic()
    return Plan([(server.address, server.port)], now, now + seconds, sessions=1, **changes)


@pytest.mark.parametrize(("reads", "kinds"), [(1.0, "r"), (0.0, "w"), (0.5, "rw")])
def test_a_mix_is_what_it_should_be(server, reads, kinds):
    counted = load.run(plan(server, reads=reads))
    assert bool(counted.reads) == ("r" in kinds)
    assert bool(counted.writes) == ("w" in kinds)
    assert (counted.errors, counted.lost) == (0, 0)
    received = int(
        next(line.split()[1] for line in server.ask("mntr").splitlines() if "packets_rec" in line)
    )
    assert received >= counted.of(0.0, time.monotonic())


def test_workers_create_and_leave_one_node_at_most(server):
    counted = load.run(plan(server, reads=None))
    assert sum(counted.writes.values()) > 2
    assert counted.errors == 0
    left = int(
        next(line.split()[1] for line in server.ask("mntr").splitlines() if "znode_count" in line)
    )
    # The root, ZooKeeper's own, what `prepare` makes, and the last one.
    assert left <= load.NODES + 10


def test_a_rate_is_kept(server):
    counted = load.run(plan(server, seconds=1.0, rate=100.0))
    assert 0 < sum(counted.reads.values()) <= 110


def test_load_goes_on_when_its_server_is_back():
    with ZooKeeperServer() as server:
        load.prepare((server.address, server.port))
        asked = plan(server, seconds=60.0, reads=1.0, rate=200.0)
        session = load.Session(asked, 0)
        thread = threading.Thread(target=session.run, daemon=True)
        thread.start()

        def answers():
            return sum(session._reads.values())

        def more(than):
            until = time.monotonic() + 60.0
            while answers() <= than:
                assert time.monotonic() < until
                time.sleep(0.01)  # the thread counts, and tells nobody

        more(0)
        server.kill()
        before = answers()
        server.start()
        more(before)


def test_who_does_not_serve_is_told_of():
    with pytest.raises(OSError, match="refused"):
        wire.Connection("127.0.0.1", 1)


def test_a_process_that_breaks_off_is_told_of(server):
    press = Press([server], seconds=0.1, reads=1.0, rate=0.0)
    with pytest.raises(FleetError, match=r"(?s)broke off.*ZeroDivisionError"):
        press.wait()
    press.stop()


def test_rows_are_compared_round_by_round(server):
    told = []
    size = tables.Size(servers=(1,), reads=(1.0,), workers=(), rounds=2, seconds=0.2)
    rows = tables.measure({1: [server]}, size, 1, lambda *step: told.append(step))
    (row,) = rows["operations"]
    assert len(row["rounds"]) == 2
    assert row["least"] <= row["median"] <= row["most"]
    assert row["of_one_server"] == {"median": 1.0, "least": 1.0, "most": 1.0}
    assert told == [(1, 2), (2, 2)]


def answers(*stretches, rate=20):
    """Answers in every bucket of the stretches, so many a second."""
    return {
        bucket: int(rate * BUCKET)
        for begin, end in stretches
        for bucket in range(int(begin / BUCKET), int(end / BUCKET))
    }


def test_what_callers_and_jobs_felt():
    counted = Counted(reads=answers((100, 130)), writes=answers((100, 120), (123, 130)))
    jobs = [15.0, 20.5, 21.0, 29.0]
    (felt,) = series.felt(counted, jobs, [Happened(1, "leader killed", 20.0, 22.0)], began=100.0)
    assert felt["operations_before"] == 40
    assert felt["operations_meanwhile"] == 20.0
    assert felt["no_write_seconds"] == 3.0
    assert felt["no_answer_seconds"] == 0.0
    assert felt["jobs_per_second_meanwhile"] == 1.0


def test_buckets_become_rates():
    assert series.per_bucket(answers((10, 11)), 10.0, 2.0, 0.5) == [20.0, 20.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("silent", "jobs", "said"),
    [(30.0, 3.0, []), (3.0, 3.0, ["outage was none"]), (30.0, 1.0, ["1.00 jobs succeeded"])],
)
def test_an_outage_that_shows_nothing_and_jobs_that_notice_are_told(silent, jobs, said):
    outage = {"no_answer_seconds": silent, "seconds": 30.0, "jobs_per_second_meanwhile": jobs}
    problems = shortcomings(outage, 3.0)
    assert len(problems) == len(said)
    assert all(words in problem for words, problem in zip(said, problems, strict=True))
