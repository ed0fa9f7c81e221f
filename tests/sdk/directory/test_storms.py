"""What many processes would do at the same moment is spread over a while."""

import random
from types import SimpleNamespace

from shoal.diskcache import DiskCache
from shoal.registrar import JITTER, ZooKeeperRegistration
from shoal.servicewatch import RESYNC_NODES, STORM_JITTER, Node, ServiceWatch
from shoal_balancer import Replica

A = Replica("a", "127.0.0.1", 5001)


class RecordingWorker:
    """Runs nothing; remembers when it was asked to."""

    inside = False

    def __init__(self):
        self.delays = []

    def call_soon(self, task):
        self.delays.append(0.0)

    def call_later(self, delay, task):
        self.delays.append(delay)


def watch(worker, seed):
    made = ServiceWatch(
        "jobs",
        "/services/jobs",
        cache=DiskCache(None, "zk"),
        resync_every=60.0,
        state=lambda: "connected",
        rng=random.Random(seed),
    )
    made.begin(SimpleNamespace(connected=True), worker)
    return made


def test_lesson_8_rereads_after_a_reconnect_are_spread_and_the_first_read_is_not():
    delays = []
    for seed in range(200):
        worker = RecordingWorker()
        each = watch(worker, seed)
        each.reread(spread=True)
        assert worker.delays[-1] == 0.0  # nothing is known yet, and a caller may be waiting
        each.publish([A])
        each.reread(spread=True)
        delays.append(worker.delays[-1])
    assert 0.0 <= min(delays) < 0.1 * STORM_JITTER
    assert 0.9 * STORM_JITTER < max(delays) <= STORM_JITTER


def test_resyncs_are_spread_around_their_period():
    delays = []
    for seed in range(200):
        worker = RecordingWorker()
        watch(worker, seed)
        delays.append(max(worker.delays))
    assert 48.0 <= min(delays) < 50.0
    assert 70.0 < max(delays) <= 72.0


def test_a_resync_reads_the_list_and_some_nodes_and_each_has_its_turn():
    made = watch(RecordingWorker(), 1)
    made._nodes = {f"r{number:03}": Node(1, A) for number in range(2 * RESYNC_NODES + 20)}
    read = []
    for _ in range(3):
        made._list_is_stale = False
        made._stale.clear()
        made._resync()
        assert made._list_is_stale
        assert len(made._stale) == RESYNC_NODES
        read += sorted(made._stale)
    assert set(read) == set(made._nodes)
    # It begins again at the first.
    assert len(read) - len(set(read)) == RESYNC_NODES - 20
    made._nodes = {}
    made._resync()


def test_trap_12_announcing_again_after_a_lost_session_is_spread():
    worker, rng = RecordingWorker(), random.Random(1)
    registration = ZooKeeperRegistration(
        SimpleNamespace(connected=True),
        "/services/jobs/a",
        "jobs",
        A,
        worker=worker,
        rng=rng,
        forget=lambda _: None,
    )
    for _ in range(200):
        registration.ensure_after_storm()
    assert 0.0 <= min(worker.delays) < 0.1 * JITTER
    assert 0.9 * JITTER < max(worker.delays) <= JITTER


def test_events_before_a_read_are_one_read():
    worker = RecordingWorker()
    each = watch(worker, 1)
    planned = len(worker.delays)
    for _ in range(100):
        each._mark("CHANGED", "/services/jobs/a")
    assert len(worker.delays) == planned
    assert each._stale == {"a"}
