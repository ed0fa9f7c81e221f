"""shoal.Config on a real ZooKeeper: changes, refusals, outages, history."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from kazoo.exceptions import ConnectionLoss
from pydantic import BaseModel, Field

import shoal
import shoal.aio
from shoal.recipes.config import Source
from shoal.recipes.confighistory import KEEP
from shoal.testing.faultproxy import FaultProxy
from tests.support.waiting import eventually

LONG = 60.0


class Limits(BaseModel):
    calls: int = Field(default=64, ge=1)
    note: str = ""


class Newer(Limits):
    colour: str = "red"


@pytest.fixture
def configs(directories):
    """Makes configs, each in a directory, and so a session, of its own."""
    made = []

    def make(model=Limits, hosts=None, **options):
        directory = directories() if hosts is None else directories(hosts)
        made.append(shoal.Config(directory, "limits", model, **options))
        return made[-1]

    yield make
    for config in made:
        config.close()


@pytest.fixture
def node(chroot):
    return f"/{chroot.partition('/')[2]}/config/limits"


def test_without_a_document_the_defaults_hold_and_then_each_change(configs):
    reader, writer = configs(), configs()
    assert reader.value == Limits()
    assert reader.wait(LONG).source is Source.ZOOKEEPER
    assert reader.reading.version is None
    heard = []
    end = reader.subscribe(lambda reading: heard.append(reading.value.calls))
    assert heard == [64]
    assert writer.set(Limits(calls=7), expected=None) == 0
    assert reader.wait(LONG, version=0).value == Limits(calls=7)
    assert writer.set({"calls": 8}) == 1
    assert reader.wait(LONG, version=1).value.calls == 8
    assert heard == [64, 7, 8]
    end()
    assert writer.update(lambda before: before | {"note": "x"}) == 2
    assert reader.wait(LONG, version=2).value == Limits(calls=8, note="x")
    assert heard == [64, 7, 8]


def test_the_last_of_quick_changes_is_never_lost(configs):
    readers, writer = [configs() for _ in range(3)], configs()
    heard = [[] for _ in readers]
    for reader, numbers in zip(readers, heard, strict=True):
        reader.subscribe(lambda reading, numbers=numbers: numbers.append(reading.value.calls))
    for number in range(1, 51):
        last = writer.set({"calls": number})
    for reader, numbers in zip(readers, heard, strict=True):
        assert reader.wait(LONG, version=last).value.calls == 50
        # Some may not have been seen, but none twice, and none out of order.
        assert numbers[0] == 64 or numbers[0] == 1
        assert sorted(set(numbers) - {64}) == [each for each in numbers if each != 64]


def test_a_write_over_another_version_is_refused_and_changes_nothing(configs, operator, node):
    first, second = configs(), configs()
    assert first.set({"calls": 1}, expected=None) == 0
    with pytest.raises(shoal.ConfigConflictError, match="at version 0 by now, and was to be not"):
        second.set({"calls": 2}, expected=None)
    assert first.set({"calls": 3}, expected=0) == 1
    with pytest.raises(shoal.ConfigConflictError) as caught:
        second.set({"calls": 4}, expected=0)
    assert (caught.value.expected, caught.value.found) == (0, 1)
    assert json.loads(operator.get(node)[0]) == {"calls": 3}
    assert sorted(operator.get_children(node)) == ["v0000000000", "v0000000001"]


def test_of_many_who_change_a_field_of_their_own_nobody_s_change_is_lost(configs):
    writers = [configs() for _ in range(3)]

    def change(index):
        for number in range(5):
            writers[index].update(
                lambda before, number=number: (
                    before | {"note": before.get("note", "") + f" {index}{number}"}
                ),
                timeout=LONG,
            )

    with ThreadPoolExecutor() as pool:
        list(pool.map(change, range(3)))
    stored = writers[0].fetch()
    assert stored.version == 14
    note = json.loads(stored.data)["note"]
    assert sorted(note.split()) == sorted(f"{i}{n}" for i in range(3) for n in range(5))


def test_what_is_not_valid_is_refused_on_write_and_never_holds_when_it_is_there(
    configs, operator, node, caplog
):
    told = []
    reader, writer = configs(on_problem=told.append), configs()
    writer.set({"calls": 7})
    reader.wait(LONG, version=0)
    for bad in ({"calls": 0}, {"cals": 1}, {"note": "x" * 300_000}):
        with pytest.raises(shoal.ConfigInvalidError):
            writer.set(bad)
    assert operator.get(node)[1].version == 0

    # Past our own gate, as another tool could.
    for number, bad in enumerate(
        (b'{"calls": 0}', b"{", b'{"note": "' + b"x" * 300_000 + b'"}'), 1
    ):
        operator.set(node, bad)
        eventually(lambda number=number: len(told) == number, LONG)
        reading = reader.wait(LONG, version=number)
        assert (reading.value, reading.version) == (Limits(calls=7), 0)
        assert f"version {number} is passed over, 0 still holds" in reader.problem
        assert reader.problem in caplog.text
    # One that begins now has nothing better than its defaults, or what it kept.
    late = configs(Newer)
    assert "version 3 is passed over" in late.wait(LONG, version=3).problem
    assert late.value == Newer(calls=7)

    assert writer.set({"calls": 9}) == 4
    assert reader.wait(LONG, version=4).value.calls == 9
    assert reader.problem is None
    kept = writer.history()
    assert [each.version for each in kept] == [0, 4]


def test_older_code_goes_on_with_a_newer_document_and_does_not_write_over_it(configs):
    older, newer = configs(), configs(Newer)
    newer.set(Newer(calls=3, colour="blue"))
    assert older.wait(LONG, version=0).value == Limits(calls=3)
    assert older.problem is None
    with pytest.raises(shoal.ConfigInvalidError, match="colour: no such field"):
        older.update(lambda before: before | {"calls": 4})
    assert newer.wait(LONG, version=0).value == Newer(calls=3, colour="blue")


def test_a_history_has_who_when_why_and_is_bounded_and_a_rollback_is_a_version(
    configs, operator, node
):
    config = configs()
    with pytest.raises(shoal.ConfigError, match="no earlier version"):
        config.rollback()
    for number in range(1, KEEP + 4):
        config.set({"calls": number}, who=f"ada-{number}", why=f"for {number}")
    kept = config.history()
    assert [each.version for each in kept] == list(range(3, KEEP + 3))
    assert [each.document["calls"] for each in kept] == list(range(4, KEEP + 4))
    assert (kept[0].who, kept[0].why) == ("ada-4", "for 4")
    assert kept[0].when == pytest.approx(operator.get(f"{node}/v0000000003")[1].created)
    assert kept == sorted(kept, key=lambda each: each.when)
    with pytest.raises(shoal.ConfigError, match="has no version 2 to go back to"):
        config.rollback(2)

    assert config.rollback(5, why="too many") == KEEP + 3
    last = config.history()[-1]
    assert (last.document, last.restores, last.why) == ({"calls": 6}, 5, "too many")
    assert config.rollback() == KEEP + 4
    assert config.fetch().data == json.dumps({"calls": KEEP + 3}, indent=2).encode()
    assert len(operator.get_children(node)) == KEEP
    with pytest.raises(shoal.ConfigConflictError):
        config.rollback(expected=5)


def test_what_is_not_valid_any_more_is_not_brought_back(configs):
    newer = configs(Newer)
    newer.set({"colour": "blue"})
    newer.set({"calls": 2})
    with pytest.raises(shoal.ConfigInvalidError, match="colour: no such field"):
        configs().rollback(0)


def test_a_document_and_its_history_are_written_together_or_not_at_all(configs, operator, node):
    config = configs()
    config.set({"calls": 1})
    # Somebody has put something where the next entry goes.
    operator.create(f"{node}/v0000000001", b"")
    with pytest.raises(shoal.CoordinationError, match=r"v0000000001 is in the way"):
        config.set({"calls": 2}, timeout=LONG)
    assert json.loads(operator.get(node)[0]) == {"calls": 1}
    operator.delete(f"{node}/v0000000001")
    assert config.set({"calls": 2}) == 1


def test_a_document_that_vanishes_still_holds_and_comes_back(configs, operator, node):
    config = configs()
    config.set({"calls": 5})
    config.wait(LONG, version=0)
    operator.delete(node, recursive=True)
    eventually(lambda: config.problem, LONG)
    assert config.problem == "the document is gone; version 0 still holds"
    assert config.value.calls == 5
    assert configs().wait(LONG).version is None
    assert config.set({"calls": 6}, expected=None) == 0
    eventually(lambda: config.value.calls == 6, LONG)
    assert config.problem is None


def test_a_broken_connection_and_a_lost_session_lose_no_change(configs, zookeeper, chroot):
    with FaultProxy(zookeeper.hosts) as proxy:
        reader, writer = configs(hosts=f"{proxy.address}/{chroot.partition('/')[2]}"), configs()
        first = writer.set({"calls": 1})
        reader.wait(LONG, version=first)
        proxy.reset()
        second = writer.set({"calls": 2})
        assert reader.wait(LONG, version=second).value.calls == 2
        zookeeper.expire_session(reader._directory._session.client.client_id)
        third = writer.set({"calls": 3})
        assert reader.wait(LONG, version=third).value.calls == 3


def test_an_answer_that_was_lost_is_found_in_the_history(configs, operator, node):
    config = configs()
    config.set({"calls": 1})
    session = config._directory._session
    made = session.client.transaction

    def losing():
        request = made()
        commit = request.commit_async

        def commit_and_lose():
            session.client.transaction = made
            commit().get(timeout=LONG)  # It is carried out, and nobody hears of it.
            lost = session.client.handler.async_result()
            lost.set_exception(ConnectionLoss())
            return lost

        request.commit_async = commit_and_lose
        return request

    session.client.transaction = losing
    assert config.set({"calls": 2}, expected=0, timeout=LONG) == 1
    assert operator.get(node)[1].version == 1
    assert [each.document for each in config.history()] == [{"calls": 1}, {"calls": 2}]


def test_while_zookeeper_is_away_the_last_good_one_holds_here_and_after_a_start(
    directories, own_zookeeper, caplog
):
    hosts = f"{own_zookeeper.hosts}/gateway"
    with shoal.Config(directories(hosts), "limits", Limits) as config:
        config.set({"calls": 7})
        config.wait(LONG, version=0)
        own_zookeeper.stop()
        eventually(lambda: "suspended" in config.describe(), LONG)
        assert config.value.calls == 7
        with pytest.raises(shoal.CoordinationError, match=r"no answer within 0\.1 s"):
            config.fetch(0.1)
        with pytest.raises(shoal.CoordinationError, match="may have been, or not"):
            config.set({"calls": 8}, timeout=0.1)

        with (
            shoal.Config(directories(hosts), "limits", Limits) as late,
            shoal.Config(directories(hosts), "other", Limits) as unknown,
        ):
            assert late.reading.source is Source.DISK
            assert late.value.calls == 7
            assert "version 0 from disk" in late.describe()
            assert unknown.reading.source is Source.DEFAULTS
            assert "the defaults, unread; ZooKeeper is connecting" in unknown.describe()
            with pytest.raises(TimeoutError, match="the defaults, unread"):
                unknown.wait(0.1)
            own_zookeeper.start()
            assert late.wait(LONG).source is Source.ZOOKEEPER
            assert unknown.wait(LONG).source is Source.ZOOKEEPER
            last = config.set({"calls": 9}, timeout=LONG)
            assert late.wait(LONG, version=last).value.calls == 9
            assert config.wait(LONG, version=last).value.calls == 9


def test_a_listener_that_fails_or_waits_harms_nobody(configs, caplog):
    config = configs()
    refused = []

    def waits(reading):
        try:
            config.fetch()
        except shoal.ConfigError as error:
            refused.append(str(error))

    def fails(reading):
        raise RuntimeError("on purpose")

    config.wait(LONG)
    config.subscribe(fails)
    config.subscribe(waits)
    heard = []
    config.subscribe(lambda reading: heard.append(reading.version))
    config.set({"calls": 2})
    eventually(lambda: heard == [None, 0], LONG)
    assert "on purpose" in caplog.text
    assert "on the directory's own thread" in refused[-1]


def test_a_closed_one_keeps_its_value(configs):
    config, writer = configs(), configs()
    version = writer.set({"calls": 2})
    config.wait(LONG, version=version)
    config.close()
    later = writer.set({"calls": 3})
    writer.wait(LONG, version=later)
    assert config.value.calls == 2
    config._directory.close()
    config.close()
    with pytest.raises(shoal.DirectoryClosedError):
        config.fetch()


async def test_asyncio_has_the_same(chroot, tmp_path):
    async with (
        shoal.aio.Directory(chroot, cache_dir=tmp_path) as one,
        shoal.aio.Directory(chroot, cache_dir=tmp_path) as two,
        shoal.aio.Config(one, "limits", Limits) as reader,
        shoal.aio.Config(two, "limits", Limits) as writer,
    ):
        threads, seen = set(), asyncio.Event()

        def hear(reading):
            threads.add(threading.current_thread())
            if reading.version == 1:
                seen.set()

        reader.subscribe(hear)
        assert (await reader.wait(LONG)).version is None
        changes = reader.changes()
        assert (await anext(changes)).value == Limits()
        assert await writer.set({"calls": 5}, expected=None) == 0
        assert (await anext(changes)).value.calls == 5
        assert await writer.update(lambda before: {"calls": before["calls"] + 1}) == 1
        assert (await anext(changes)).value.calls == 6
        await changes.aclose()
        await asyncio.wait_for(seen.wait(), LONG)
        assert threads == {threading.main_thread()}
        with pytest.raises(shoal.ConfigConflictError):
            await writer.set({}, expected=0)
        with pytest.raises(shoal.ConfigInvalidError):
            await writer.set({"calls": 0})
        assert await writer.rollback() == 2
        assert json.loads((await writer.fetch()).data) == {"calls": 5}
        assert [each.version for each in await writer.history()] == [0, 1, 2]
        assert (await reader.wait(LONG, version=2)).value.calls == 5
        assert reader.problem is None
        with pytest.raises(TimeoutError, match="version 2"):
            await reader.wait(0.01, version=99)
        assert reader.value.calls == 5


def test_a_forked_child_follows_by_itself(configs):
    config, writer = configs(), configs()
    writer.set({"calls": 2})
    config.wait(LONG, version=0)
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            assert config.value.calls == 2
            os.write(tell, b"1")
            os.write(tell, str(config.wait(LONG, version=1).value.calls).encode())
        finally:
            os._exit(0)
    os.close(tell)
    assert os.read(told, 1) == b"1"
    writer.set({"calls": 3})
    assert os.read(told, 1) == b"3"
    os.waitpid(child, 0)
    os.close(told)
