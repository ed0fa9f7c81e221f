"""Objects are whole or not there."""

import hashlib

import pytest

from shoal_gateway.objectstore import LocalObjectStore, ObjectStore, ObjectStoreError


@pytest.fixture(params=["file", "s3"])
def store(request, tmp_path):
    """A store of each kind."""
    if request.param == "file":
        return ObjectStore.open(f"file://{tmp_path}/objects")
    return ObjectStore.open(f"s3://{request.getfixturevalue('moto').bucket()}/some/prefix")


def read(store, key, offset=0):
    return b"".join(store.get(key, offset))


def test_what_is_put_is_got(store):
    stored = store.put("jobs/1/out", [b"ab", b"cd"])
    assert (stored.size, stored.sha256) == (4, hashlib.sha256(b"abcd").hexdigest())
    assert read(store, "jobs/1/out") == b"abcd"
    assert read(store, "jobs/1/out", 3) == b"d"
    assert read(store, "jobs/1/out", 4) == read(store, "jobs/1/out", 5) == b""
    assert store.stat("jobs/1/out").size == 4
    assert store.exists("jobs/1/out")


def test_nothing_is_an_object_too(store):
    assert store.put("empty", []).size == store.stat("empty").size == 0
    assert read(store, "empty") == b""


def test_a_wrong_checksum_stores_nothing(store):
    with pytest.raises(ObjectStoreError, match="hashes to"):
        store.put("x", [b"content"], sha256="0" * 64)
    assert not store.exists("x")
    assert store.list("") == []


def test_a_source_that_breaks_off_stores_nothing(store):
    def chunks():
        yield b"half"
        raise ConnectionError("gone")

    with pytest.raises(ObjectStoreError, match="gone"):
        store.put("x", chunks())
    assert not store.exists("x")


def test_a_key_again_replaces_the_whole_object(store):
    store.put("x", [b"long content"])
    store.put("x", [b"short"])
    assert read(store, "x") == b"short"


def test_objects_are_listed_by_prefix_in_order(store):
    for key in ("logs/b/2", "logs/b/1", "logs/bc", "other/1"):
        store.put(key, [b"x"])
    assert [each.key for each in store.list("logs/b/")] == ["logs/b/1", "logs/b/2"]
    assert [each.key for each in store.list("logs/b")] == ["logs/b/1", "logs/b/2", "logs/bc"]
    assert [each.size for each in store.list("other/")] == [1]
    assert store.list("nothing/") == []


@pytest.mark.parametrize("key", ["../x", "a/../b", "/abs", "", "a//b", ".incoming/x", ".", "a\0b"])
def test_a_key_that_leaves_the_store_is_refused(store, key):
    for call in (lambda: store.put(key, [b"x"]), lambda: store.get(key), lambda: store.stat(key)):
        with pytest.raises(ObjectStoreError, match="is no key"):
            call()


def test_a_missing_object_is_named(store):
    for call in (store.stat, store.get):
        with pytest.raises(ObjectStoreError, match="no/such"):
            call("no/such")
    assert not store.exists("no/such")


@pytest.mark.parametrize(
    "url", ["gs://bucket/x", "/plain/path", "file://host/x", "file:relative", "s3:bucket/x"]
)
def test_other_urls_are_refused_with_the_forms_that_are_wanted(url):
    with pytest.raises(ValueError, match=r"s3://bucket/prefix"):
        ObjectStore.open(url)


def test_it_says_where_it_is(tmp_path):
    assert str(tmp_path) in repr(LocalObjectStore(tmp_path))
