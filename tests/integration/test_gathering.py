"""Meeting points, barriers and groups among directories, over a real ZooKeeper."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import shoal
import shoal.aio
from tests.support.waiting import eventually

WAIT = 60.0


def nodes(operator, chroot, path):
    whole = f"/{chroot.partition('/')[2]}{path}"
    return sorted(operator.get_children(whole)) if operator.exists(whole) else []


def watches(server):
    """How many watches are set, by ZooKeeper's own count."""
    facts = dict(line.split("\t", 1) for line in server.ask("mntr").splitlines() if "\t" in line)
    return int(facts["zk_watch_count"])


@pytest.fixture
def two(directories):
    return directories(), directories()


class TestMeetingPoint:
    @pytest.mark.parametrize("first", ["who says it", "who waits"])
    def test_either_side_comes_first_and_the_result_is_the_same(self, two, first):
        facts = {"address": "10.0.0.5:7000", "since": 7}
        here, there = (shoal.MeetingPoint(each, "x") for each in two)
        with ThreadPoolExecutor() as pool:
            if first == "who waits":
                waiting = pool.submit(there.wait, WAIT)
                with pytest.raises(shoal.CoordinationTimeoutError, match="meeting point 'x' took"):
                    there.wait(0.2)
                assert not waiting.done()
            with here.post(facts, WAIT):
                if first == "who says it":
                    waiting = pool.submit(there.wait, WAIT)
                assert waiting.result(WAIT) == facts

    def test_what_was_said_ends_with_who_said_it(self, two, operator, chroot):
        with shoal.MeetingPoint(two[0], "x").post({}):
            assert nodes(operator, chroot, "/meetings") == ["x"]
        assert nodes(operator, chroot, "/meetings") == []

    def test_it_is_said_again_after_a_lost_session(self, two, zookeeper):
        with shoal.MeetingPoint(two[0], "x").post({"n": 1}):
            before = two[0].desk().session.session_id
            zookeeper.expire_session(two[0].desk().client.client_id)
            eventually(lambda: two[0].desk().session.session_id not in (None, before))
            assert shoal.MeetingPoint(two[1], "x").wait(WAIT) == {"n": 1}

    def test_two_that_say_something_at_one_place_are_told(self, two):
        with (
            shoal.MeetingPoint(two[0], "x").post({}),
            pytest.raises(shoal.CoordinationError, match="belongs to somebody else"),
        ):
            shoal.MeetingPoint(two[1], "x").post({})


class TestBarrier:
    def test_all_wait_until_it_is_opened(self, two):
        here, there = (shoal.Barrier(each, "x") for each in two)
        there.wait(WAIT)  # it was never closed
        assert here.close()
        assert not there.close()
        with pytest.raises(shoal.CoordinationTimeoutError, match="barrier 'x'"):
            there.wait(0.2)
        with ThreadPoolExecutor() as pool:
            waiting = [pool.submit(each.wait, WAIT) for each in (here, there, there)]
            assert here.open()
            for each in waiting:
                each.result(WAIT)
        assert not here.open()


class Party:
    """Participants of a double barrier, each on a thread of its own."""

    def __init__(self, directories, count):
        self.order = []
        self.go = threading.Event()
        self.threads = [
            threading.Thread(target=self._take_part, args=[directory, count], daemon=True)
            for directory in directories
        ]

    def start(self):
        for each in self.threads:
            each.start()

    def join(self):
        for each in self.threads:
            each.join(WAIT)
            assert not each.is_alive()

    def _take_part(self, directory, count):
        with shoal.DoubleBarrier(directory, "x", count):
            self.order.append("in")
            assert self.go.wait(WAIT)
            self.order.append("done")
        self.order.append("out")


class TestDoubleBarrier:
    def test_nobody_begins_before_all_are_there_and_nobody_goes_before_all_are_done(
        self, two, operator, chroot
    ):
        for _ in range(3):  # round after round
            party = Party([two[0], two[1], two[0], two[1]], 4)
            late = party.threads.pop()
            party.start()
            eventually(lambda: len(nodes(operator, chroot, "/barriers/x/members")) == 3)
            assert party.order == []
            late.start()
            party.threads.append(late)
            eventually(lambda party=party: party.order == ["in"] * 4)
            party.go.set()
            party.join()
            assert party.order[4:8] == ["done"] * 4
            assert party.order[8:] == ["out"] * 4
            assert nodes(operator, chroot, "/barriers/x/members") == []
            assert nodes(operator, chroot, "/barriers/x") == ["members"]

    def test_who_gives_up_does_not_count(self, two, operator, chroot):
        barrier = shoal.DoubleBarrier(two[0], "x", 2)
        with pytest.raises(shoal.CoordinationTimeoutError, match="wait for 2 at barrier 'x'"):
            barrier.enter(0.3)
        # Already, and not soon: whoever comes next must not count it.
        assert nodes(operator, chroot, "/barriers/x/members") == []
        barrier.leave()
        party = Party(two, 2)
        party.go.set()
        party.start()
        party.join()

    def test_one_that_dies_inside_counts_as_done(self, two, zookeeper):
        party = Party([two[0]], 2)
        party.start()
        program = textwrap.dedent("""
            import sys, shoal
            directory = shoal.Directory(sys.argv[1], cache_dir=sys.argv[2], session_timeout=2.0)
            shoal.DoubleBarrier(directory, "x", 2).enter()
            print("in", flush=True)
            sys.stdin.read()
        """)
        with subprocess.Popen(
            [sys.executable, "-c", program, two[0].hosts, os.devnull],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout.readline() == "in\n"
            eventually(lambda: party.order == ["in"])
            party.go.set()
            process.send_signal(signal.SIGKILL)
        party.join()
        assert party.order == ["in", "done", "out"]

    def test_a_round_whose_members_have_all_died_does_not_open_the_next(
        self, two, zookeeper, operator, chroot
    ):
        first, second = (shoal.DoubleBarrier(each, "x", 2) for each in two)
        with ThreadPoolExecutor() as pool:
            for each in [pool.submit(each.enter, WAIT) for each in (first, second)]:
                each.result(WAIT)
        # As if both had died: their nodes go, and nobody tidies up.
        for each in (first, second):
            each._kept.leave().result(WAIT)
        assert "ready" in nodes(operator, chroot, "/barriers/x")
        third = shoal.DoubleBarrier(two[0], "x", 2)
        with pytest.raises(shoal.CoordinationTimeoutError):
            third.enter(0.5)
        party = Party(two, 2)
        party.go.set()
        party.start()
        party.join()
        assert "ready" not in nodes(operator, chroot, "/barriers/x")

    def test_one_whose_session_is_lost_inside_counts_as_done_and_not_for_the_next_round(
        self, two, zookeeper, operator, chroot
    ):
        first, second = (shoal.DoubleBarrier(each, "x", 2) for each in two)
        with ThreadPoolExecutor() as pool:
            for each in [pool.submit(each.enter, WAIT) for each in (first, second)]:
                each.result(WAIT)
        desk = two[0].desk()
        before = desk.session.session_id
        zookeeper.expire_session(desk.client.client_id)
        eventually(lambda: desk.session.connected and desk.session.session_id != before, WAIT)
        # What its lost session set off has been done when one more conversation has.
        with shoal.MeetingPoint(two[0], "y").post({}, WAIT):
            second.leave(WAIT)
        assert nodes(operator, chroot, "/barriers/x/members") == []
        with pytest.raises(shoal.CoordinationTimeoutError):
            shoal.DoubleBarrier(two[1], "x", 2).enter(0.5)
        first.leave(WAIT)

    def test_one_that_lost_its_session_as_all_were_there_waits_for_the_next_round(
        self, two, zookeeper, operator, chroot
    ):
        late = shoal.DoubleBarrier(two[0], "x", 2)
        path = f"/{chroot.partition('/')[2]}/barriers/x"
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(late.enter, WAIT)
            (name,) = eventually(lambda: nodes(operator, chroot, "/barriers/x/members"), WAIT)
            zookeeper.expire_session(two[0].desk().client.client_id)
            # A round that lists who has died, and another one who is inside.
            operator.create(f"{path}/members/other")
            operator.create(f"{path}/ready", json.dumps([name, "other"]).encode())
            eventually(
                lambda: {*nodes(operator, chroot, "/barriers/x/members")} - {name, "other"}, WAIT
            )
            with pytest.raises(TimeoutError):
                waiting.result(0.5)
            operator.delete(f"{path}/members/other")
            shoal.DoubleBarrier(two[1], "x", 2).enter(WAIT)
            waiting.result(WAIT)

    def test_nobody_watches_who_is_there(self, own_zookeeper, directories):
        directory = directories(f"{own_zookeeper.hosts}/g")
        party = Party([directory] * 10, 11)
        party.go.set()
        party.start()
        # Each its own node, and all together, for they share a session, the one that is awaited.
        assert eventually(lambda: watches(own_zookeeper) == 11, WAIT)
        with shoal.DoubleBarrier(directory, "x", 11, timeout=WAIT):
            pass
        party.join()

    def test_nonsense_is_refused(self, two):
        with pytest.raises(ValueError, match="at least one"):
            shoal.DoubleBarrier(two[0], "x", 0)
        with pytest.raises(ValueError, match="/"):
            shoal.Barrier(two[0], "a/b")


class TestGroup:
    def test_members_by_flavor(self, two):
        here, there = (shoal.Group(each, "x") for each in two)
        with here.join("a", flavor="cpu", facts={"cores": 8}), here.join("b", flavor="gpu"):
            members = there.wait(2, timeout=WAIT)
            assert [(each.id, each.flavor, dict(each.facts)) for each in members] == [
                ("a", "cpu", {"cores": 8}),
                ("b", "gpu", {}),
            ]
            assert [each.id for each in there.members("gpu")] == ["b"]
            with pytest.raises(shoal.CoordinationTimeoutError, match="had 1 members and not 2"):
                there.wait(2, flavor="gpu", timeout=0.2)
            with pytest.raises(shoal.CoordinationError, match="somebody else"):
                there.join("a", timeout=WAIT)
        eventually(lambda: there.members() == ())

    def test_a_member_is_one_again_after_a_lost_session_and_the_last_set_is_held(
        self, own_zookeeper, directories
    ):
        server = own_zookeeper
        here, there = directories(f"{server.hosts}/g"), directories(f"{server.hosts}/g")
        group = shoal.Group(there, "x")
        seen = []
        group.subscribe(seen.append)
        with shoal.Group(here, "x").join("a"):
            group.wait(1, timeout=WAIT)
            server.expire_session(here.desk().client.client_id)
            eventually(lambda: [len(each) for each in seen][-2:] == [0, 1])
            server.kill()
            eventually(lambda: not there.connected)
            assert [each.id for each in group.members()] == ["a"]
            server.start()
            eventually(lambda: there.connected and here.connected)
        eventually(lambda: group.members() == ())

    def test_a_listener_that_fails_does_not_stop_the_others(self, two, caplog):
        group, seen = shoal.Group(two[0], "x"), []
        group.subscribe(lambda _members: 1 / 0)
        end = group.subscribe(seen.append)
        with shoal.Group(two[1], "x").join("a"):
            eventually(lambda: seen and [each.id for each in seen[-1]] == ["a"])
        end()
        assert "ZeroDivisionError" in caplog.text

    def test_a_group_that_is_closed_is_followed_no_longer_until_it_is_asked_again(self, two):
        group, other, seen = shoal.Group(two[0], "x"), shoal.Group(two[0], "x"), []
        group.subscribe(seen.append)
        eventually(lambda: seen == [()], WAIT)
        group.close()
        group.close()
        with shoal.Group(two[1], "x").join("a"):
            # One thread serves both: what the other one knows, the first would, too.
            other.wait(1, timeout=WAIT)
            assert [each.id for each in group.wait(1, timeout=WAIT)] == ["a"]
        assert seen == [()]


async def test_the_same_awaited(chroot, tmp_path, operator):
    async with (
        shoal.aio.Directory(chroot, cache_dir=tmp_path) as first,
        shoal.aio.Directory(chroot, cache_dir=tmp_path) as second,
    ):
        here, there = shoal.aio.MeetingPoint(first, "x"), shoal.aio.MeetingPoint(second, "x")
        waiting = asyncio.create_task(there.wait(WAIT))
        with pytest.raises(shoal.CoordinationTimeoutError):
            await there.wait(0.2)
        async with await here.post({"n": 1}):
            assert await waiting == {"n": 1}
            with pytest.raises(shoal.CoordinationError, match="somebody else"):
                await there.post({})

        barrier = shoal.aio.Barrier(first, "x")
        assert await barrier.close()
        waiting = asyncio.create_task(shoal.aio.Barrier(second, "x").wait(WAIT))
        with pytest.raises(shoal.CoordinationTimeoutError):
            await barrier.wait(0.1)
        assert await barrier.open()
        await waiting

        order = []

        async def take_part(directory):
            async with shoal.aio.DoubleBarrier(directory, "both", 2, timeout=WAIT):
                order.append("in")
            order.append("out")

        cancelled = asyncio.create_task(shoal.aio.DoubleBarrier(first, "both", 2).enter())
        await asyncio.sleep(0.2)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        members = "/barriers/both/members"
        await asyncio.to_thread(eventually, lambda: nodes(operator, chroot, members) == [])
        await asyncio.gather(take_part(first), take_part(second))
        assert order[:2] == ["in", "in"]

        group, other = shoal.aio.Group(first, "x"), shoal.aio.Group(second, "x")
        async with await group.join("a", flavor="gpu"):
            assert [each.id for each in await other.wait(1, flavor="gpu", timeout=WAIT)] == ["a"]
            with pytest.raises(shoal.CoordinationTimeoutError):
                await other.wait(1, flavor="cpu", timeout=0.1)
