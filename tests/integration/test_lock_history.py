"""Locks under lost sessions and paused processes, judged by the history (as Jepsen does it).

Several processes hold one lock in turn and write into a register that enforces the fence. Meanwhile
sessions are expired, and a holder is stopped for longer than its session lives. Then the history is
checked: what the register took, and what the holders believed by their own clocks.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import defaultdict

import pytest

from tests.support.fenced import make_register
from tests.support.stopping import stop
from tests.support.waiting import eventually

PROCESSES = 3
ROUNDS = int(os.environ.get("SHOAL_LOCK_ROUNDS", "2"))


class Holder:
    """One of the processes, and what it has said."""

    def __init__(self, hosts, place, name):
        self.name = name
        self.lines = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fenced",
             hosts, str(place / name), str(place / "register.db"), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def said(self, event):
        return [each for each in self.lines if each["event"] == event]

    @property
    def holding(self):
        """What it holds now as far as it has said: the line, or None."""
        ends = {each["fence"] for each in self.lines if each["event"] in ("left", "refused")}
        held = self.said("held")
        return held[-1] if held and held[-1]["fence"] not in ends else None

    def end(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.close()
        assert self.process.wait(60) == 0
        self._reader.join(60)


def someone_holding(holders):
    return eventually(
        lambda: next((each for each in holders if each.holding), None), what="a holder"
    )


def taken(path):
    with sqlite3.connect(path) as store:
        return store.execute("SELECT fence, who FROM taken ORDER BY seq").fetchall()


def being_written(path):
    store = sqlite3.connect(path, timeout=0.0, isolation_level=None)
    try:
        store.execute("BEGIN IMMEDIATE")
        store.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return True
    else:
        return False
    finally:
        store.close()


def judge(writes, lines, ended=frozenset()):
    """Raises an AssertionError unless the history is one of a lock with fences.

    A session that somebody ends before its time takes its holder by surprise: for the fences in
    ``ended`` no clock of the holder's can know it, and only the register's word counts.
    """
    fences = [fence for fence, _ in writes]
    # The register never went back, and nobody wrote between another's writes.
    assert fences == sorted(fences)
    owners = defaultdict(set)
    for fence, who in writes:
        owners[fence].add(who)
    for line in lines:
        if line["event"] == "held":
            owners[line["fence"]].add(line["who"])
    # A fence is one holder's.
    assert all(len(names) == 1 for names in owners.values()), owners
    # By their own clocks no two held it at once, and who held it later has the higher fence.
    spans = {}
    for line in lines:
        if line["event"] == "still held":
            begin, _ = spans.get(line["fence"], (line["now"], 0.0))
            spans[line["fence"]] = (begin, line["now"])
    for (fence, (_, end)), (later, (begin, _)) in itertools.pairwise(
        sorted(spans.items(), key=lambda each: each[1][0])
    ):
        assert end < begin or fence in ended, f"{fence} held until {end}, {later} from {begin} on"
        assert fence < later


@pytest.mark.timeout(120 + 60 * ROUNDS)
def test_whoever_is_paused_or_loses_its_session_the_history_is_that_of_a_lock(
    own_zookeeper, tmp_path
):
    path = tmp_path / "register.db"
    make_register(path)
    rng = random.Random(7)
    ended = set()
    holders = [
        Holder(f"{own_zookeeper.hosts}/history", tmp_path, name) for name in "abc"[:PROCESSES]
    ]
    try:
        for number in range(ROUNDS):
            # A session is ended under its holder.
            victim = someone_holding(holders)
            before = {each["fence"] for each in victim.said("held")}
            held = victim.said("held")[-1]
            own_zookeeper.expire_session((held["session"], bytes.fromhex(held["password"])))
            # What it has held since, in the session that was being ended, is ended too.
            eventually(
                lambda victim=victim, held=held: (
                    victim.said("held")[-1]["session"] != held["session"]
                ),
                what="its next session",
            )
            ended |= before | {
                each["fence"] for each in victim.said("held") if each["session"] == held["session"]
            }
            # A holder is stopped until another one has written, and goes on with its writes.
            stopped = None
            while stopped is None:
                candidate = someone_holding(holders)
                stop(candidate.process.pid)
                written = len(taken(path))
                held = candidate.holding
                good = held is not None and taken(path)[-1][0] == held["fence"]
                if good and not being_written(path):
                    stopped = candidate
                else:
                    # It had let go by then, or had written nothing yet, or was in the midst of it.
                    candidate.process.send_signal(signal.SIGCONT)
            eventually(
                lambda fence=held["fence"]: taken(path)[-1][0] > fence, what="a successor's write"
            )
            assert len(taken(path)) > written
            stopped.process.send_signal(signal.SIGCONT)
            # Whoever comes next, everybody goes on.
            goal = {each.name: len(each.said("held")) + rng.randint(1, 2) for each in holders}
            for each in holders:
                eventually(
                    lambda each=each, goal=goal: len(each.said("held")) >= goal[each.name],
                    what=f"{each.name} to hold it again in round {number}",
                )
    finally:
        for each in holders:
            each.end()
    lines = [line for each in holders for line in each.lines]
    judge(taken(path), lines, ended)
    # It was not for nothing: the register had to refuse who woke up, and who then knew better.
    refused = [line for line in lines if line["event"] == "refused"]
    assert refused
    assert not any(line["held"] for line in refused if line["fence"] not in ended)


def written(*rows):
    return [(fence, who) for fence, who in rows]


def held(fence, who, *moments):
    yield {"event": "held", "fence": fence, "who": who}
    for now in moments:
        yield {"event": "still held", "fence": fence, "who": who, "now": now}


GOOD = [*held(1, "a", 1.0, 2.0), *held(2, "b", 2.5, 3.0)]


def test_the_judge_accepts_a_good_history():
    # It asserts, and raises where it does not accept.
    judge(written((1, "a"), (1, "a"), (2, "b")), GOOD)


@pytest.mark.parametrize(
    ("writes", "lines"),
    [
        (written((1, "a"), (2, "b"), (1, "a")), GOOD),  # written after its time
        (written((1, "a"), (1, "b")), GOOD),  # two with one fence
        (written((1, "a")), [*held(1, "a", 1.0, 2.7), *held(2, "b", 2.5)]),  # both at once
        (written(), [*held(2, "a", 1.0), *held(1, "b", 2.0)]),  # fences that fall
    ],
)
def test_the_judge_finds_what_no_lock_does(writes, lines):
    with pytest.raises(AssertionError):
        judge(writes, lines)
