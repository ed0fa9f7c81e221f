"""Announcements that stay true, in a real ZooKeeper."""

import json
import logging
import threading
import time
from dataclasses import replace

import pytest
from kazoo.exceptions import ConnectionLoss, NoNodeError

from shoal import instance, registrar
from shoal.errors import RegistrationError
from shoal_balancer import Replica, Status
from tests.support.waiting import eventually

A = Replica("a", "127.0.0.1", 5001, registered_at=1.0)
WAIT = 60.0


def owner(operator, registration):
    stat = operator.exists(registration.path)
    return stat.ephemeralOwner if stat else None


def later(directory, seconds):
    """Waits on the thread that writes announcements."""
    done = threading.Event()
    directory._worker.call_later(seconds, done.set)
    assert done.wait(WAIT)


def test_the_node_is_ephemeral_and_in_curators_format(directories, operator):
    directory = directories()
    registration = directory.announce("jobs", Replica("a", "127.0.0.1", 5001, version="2"))
    data, stat = operator.get(registration.path)
    assert stat.ephemeralOwner == directory._session.session_id
    assert instance.decode(data) == registration.replica
    assert registration.replica.registered_at > 0.0
    assert json.loads(data)["payload"]["version"] == "2"
    registration.withdraw()
    assert operator.exists(registration.path) is None
    with pytest.raises(RegistrationError, match="withdrawn"):
        registration.update(status=Status.BUSY)


def test_traps_1_and_2_a_replica_whose_session_expires_announces_again_as_the_owner(
    directories, zookeeper, operator
):
    directory, caller = directories(), directories()
    registration = directory.announce("jobs", A)
    registration.update(status=Status.BUSY)
    caller.ready("jobs")
    before = directory._session.session_id
    zookeeper.expire_session(directory._session.client.client_id)
    after = eventually(
        lambda: (found := owner(operator, registration)) not in (None, before) and found
    )
    assert after == directory._session.session_id
    # As it was last, not as it was first.
    assert instance.decode(operator.get(registration.path)[0]).status is Status.BUSY
    assert [each.id for each in caller.ready("jobs")] == ["a"]


def test_a_node_deleted_by_hand_is_made_again(directories, operator):
    directory = directories()
    registration = directory.announce("jobs", A)
    for _ in range(3):
        operator.delete(registration.path)
        assert eventually(lambda: owner(operator, registration) == directory._session.session_id)


def test_a_node_that_vanished_unnoticed_is_found_by_the_periodic_check(
    directories, operator, monkeypatch
):
    monkeypatch.setattr(registrar.ZooKeeperRegistration, "_touched", lambda *_: None)
    directory = directories(verify_every=0.2)
    registration = directory.announce("jobs", A)
    operator.delete(registration.path)
    eventually(lambda: owner(operator, registration) == directory._session.session_id)


def test_a_node_overwritten_by_hand_is_mended(directories, operator):
    registration = directories().announce("jobs", A)
    operator.set(registration.path, b"{}")
    assert eventually(lambda: operator.get(registration.path)[0] == instance.encode("jobs", A))


def test_trap_9_the_node_of_a_former_session_is_replaced_without_a_gap(directories, operator):
    # The former session is still alive and would take its node away when it expires.
    directory, caller = directories(), directories()
    watch = caller.watch("jobs")
    path = f"{watch.path}/a"
    operator.create(path, instance.encode("jobs", A), ephemeral=True, makepath=True)
    caller.ready("jobs")
    seen = []
    watch.subscribe(seen.append)
    registration = directory.announce("jobs", Replica("a", "127.0.0.1", 5009, registered_at=2.0))
    assert owner(operator, registration) == directory._session.session_id
    eventually(lambda: [each.port for each in watch.replicas()] == [5009])
    assert () not in seen


def test_trap_9_a_create_whose_answer_was_lost_is_adopted(directories, operator):
    directory = directories()
    directory.watch("jobs")
    eventually(lambda: directory._session.connected)
    client = directory._session.client
    create, lost = client.create_async, threading.Event()

    def created_but_unheard(path, *args, **options):
        result = create(path, *args, **options)
        if path.endswith("/a") and not lost.is_set():
            lost.set()
            result.wait(30)
            answer = client.handler.async_result()
            answer.set_exception(ConnectionLoss())
            return answer
        return result

    client.create_async = created_but_unheard
    registration = directory.announce("jobs", A)
    assert lost.is_set()
    data, stat = operator.get(registration.path)
    assert stat.ephemeralOwner == directory._session.session_id
    assert stat.version == 0
    assert instance.decode(data) == A


def test_trap_12_our_own_live_node_is_adopted_after_a_blip(directories, own_zookeeper, tmp_path):
    directory = directories(f"{own_zookeeper.hosts}/x", cache_dir=tmp_path / "c")
    registration = directory.announce("jobs", A)
    client = directory._session.client
    before = client.get(registration.path)[1]
    own_zookeeper.restart()
    # The same session comes back and finds the node as it was: no delete, no create, no write.
    eventually(lambda: directory._session.connected)
    registration.update()
    after = client.get(registration.path)[1]
    assert (after.czxid, after.mzxid, after.ephemeralOwner) == (
        before.czxid,
        before.mzxid,
        before.ephemeralOwner,
    )


def test_trap_12_two_processes_with_one_id_do_not_thrash(directories, operator, caplog):
    one, two = directories(), directories()
    with caplog.at_level(logging.WARNING, logger="shoal"):
        first = one.announce("jobs", A)
        two.announce("jobs", Replica("a", "127.0.0.1", 5002))
        # Each took it once; from then on they pause, and say why.
        eventually(lambda: "do two processes use the id a?" in caplog.text)
        owners = set()
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            found = operator.exists(first.path)
            if found is not None:
                owners.add(found.czxid)
    # Without a pause each would take it from the other with every answer: hundreds of times.
    assert 1 <= len(owners) <= 6


def test_one_directory_announces_an_id_once(directories):
    directory = directories()
    registration = directory.announce("jobs", A)
    with pytest.raises(RegistrationError, match="announced by this directory already"):
        directory.announce("jobs", A)
    registration.withdraw()
    directory.announce("jobs", A).withdraw()


def test_a_registration_that_zookeeper_would_drop_the_connection_for_is_refused(directories):
    directory = directories()
    kept = directory.announce("jobs", A)
    session = directory._session.client.client_id
    with pytest.raises(RegistrationError, match=r"would hold 12\d{5} bytes.*at most 65536"):
        directory.announce("jobs", replace(A, id="b", metadata={"note": "x" * 1_200_000}))
    assert directory._session.client.client_id == session
    kept.withdraw()


def test_without_zookeeper_announcing_fails_loudly_and_is_not_made_up_for(directories, chroot):
    directory = directories("127.0.0.1:1/x")
    with pytest.raises(RegistrationError, match=r"/x/services/jobs/a within 0.3 s: .*connecting"):
        directory.announce("jobs", A, timeout=0.3)
    assert directory._registrations == set()


def test_while_zookeeper_is_away_a_change_is_kept_and_a_withdrawal_gives_up(
    directories, own_zookeeper, caplog
):
    directory = directories(f"{own_zookeeper.hosts}/x")
    kept = directory.announce("jobs", A)
    dropped = directory.announce("jobs", Replica("b", "127.0.0.1", 5002))
    own_zookeeper.kill()
    eventually(lambda: not directory._session.connected)
    with pytest.raises(RegistrationError, match="suspended"):
        kept.update(status=Status.BUSY, timeout=0.2)
    with caplog.at_level(logging.WARNING, logger="shoal"):
        dropped.withdraw(timeout=30)
    assert "it vanishes with its session" in caplog.text
    own_zookeeper.start()
    eventually(lambda: directory._session.connected)
    client = directory._session.client

    def busy():
        try:
            data, _ = client.retry(client.get, kept.path)
        except NoNodeError:
            return False  # The old session has ended; it is announced again in the new one.
        return instance.decode(data).status is Status.BUSY

    eventually(busy)


def test_the_tls_port_is_announced_as_such(directories, operator):
    directory = directories()
    registration = directory.announce("jobs", A, secure=True)
    registration.update(status=Status.BUSY)
    written = json.loads(operator.get(registration.path)[0])
    assert (written["port"], written["sslPort"]) == (None, 5001)


def test_a_listener_may_change_the_announcement(directories):
    directory = directories()
    registration = directory.announce("jobs", A)
    done = threading.Event()

    def react(replicas):
        if replicas and replicas[0].status is Status.UP:
            registration.update(status=Status.BUSY)
            done.set()

    # Once on this thread, with the set that is known, or on the directory's own: neither hangs.
    directory.watch("jobs").subscribe(react)
    assert done.wait(30)
    eventually(lambda: directory.ready("jobs")[0].status is Status.BUSY)


def test_statuses_are_written_at_most_once_in_a_pause_and_the_last_one_stays(
    directories, operator, monkeypatch
):
    monkeypatch.setattr(registrar, "STATUS_PAUSE", 0.3)
    directory = directories()
    registration = directory.announce("jobs", A)

    def said():
        data, stat = operator.get(registration.path)
        return instance.decode(data).status, stat.version

    began = time.monotonic()
    _, before = said()
    registration.say(Status.BUSY)
    eventually(lambda: said()[0] is Status.BUSY, WAIT)
    # The first was written at once; these wait, though each is looked at by itself, and the last
    # of them counts.
    for number in range(100):
        registration.say(Status.UP if number % 2 else Status.BUSY)
        later(directory, 0.0)
    eventually(lambda: said()[0] is Status.UP, WAIT)
    later(directory, 2 * registrar.STATUS_PAUSE)
    status, version = said()
    assert status is Status.UP
    assert 2 <= version - before <= 1 + (time.monotonic() - began) / registrar.STATUS_PAUSE


def test_a_status_outlives_the_session_and_a_drain_outlives_a_status(
    directories, zookeeper, operator
):
    directory = directories()
    registration = directory.announce("jobs", A)
    before = directory._session.session_id
    registration.say(Status.BUSY)
    zookeeper.expire_session(directory._session.client.client_id)
    eventually(lambda: owner(operator, registration) not in (None, before))
    eventually(lambda: instance.decode(operator.get(registration.path)[0]).status is Status.BUSY)
    registration.say(Status.UP)
    registration.update(status=Status.DRAINING, enabled=False)
    # Neither what was said before it nor, by a thread that came late, after it.
    registration.say(Status.UP)
    later(directory, registrar.STATUS_PAUSE)
    assert instance.decode(operator.get(registration.path)[0]).status is Status.DRAINING
    registration.withdraw()
    registration.say(Status.UP)
