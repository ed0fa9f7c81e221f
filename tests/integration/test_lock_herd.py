"""A hundred wait for one lock: each release wakes one, by ZooKeeper's own count."""

from __future__ import annotations

import queue
import threading

import shoal
from tests.support.waiting import eventually

WAITERS = 100


def watches(server):
    """How many watches are set."""
    return int(facts(server)["zk_watch_count"])


def sent(server):
    """Answers and events that the server has sent."""
    return int(facts(server)["zk_packets_sent"])


def facts(server):
    return dict(line.split("\t", 1) for line in server.ask("mntr").splitlines() if "\t" in line)


def test_a_release_wakes_one_of_a_hundred(own_zookeeper, tmp_path):
    held: queue.Queue[tuple[int, shoal.Lock]] = queue.Queue()
    go = [threading.Event() for _ in range(WAITERS)]
    with shoal.Directory(f"{own_zookeeper.hosts}/herd", cache_dir=tmp_path) as directory:

        def contend(number):
            lock = shoal.Lock(directory, "x")
            lock.acquire()
            held.put((number, lock))
            assert go[number].wait(60)
            lock.release()

        threads = [threading.Thread(target=contend, args=[each]) for each in range(WAITERS)]
        for each in threads:
            each.start()
        # Each watches one node: those who wait the one before theirs, the holder its own, which is
        # the next one's, too.
        eventually(lambda: watches(own_zookeeper) == WAITERS - 1)
        costs = []
        for _ in range(WAITERS):
            number, _ = held.get(timeout=60)
            before = sent(own_zookeeper)
            go[number].set()
            threads[number].join(60)
            if len(costs) < WAITERS - 1:
                eventually(lambda: held.qsize() == 1, what="the next holder")
            costs.append(sent(own_zookeeper) - before)
    # The answer to the delete, the event, and what the one that is woken reads: the line and its
    # own node. The rest is what falls into the time: pings, proofs of life, our own questions.
    assert sorted(costs)[WAITERS // 2] <= 10
    assert sum(costs) < 20 * WAITERS
