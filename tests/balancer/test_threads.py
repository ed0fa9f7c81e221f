"""What holds without a lock: exact counts, whole snapshots, one probe, no lost goodbye."""

from __future__ import annotations

import queue
import random
import sys
import threading

import pytest

from shoal_balancer import Ejection, LeastLoaded, Outcome, PeakEwma, RoundRobin
from tests.balancer.helpers import Hand, balancer, names, node_of, replica

DEADLINE = 60.0


@pytest.fixture(autouse=True)
def eager_switches():
    """Switches threads as often as the interpreter can, so that races have their chance."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(*tasks):
    """Runs tasks at the same moment, each on a thread; raises what any of them raised."""
    start = threading.Barrier(len(tasks))
    problems = []

    def run(task):
        start.wait()
        try:
            task()
        except BaseException as problem:
            problems.append(problem)
            raise

    before, threading.excepthook = threading.excepthook, lambda _: None
    try:
        threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
            assert not thread.is_alive()
    finally:
        threading.excepthook = before
    if problems:
        raise problems[0]


@pytest.mark.parametrize("policy", [PeakEwma(), LeastLoaded(), RoundRobin()], ids=repr)
def test_in_flight_is_exact_while_threads_begin_and_end(policy):
    """Every thread leaves some calls open; their sum must be found to the last one."""
    made = balancer("abc", policy=policy, lock=threading.RLock())
    kept = [[] for _ in range(8)]

    def work(mine, seed):
        rng = random.Random(seed)
        for _ in range(5000):
            node = made.pick(1000.0)
            node.begin()
            mine.append(node)
            if len(mine) > 10:
                outcome = rng.choice([Outcome.OK, Outcome.OK, Outcome.FAILED, Outcome.NEUTRAL])
                mine.pop(rng.randrange(len(mine))).end(0.001, outcome, 1000.0)

    together(*(lambda mine=mine, seed=seed: work(mine, seed) for seed, mine in enumerate(kept)))
    for node in made.snapshot.nodes:
        assert node.in_flight == sum(mine.count(node) for mine in kept)
    for mine in kept:
        for node in mine:
            node.end(0.001, Outcome.OK, 1000.0)
    assert all(node.in_flight == 0 for node in made.snapshot.nodes)


def test_pickers_never_see_half_an_update():
    made = balancer(lock=threading.RLock(), clock=Hand(0.0))
    # Never so much smaller that the guard against mass removals comes in.
    generations = [
        [replica(f"r{number}", version=str(generation)) for number in range(6 + generation)]
        for generation in range(5)
    ]
    made.update(generations[0])
    done = threading.Event()
    seen = set()

    def write():
        for turn in range(1500):
            made.update(generations[turn % 5])
        done.set()

    def read():
        while not done.is_set():
            snapshot = made.snapshot
            (version,) = {replica.version for replica in snapshot.replicas}
            assert list(snapshot.replicas) == generations[int(version)]
            assert names(snapshot.nodes) == [replica.id for replica in snapshot.replicas]
            assert set(snapshot.ready) == set(snapshot.nodes)
            assert made.pick(0.0) is not None
            seen.add(version)

    together(write, read, read)
    assert len(seen) > 1


def test_one_probe_however_many_ask_at_once():
    clock = Hand(0.0)
    made = balancer("abc", clock=clock, ejection=Ejection(failures=1), lock=threading.RLock())
    for _ in range(100):
        node = node_of(made, "a")
        if not node.health.ejected:
            node.begin()
            node.end(0.01, Outcome.FAILED, clock.now)
        clock.now = made.snapshot.refresh_at
        picked = queue.SimpleQueue()
        together(*[lambda picked=picked: picked.put(made.pick(clock.now).replica.id)] * 4)
        assert [picked.get() for _ in range(4)].count("a") == 1
        node.begin()
        node.end(0.01, Outcome.OK, clock.now)


def test_no_call_is_on_a_node_that_was_closed_as_idle():
    """The handshake by which channels close: mark, then look for calls; begin, then the mark."""
    made = balancer("abc", clock=Hand(0.0), lock=threading.RLock(), reserve=0.0)
    closed = set()
    done = threading.Event()
    calls = []

    def change():
        rng = random.Random(1)
        for _ in range(1500):
            present = [replica("a")] + [replica(name) for name in "bc" if rng.random() < 0.5]
            made.clock.now += 1.0
            for node in made.update(present) + made.tick():
                node.when_idle(lambda node=node: closed.add(node))
        done.set()

    def call():
        while not done.is_set():
            node = made.pick(made.clock())
            node.begin()
            if node.retired:
                node.abandon()
                continue
            assert node not in closed
            assert node not in closed
            node.end(0.001, Outcome.OK, made.clock())
            calls.append(None)

    together(change, call, call, call)
    assert closed
    assert calls


def test_a_last_call_that_is_just_ending_is_not_missed():
    """`when_idle` comes while the call's end is between its start and the count."""
    made = balancer("ab")
    node = node_of(made, "a")
    ending, counted = threading.Event(), threading.Event()

    class Held(list):
        def pop(self, *_):
            ending.set()
            assert counted.wait(DEADLINE)
            return super().pop()

    node.pending = Held()
    node.begin()
    heard = []
    end = threading.Thread(target=node.end, args=(0.01, Outcome.OK, 1000.0))
    end.start()
    assert ending.wait(DEADLINE)
    node.when_idle(lambda: heard.append(node.in_flight))
    assert heard == []
    counted.set()
    end.join(DEADLINE)
    assert heard == [0]
