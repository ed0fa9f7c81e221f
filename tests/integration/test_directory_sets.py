"""What callers see of a service, from a real ZooKeeper."""

import json
import logging
import threading
from dataclasses import replace

import pytest
from kazoo.client import KazooClient

from shoal import instance
from shoal.errors import DirectoryClosedError
from shoal_balancer import Replica, Status
from tests.support.waiting import eventually

A = Replica("a", "127.0.0.1", 5001, registered_at=1.0)
B = Replica("b", "127.0.0.1", 5002, registered_at=2.0, version="2", flavor="x", zone="z")


def ids(watch):
    return [replica.id for replica in watch.replicas()]


def put(operator, watch, name, data, **options):
    operator.create(f"{watch.path}/{name}", data, makepath=True, **options)


def delete_whole(operator, path):
    """Deletes a node and its children in one step, before any of them can be made again."""

    def deleted():
        change = operator.transaction()
        for name in operator.get_children(path):
            change.delete(f"{path}/{name}")
        change.delete(path)
        return change.commit()[-1] is True

    eventually(deleted)


def test_two_directories_in_one_process_see_each_others_replicas(directories):
    one, two = directories(), directories()
    assert one.caller_id != two.caller_id
    seen = []
    two.watch("jobs").subscribe(seen.append)
    one.announce("jobs", A)
    assert two.ready("jobs") == (A,)
    two.announce("jobs", B)
    assert one.ready("jobs", count=2) == (A, B)
    assert one._session.session_id != two._session.session_id
    one.close()
    eventually(lambda: ids(two.watch("jobs")) == ["b"])
    # Node and list are watched apart: for a moment one of them is known to have changed again.
    eventually(lambda: two.watch("jobs").describe() == "connected; 1 replicas")
    assert (A,) in seen
    assert seen[-1] == (B,)


def test_the_watch_of_a_service_is_one_object_and_says_where_it_looks(directories, chroot):
    directory = directories()
    assert directory.watch("jobs") is directory.watch("jobs")
    assert directory.watch("jobs").path == f"/{chroot.partition('/')[2]}/services/jobs"


def test_a_chroot_of_several_levels_is_made(directories, chroot):
    directory = directories(f"{chroot}/deeper/still")
    directory.announce("jobs", A)
    assert directory.ready("jobs") == (A,)


def test_a_change_of_data_reaches_callers_as_a_whole_set(directories):
    server, caller = directories(), directories()
    registration = server.announce("jobs", A)
    server.announce("jobs", B)
    caller.ready("jobs", count=2)
    registration.update(status=Status.BUSY)
    eventually(lambda: caller.watch("jobs").replicas() == (replace(A, status=Status.BUSY), B))
    registration.update(status=Status.DRAINING, enabled=False)
    assert registration.replica.routable is False
    eventually(lambda: [each.routable for each in caller.watch("jobs").replicas()] == [False, True])


def test_a_malformed_znode_is_passed_over_with_one_warning_that_names_it(
    directories, operator, caplog
):
    caller = directories(resync_every=0.2)
    watch = caller.watch("jobs")
    with caplog.at_level(logging.WARNING, logger="shoal"):
        put(operator, watch, "not-json", b"{")
        put(operator, watch, "no-port", json.dumps({"id": "x", "address": "y"}).encode())
        put(operator, watch, "good", instance.encode("jobs", A))
        assert caller.ready("jobs") == (A,)
        # Several full reads later there is still one warning for each.
        first = watch._confirmed_at
        eventually(lambda: watch._confirmed_at > first + 0.5)
        assert caplog.text.count("not-json") == 1
        assert caplog.text.count("no-port") == 1
        # Mended, it counts.
        operator.set(f"{watch.path}/not-json", instance.encode("jobs", B))
        assert caller.ready("jobs", count=2) == (A, B)


def test_foreign_registrations_are_read(directories, operator):
    caller = directories()
    watch = caller.watch("jobs")
    curator = {
        "name": "jobs",
        "id": "uuid",
        "address": "10.0.0.5",
        "port": 50051,
        "sslPort": None,
        "payload": {"@class": "org.example.Details", "version": "7"},
        "registrationTimeUTC": 1558000134185,
        "serviceType": "DYNAMIC",
        "uriSpec": {"parts": []},
        "somethingNew": 1,
    }
    put(operator, watch, "uuid", json.dumps(curator).encode(), ephemeral=True)
    (replica,) = caller.ready("jobs")
    assert (replica.id, replica.target, replica.version) == ("uuid", "10.0.0.5:50051", "7")


def test_trap_4_a_path_that_is_missing_or_deleted_later_is_watched_again(directories, operator):
    caller, server = directories(), directories()
    watch = caller.watch("jobs")
    eventually(lambda: watch.known)
    for replica in (A, B):
        # Who looks does not make it: a service that an operator removes stays removed.
        assert not operator.exists(watch.path)
        put(operator, watch, replica.id, instance.encode("jobs", replica))
        eventually(lambda expected=replica: watch.replicas() == (expected,))
        delete_whole(operator, watch.path)
        eventually(lambda: watch.held)
    registration = server.announce("jobs", A)
    delete_whole(operator, watch.path)
    # The path is back, and the replica too.
    eventually(lambda: watch.replicas() == (A,))
    assert registration.replica == A


def test_trap_5_a_change_of_data_alone_is_noticed_and_costs_one_read(directories, operator):
    caller = directories()
    watch = caller.watch("jobs")
    for number in range(30):
        replica = Replica(f"r{number:02}", "127.0.0.1", 6000 + number)
        put(operator, watch, replica.id, instance.encode("jobs", replica))
    caller.ready("jobs", count=30)
    read = []
    get = caller._session.client.get_async
    caller._session.client.get_async = lambda path, **kw: (read.append(path), get(path, **kw))[1]
    changed = Replica("r07", "127.0.0.1", 6007, version="2")
    operator.set(f"{watch.path}/r07", instance.encode("jobs", changed))
    eventually(lambda: changed in watch.replicas())
    assert read == [f"{watch.path}/r07"]


def test_reads_go_out_at_most_twenty_at_a_time(directories, operator):
    caller = directories()
    watch = caller.watch("jobs")
    eventually(lambda: watch.known)
    client = caller._session.client
    get, sent, most = client.get_async, [], 0

    def count(path, **options):
        nonlocal most
        sent.append(get(path, **options))
        # By the results themselves: their callbacks run later, on a thread of kazoo's.
        most = max(most, sum(not result.ready() for result in sent))
        return sent[-1]

    client.get_async = count
    operator.ensure_path(watch.path)
    change = operator.transaction()
    for number in range(70):
        replica = Replica(f"r{number:02}", "127.0.0.1", 6000 + number)
        change.create(f"{watch.path}/{replica.id}", instance.encode("jobs", replica))
    change.commit()
    caller.ready("jobs", count=70)
    assert 1 < most <= 20


def test_a_node_that_is_deleted_and_made_again_at_once_is_read_again(directories, operator):
    caller = directories()
    watch = caller.watch("jobs")
    put(operator, watch, "a", instance.encode("jobs", A))
    caller.ready("jobs")
    for version in ("1", "2", "3"):
        anew = replace(A, version=version)
        change = operator.transaction()
        change.delete(f"{watch.path}/a")
        change.create(f"{watch.path}/a", instance.encode("jobs", anew))
        change.commit()
        eventually(lambda expected=anew: watch.replicas() == (expected,))


def test_a_mass_disappearance_is_not_believed(directories, zookeeper, operator, caplog):
    caller = directories()
    watch = caller.watch("jobs")
    eventually(lambda: watch.known)
    announcer = KazooClient(hosts=zookeeper.hosts)
    announcer.start(timeout=30)
    for replica in (A, B):
        put(announcer, watch, replica.id, instance.encode("jobs", replica), ephemeral=True)
    caller.ready("jobs", count=2)
    with caplog.at_level(logging.WARNING, logger="shoal"):
        # One session held both, and ends: what callers see when ZooKeeper loses all sessions.
        announcer.stop()
        announcer.close()
        eventually(lambda: watch.held)
    assert watch.replicas() == (A, B)
    assert "they are held" in caplog.text
    assert "the last 2 held" in watch.describe()
    assert operator.get_children(watch.path) == []

    put(operator, watch, "b", instance.encode("jobs", B))
    eventually(lambda: watch.replicas() == (B,))
    assert not watch.held
    assert watch.describe() == "connected; 1 replicas"


def test_an_orderly_empty_set_is_believed(directories):
    server, caller = directories(), directories()
    registrations = [server.announce("jobs", replica) for replica in (A, B)]
    caller.ready("jobs", count=2)
    registrations[0].update(status=Status.DRAINING)
    registrations[1].update(enabled=False)
    eventually(lambda: not any(each.routable for each in caller.watch("jobs").replicas()))
    for registration in registrations:
        registration.withdraw()
    eventually(lambda: caller.watch("jobs").replicas() == ())
    assert not caller.watch("jobs").held


def test_a_replica_that_is_withdrawn_without_a_drain_says_farewell(directories):
    server, caller = directories(), directories()
    registration = server.announce("jobs", A)
    caller.ready("jobs")
    seen = []
    caller.watch("jobs").subscribe(seen.append)
    registration.withdraw()
    registration.withdraw()
    eventually(lambda: caller.watch("jobs").replicas() == ())
    assert [[each.status for each in replicas] for replicas in seen] == [["UP"], ["DRAINING"], []]


def test_ready_says_what_is_missing(directories):
    directory = directories()
    directory.announce("jobs", A)
    with pytest.raises(TimeoutError, match=r"services/jobs had fewer than 2 replicas .*connected"):
        directory.ready("jobs", timeout=0.3, count=2)


def test_a_listener_that_fails_does_not_keep_the_news_from_others(directories, caplog):
    directory = directories()
    heard = threading.Event()
    watch = directory.watch("jobs")

    def broken(replicas):
        if replicas:
            raise RuntimeError("on purpose")

    watch.subscribe(broken)
    unsubscribe = watch.subscribe(lambda replicas: heard.set() if replicas else None)
    directory.announce("jobs", A)
    assert heard.wait(30)
    assert "on purpose" in caplog.text
    unsubscribe()


def test_a_closed_directory_says_so_and_closing_again_does_nothing(directories):
    directory = directories()
    registration = directory.announce("jobs", A)
    watch = directory.watch("jobs")
    directory.close()
    directory.close()
    for use in (
        lambda: directory.watch("jobs"),
        lambda: directory.announce("jobs", B),
        lambda: directory.ready("jobs", 0.1),
    ):
        with pytest.raises(DirectoryClosedError, match="make a new one"):
            use()
    registration.withdraw()
    assert watch.describe()


def test_trap_2_and_10_a_listener_may_close_the_directory(directories):
    directory, other = directories(), directories()
    closed = threading.Event()

    def close(replicas):
        if replicas:
            directory.close()
            closed.set()

    directory.watch("jobs").subscribe(close)
    other.announce("jobs", A)
    assert closed.wait(30)
    # A fresh one works: nothing of the old one hangs.
    assert directories().ready("jobs") == (A,)
