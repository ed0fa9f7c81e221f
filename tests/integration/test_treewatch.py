"""Nodes below a node, watched on a real ZooKeeper."""

import random
from itertools import pairwise

import pytest
from kazoo.client import KazooClient

from shoal.treewatch import TreeWatch
from tests.support.waiting import eventually

WAIT = 60.0


@pytest.fixture
def follow(directories):
    made = []

    def make(path="/keys", hosts=None, **options):
        directory = directories(hosts) if hosts else directories()
        made.append(TreeWatch(directory, path, **options))
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def root(chroot):
    return "/" + chroot.partition("/")[2]


def data(watch):
    return {path: leaf.data for path, leaf in watch.tree.items()}


def sees(watch, expected):
    eventually(lambda: data(watch) == expected, WAIT, f"{data(watch)} == {expected}")


def test_trap_4_a_node_that_is_missing_is_waited_for_and_not_made(follow, operator, root):
    watch = follow(depth=1)
    assert watch.wait(WAIT) == {}
    assert operator.exists(f"{root}/keys") is None
    for name in ("a", "b"):
        operator.create(f"{root}/keys/{name}", makepath=True)
        sees(watch, {name: b""})
        operator.delete(f"{root}/keys", recursive=True)
        sees(watch, {})
        assert operator.exists(f"{root}/keys") is None


def test_trap_5_names_at_the_second_level_come_with_their_data(follow, operator, root):
    watch = follow(depth=2, data=True)
    operator.create(f"{root}/keys/alice/one", b"1", makepath=True)
    operator.create(f"{root}/keys/bob", b"has none")
    sees(watch, {"alice/one": b"1"})
    told = []
    watch.subscribe(lambda tree: told.append(dict(tree)))
    operator.set(f"{root}/keys/alice/one", b"2")
    sees(watch, {"alice/one": b"2"})
    assert watch.tree["alice/one"].version == 1
    operator.create(f"{root}/keys/bob/two", b"3")
    sees(watch, {"alice/one": b"2", "bob/two": b"3"})
    operator.delete(f"{root}/keys/alice", recursive=True)
    sees(watch, {"bob/two": b"3"})
    # Whole sets, each different from the one before.
    assert [leaf.data for leaf in told[0].values()] == [b"1"]
    assert all(before != after for before, after in pairwise(told))


def test_a_change_is_one_read_of_what_has_changed(follow, operator, root):
    watch = follow(depth=2, data=True)
    for number in range(50):
        operator.create(f"{root}/keys/o{number % 5}/k{number}", b"x", makepath=True)
    eventually(lambda: len(watch.tree) == 50, WAIT)
    client, read = watch._desk.client, []
    get = client.get_async
    client.get_async = lambda path, **kw: (read.append(path), get(path, **kw))[1]
    operator.set(f"{root}/keys/o1/k6", b"y")
    eventually(lambda: watch.tree["o1/k6"].data == b"y", WAIT)
    assert read == [f"{root}/keys/o1/k6"]


def disturb(operator, root, rng, steps):
    """Random changes; returns what is there at the end."""
    there = {}
    for step in range(steps):
        path = f"o{rng.randrange(3)}/k{rng.randrange(4)}"
        full, content = f"{root}/keys/{path}", str(step).encode()
        match rng.choice(["write", "write", "delete", "delete owner", "replace"]):
            case "write" if path in there:
                operator.set(full, content)
                there[path] = content
            case "write":
                operator.create(full, content, makepath=True)
                there[path] = content
            case "delete owner":
                owner = path.partition("/")[0]
                if operator.exists(f"{root}/keys/{owner}"):
                    operator.delete(f"{root}/keys/{owner}", recursive=True)
                there = {each: there[each] for each in there if not each.startswith(owner)}
            case "delete" if path in there:
                operator.delete(full)
                del there[path]
            case "replace" if path in there:
                operator.delete(full)
                operator.create(full, content)
                there[path] = content
    return there


@pytest.mark.parametrize("seed", range(4))
def test_after_any_changes_it_sees_what_is_there(follow, operator, root, seed):
    watch = follow(depth=2, data=True)
    expected = disturb(operator, root, random.Random(seed), 150)
    sees(watch, expected)
    assert eventually(lambda: watch.fresh, WAIT)


def test_trap_3_what_changed_during_an_outage_is_seen_after_it(own_zookeeper, follow):
    hosts = f"{own_zookeeper.hosts}/tree"
    operator = KazooClient(hosts=own_zookeeper.hosts)
    operator.start(timeout=30)
    try:
        expected = disturb(operator, "/tree", random.Random(9), 30)
        watch = follow(hosts=hosts, depth=2, data=True)
        sees(watch, expected)
        # The session ends while nobody looks, and with it all watches.
        own_zookeeper.expire_session(watch._desk.client.client_id)
        operator.create("/tree/keys/new/key", b"!", makepath=True)
        sees(watch, {**expected, "new/key": b"!"})
        own_zookeeper.kill()
        eventually(lambda: not watch.fresh, WAIT)
        assert data(watch) == {**expected, "new/key": b"!"}
        own_zookeeper.start()
        eventually(lambda: operator.connected, WAIT)
        operator.retry(operator.delete, "/tree/keys/new", recursive=True)
        sees(watch, expected)
        assert eventually(lambda: watch.fresh, WAIT)
    finally:
        operator.stop()
        operator.close()


def test_who_stopped_is_told_nothing_and_keeps_the_last_set(follow, operator, root):
    watch = follow(depth=1)
    operator.create(f"{root}/keys/a", makepath=True)
    sees(watch, {"a": b""})
    watch.stop()
    watch.stop()
    other = follow(depth=1)
    operator.create(f"{root}/keys/b")
    sees(other, {"a": b"", "b": b""})
    sees(watch, {"a": b""})
    assert not watch.fresh


def test_a_listener_that_fails_keeps_no_news_from_the_others(follow, operator, root, caplog):
    watch = follow(depth=1)
    watch.wait(WAIT)

    def broken(_tree):
        raise RuntimeError("a fault")

    heard = []
    watch.subscribe(broken)
    unsubscribe = watch.subscribe(heard.append)
    operator.create(f"{root}/keys/a", makepath=True)
    eventually(lambda: list(heard[-1]) == ["a"], WAIT)
    assert "a listener of /keys failed" in caplog.text
    unsubscribe()


def test_what_cannot_be_watched_is_refused(follow):
    for path, depth in (("keys", 1), ("/", 1), ("/keys", 0)):
        with pytest.raises(ValueError, match="a depth from 1"):
            follow(path, depth=depth)
