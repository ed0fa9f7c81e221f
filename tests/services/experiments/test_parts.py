"""The parts of an experiment that need no fleet."""

import contextlib
import json
import random
import threading

import pytest

from shoal_checker.history import read
from shoal_gateway.experiments import measures, workload
from shoal_gateway.experiments.breakages import Breaker
from shoal_gateway.experiments.failure import schedule
from shoal_gateway.experiments.faults import Fault, Happened, Injector, spread
from shoal_gateway.experiments.history import History
from shoal_gateway.experiments.plots import throughput
from shoal_gateway.experiments.settings import Settings


def test_a_history_written_by_many_threads_is_one_the_checker_reads(tmp_path):
    history = History(tmp_path / "history.jsonl")

    def write(number):
        for at in range(50):
            history.note("submit", "client", key=f"{number}-{at}")

    threads = [threading.Thread(target=write, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history.close()

    lines = read(history.path)
    assert len({line["key"] for line in lines}) == 200


def test_faults_are_spread_over_the_middle_of_the_run():
    times = spread(random.Random(1), 22, 300.0)

    assert times == sorted(times)
    assert times[0] >= 30.0
    assert times[-1] <= 270.0
    assert times == spread(random.Random(1), 22, 300.0)
    assert times != spread(random.Random(2), 22, 300.0)


@pytest.mark.parametrize(("store", "count"), [("sqlite", 22), ("postgres", 23)])
def test_a_full_run_kills_twenty_replicas_pauses_one_and_loses_a_host(tmp_path, store, count):
    settings = Settings(1000, 1, tmp_path, store, 300.0)

    faults = schedule(settings, Breaker(None, None, random.Random(2)), random.Random(1))

    assert len(faults) == count
    assert sum(fault.seconds == 2.0 for fault in faults) == 20
    assert {15.0, 8.0} <= {fault.seconds for fault in faults}


def test_arrivals_are_replayable_and_all_within_the_time():
    first = workload.arrivals(100, 30.0, random.Random(5))

    assert first == workload.arrivals(100, 30.0, random.Random(5))
    assert len(first) == 100
    assert 0.0 <= first[0] <= first[-1] <= 30.0


def test_every_job_has_a_key_of_its_own_and_a_fifth_the_old_library():
    tasks = workload.climate(50, 3, "failure")

    assert len({task.key for task in tasks}) == 50
    assert sum(task.application == "climate@1.0" for task in tasks) == 10


class Breakages:
    """Notes what is broken and mended, in order."""

    def __init__(self):
        self.seen = []

    def one(self, name):
        @contextlib.contextmanager
        def breakage():
            self.seen.append(f"break {name}")
            try:
                yield name
            finally:
                self.seen.append(f"mend {name}")

        return breakage


def test_faults_happen_in_the_order_of_their_times_and_are_mended(tmp_path):
    history, broken = History(tmp_path / "history.jsonl"), Breakages()
    injector = Injector(
        history, [Fault(0.02, 0.0, broken.one("b")), Fault(0, 0.0, broken.one("a"))]
    )
    injector.start()
    injector.finish(20.0)

    assert broken.seen == ["break a", "mend a", "break b", "mend b"]
    assert [each.what for each in injector.happened] == ["a", "b"]
    lines = [json.loads(line) for line in history.path.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["fault", "recovered"] * 2
    # Bands and bars of a picture have one origin: the history's first line.
    assert injector.happened[0].at == 0.0
    assert injector.happened[1].at == lines[2]["monotonic"] - lines[0]["monotonic"]


def test_what_is_broken_is_mended_when_the_run_stops(tmp_path):
    broken, entered = Breakages(), threading.Event()

    @contextlib.contextmanager
    def long():
        with broken.one("long")() as what:
            entered.set()
            yield what

    faults = [Fault(0.0, 600.0, long), Fault(1.0, 0.0, broken.one("later"))]
    injector = Injector(History(tmp_path / "history.jsonl"), faults)
    injector.start()
    assert entered.wait(20.0)
    injector.stop()

    assert broken.seen == ["break long", "mend long"]


def test_a_fault_that_can_not_be_carried_out_fails_the_run(tmp_path):
    @contextlib.contextmanager
    def impossible():
        raise OSError("no such process")
        yield

    injector = Injector(History(tmp_path / "history.jsonl"), [Fault(0.0, 0.0, impossible)])
    injector.start()
    with pytest.raises(OSError, match="no such process"):
        injector.finish(20.0)


def test_percentiles_are_of_the_nearest_rank():
    assert measures.percentiles(range(1, 101)) == {
        "p50": 50, "p90": 90, "p95": 95, "p99": 99, "p100": 100,
    }  # fmt: skip
    assert measures.percentiles([]) == {}


def test_latency_counts_from_the_first_submit_of_a_key():
    lines = [
        {"kind": "begin", "monotonic": 0.0},
        {"kind": "submit", "key": "a", "monotonic": 1.0},
        {"kind": "acknowledged", "key": "a", "job_id": "1", "monotonic": 1.5},
        {"kind": "terminal", "job_id": "1", "state": "SUCCEEDED", "monotonic": 4.0},
        {"kind": "terminal", "job_id": "2", "state": "FAILED", "monotonic": 5.0},
    ]

    found = measures.latencies(lines)
    assert found["submit_seconds"]["p50"] == 0.5
    assert found["job_seconds"]["p50"] == 3.0
    assert measures.successes(lines) == {"1": 4.0}
    assert measures.longest_gap([4.0, 5.0, 9.0], 10.0) == 4.0


def test_the_picture_is_drawn_with_more_faults_than_one_column_holds(tmp_path):
    happened = [
        Happened(number, f"fault {number}", number, number + 1.0) for number in range(1, 31)
    ]
    throughput(tmp_path / "run.png", {"1": [0.5, 3.0], "2": [3.2]}, happened, 35.0, "a run")

    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
