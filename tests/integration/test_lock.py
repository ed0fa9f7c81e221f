"""shoal.Lock among directories of one process: turns, loss, and what is left behind."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from kazoo.client import KazooClient
from kazoo.protocol.states import KazooState
from kazoo.security import make_acl

import shoal
from shoal.testing.faultproxy import FaultProxy
from shoal.testing.zookeeper import ZooKeeperEnsemble
from tests.support.waiting import eventually


def nodes(operator, chroot, name="x"):
    path = f"/{chroot.partition('/')[2]}/locks/{name}"
    return operator.get_children(path) if operator.exists(path) else []


@pytest.fixture
def two(directories):
    return directories(), directories()


def test_it_is_held_by_one_and_the_next_gets_a_higher_fence(two, operator, chroot):
    first, second = (shoal.Lock(each, "x") for each in two)
    with first:
        assert first.held
        first.check()
        with pytest.raises(shoal.LockTakenError):
            second.acquire(wait=False)
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(second.acquire)
            eventually(lambda: len(nodes(operator, chroot)) == 2)
            fence = first.fence
            assert not waiting.done()
            assert first.release()
            assert waiting.result(30) > fence
    assert not first.held
    assert second.held
    assert second.release()
    assert nodes(operator, chroot) == []


def test_a_wait_that_is_too_long_says_who_is_ahead_and_leaves_the_line(two, operator, chroot):
    with shoal.Lock(two[0], "x", who="the first"):
        second = shoal.Lock(two[1], "x", timeout=0.2)
        with (
            pytest.raises(shoal.LockTimeoutError, match=r"1 stood ahead.*the first.*connected"),
            second,
        ):
            raise AssertionError("it was not to be had")
        assert len(nodes(operator, chroot)) == 1
        assert not second.held
    with second:
        assert second.held


def test_contenders_are_told_in_their_order(two):
    first, second = (shoal.Lock(each, "x", who=who) for each, who in zip(two, "ab", strict=True))
    assert first.contenders() == []
    with first:
        waiting = threading.Thread(target=second.acquire)
        waiting.start()
        eventually(lambda: second.contenders() == ["a", "b"])
    waiting.join(30)
    assert second.held
    second.release()


def test_a_session_that_expires_takes_the_lock_and_says_so(two, zookeeper):
    reasons = []
    first, second = shoal.Lock(two[0], "x", on_lost=reasons.append), shoal.Lock(two[1], "x")
    before = first.acquire()
    zookeeper.expire_session(two[0]._session.client.client_id)
    assert second.acquire(30) > before
    assert first.lost.wait(30)
    assert not first.held
    with pytest.raises(shoal.LockLostError, match="session has ended"):
        first.check()
    # It keeps its fence, for the store to refuse.
    assert first.fence == before
    eventually(lambda: reasons == ["its ZooKeeper session has ended"])
    assert not first.release()
    assert second.held
    assert second.release()
    assert first.acquire(30) > before
    assert first.held
    assert not first.lost.is_set()


def test_a_waiter_whose_session_expires_stands_in_line_again(two, zookeeper, operator, chroot):
    first, second = (shoal.Lock(each, "x") for each in two)
    with first:
        waiting = threading.Thread(target=second.acquire)
        waiting.start()
        eventually(lambda: len(nodes(operator, chroot)) == 2)
        old = set(nodes(operator, chroot))
        zookeeper.expire_session(two[1]._session.client.client_id)
        eventually(lambda: len(set(nodes(operator, chroot)) - old) == 1)
        assert not second.held
    waiting.join(30)
    assert second.held
    second.release()


def test_an_operator_breaks_it_by_deleting_its_node(two, operator, chroot):
    first = shoal.Lock(two[0], "x")
    first.acquire()
    (node,) = nodes(operator, chroot)
    operator.delete(f"/{chroot.partition('/')[2]}/locks/x/{node}")
    assert first.lost.wait(30)
    with pytest.raises(shoal.LockLostError, match="node was deleted"):
        first.check()


def test_a_lock_that_is_lost_leaves_no_node_in_a_session_that_lives_on(two, operator, chroot):
    first = shoal.Lock(two[0], "x")
    first.acquire()
    assert len(nodes(operator, chroot)) == 1
    # As after a pause that our own clock thinks too long and the server just short enough.
    first._tenure._until = 0.0
    assert not first.held
    assert first.lost.wait(30)
    eventually(lambda: nodes(operator, chroot) == [])
    assert two[0]._session.connected


def test_it_outlives_a_lost_connection_within_the_session(zookeeper, chroot, directories, operator):
    with FaultProxy(zookeeper.hosts) as proxy:
        directory = directories(f"{proxy.address}/{chroot.partition('/')[2]}")
        lock = shoal.Lock(directory, "x")
        fence = lock.acquire(30)
        client = directory.desk().client
        session = client.client_id
        dropped, back = threading.Event(), threading.Event()

        def changed(state):
            (back if state == KazooState.CONNECTED else dropped).set()

        client.add_listener(changed)
        proxy.reset()
        assert dropped.wait(30)
        assert back.wait(30)
        assert client.client_id == session
        assert lock.held
        assert not lock.lost.is_set()
        # Its node is watched again: of what the first watch saw nothing is left.
        eventually(lambda: client._data_watchers)
        operator.delete(lock._tenure.path)
        assert lock.lost.wait(30)
        assert not lock.release()
        assert lock.acquire(30) > fence
        lock.release()


def test_while_zookeeper_stays_away_it_is_lost_by_our_own_clock(own_zookeeper, tmp_path):
    with shoal.Directory(own_zookeeper.hosts, session_timeout=1.0, cache_dir=tmp_path) as directory:
        lock = shoal.Lock(directory, "x")
        lock.acquire(30)
        own_zookeeper.pause()
        assert lock.lost.wait(30)
        with pytest.raises(shoal.LockLostError, match="ZooKeeper has not answered"):
            lock.check()
        # kazoo itself has never said so: nobody could tell it.
        assert directory.desk().client.state != "LOST"
        assert not lock.release(timeout=0.1)
        with pytest.raises(shoal.LockTimeoutError, match="ZooKeeper is"):
            lock.acquire(0.3)
        own_zookeeper.resume()
        assert lock.acquire(30)


def test_answers_of_a_server_that_lost_its_leader_prove_nothing(tmp_path):
    with ZooKeeperEnsemble(3, tmp_path / "ensemble") as ensemble:
        follower = next(server for server in ensemble if server.mode == "follower")
        cache = tmp_path / "cache"
        with shoal.Directory(follower.hosts, session_timeout=4.0, cache_dir=cache) as directory:
            lock = shoal.Lock(directory, "x")
            lock.acquire(30)
            reader = KazooClient(follower.hosts)
            reader.start(30)
            # Its followers notice after five seconds (syncLimit); until then they answer reads.
            ensemble.leader().pause()
            assert lock.lost.wait(30)
            assert reader.get_children("/locks/x")
            with pytest.raises(shoal.LockLostError, match="ZooKeeper has not answered"):
                lock.check()
            reader.stop()
            reader.close()


def test_a_dead_zookeeper_times_out_and_says_so(tmp_path):
    with shoal.Directory("127.0.0.1:1/x", cache_dir=tmp_path) as directory:
        with pytest.raises(shoal.LockTimeoutError, match="ZooKeeper is connecting"):
            shoal.Lock(directory, "x").acquire(0.2)
        with pytest.raises(shoal.CoordinationError, match="not known within"):
            shoal.Lock(directory, "x").contenders(0.2)


def test_a_directory_that_closes_ends_waits_and_holdings(two):
    first, second = (shoal.Lock(each, "x") for each in two)
    first.acquire()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(second.acquire)
        eventually(lambda: second._contention is not None and second._contention.ahead == 1)
        two[1].close()
        with pytest.raises(shoal.DirectoryClosedError):
            waiting.result(30)
    two[0].close()
    assert not first.held
    assert first.lost.is_set()
    assert not first.release()
    with pytest.raises(shoal.DirectoryClosedError):
        first.acquire()


def test_misuse_is_told(two):
    lock = shoal.Lock(two[0], "x")
    with pytest.raises(shoal.LockError, match="acquire it first"):
        _ = lock.fence
    with pytest.raises(shoal.LockError, match="acquire it first"):
        lock.check()
    assert not lock.release()
    with lock, pytest.raises(shoal.LockError, match="held or awaited"):
        lock.acquire()
    with pytest.raises(ValueError, match="can't be the name"):
        shoal.Lock(two[0], "a/b")


def test_a_refusal_of_zookeepers_is_told_with_its_cause(two, operator, chroot):
    path = f"/{chroot.partition('/')[2]}/locks/x"
    operator.ensure_path(path)
    operator.set_acls(path, [make_acl("world", "anyone", read=True)])
    with pytest.raises(shoal.CoordinationError, match="NoAuth"):
        shoal.Lock(two[0], "x").acquire(30)


def test_kazoos_own_lock_and_ours_wait_for_each_other(two, operator, chroot):
    path = f"/{chroot.partition('/')[2]}/locks/x"
    ours, theirs = shoal.Lock(two[0], "x"), operator.Lock(path, "kazoo")
    with ours:
        assert not theirs.acquire(blocking=False)
    with theirs, pytest.raises(shoal.LockTakenError, match="held by kazoo"):
        ours.acquire(wait=False)
    with ours:
        assert ours.held


def test_a_forked_child_holds_nothing(two):
    lock = shoal.Lock(two[0], "x")
    with lock:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if not lock.held and not lock.release() else 2
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert lock.held
        lock.check()
        with pytest.raises(shoal.LockTakenError):
            shoal.Lock(two[1], "x").acquire(wait=False)
