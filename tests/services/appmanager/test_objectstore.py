import hashlib
import threading

import pytest

from shoal_gateway.objectstore import ObjectStore, ObjectStoreError

CONTENT = b"rain" * 1000


@pytest.fixture
def objects(tmp_path):
    return ObjectStore.open(f"file://{tmp_path}/objects")


def content(objects, key, offset=0):
    return b"".join(objects.get(key, offset))


def test_an_object_is_what_was_put_and_its_checksum_is_known(objects):
    stored = objects.put("a/b", [CONTENT[:7], CONTENT[7:]])
    assert (stored.key, stored.size) == ("a/b", len(CONTENT))
    assert stored.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert content(objects, "a/b") == CONTENT
    assert content(objects, "a/b", 3990) == CONTENT[3990:]
    assert content(objects, "a/b", 99999) == b""
    assert objects.stat("a/b").size == len(CONTENT)


def test_content_that_hashes_to_something_else_is_not_stored(objects):
    with pytest.raises(ObjectStoreError, match=r"a/b: hashes to"):
        objects.put("a/b", [CONTENT], sha256="0" * 64)
    assert not objects.exists("a/b")
    assert objects.list("") == []


def test_a_put_that_breaks_off_leaves_nothing(objects):
    def broken():
        yield CONTENT
        raise RuntimeError("the sender went away")

    with pytest.raises(RuntimeError, match="went away"):
        objects.put("a", broken())
    assert not objects.exists("a")
    assert objects.list("") == []


def test_the_same_key_again_replaces_the_object_whole(objects):
    objects.put("a", [b"1" * 100])
    reading = objects.get("a")
    objects.put("a", [b"2"])
    assert content(objects, "a") == b"2"
    # Who reads already has the object that was there.
    assert b"".join(reading) == b"1" * 100


def test_a_list_is_sorted_and_by_prefix(objects):
    for key in ("jobs/1/logs/out/5", "jobs/1/logs/out/0", "jobs/1/other", "jobs/10/x"):
        objects.put(key, [b"x"])
    assert [each.key for each in objects.list("jobs/1/logs/out/")] == [
        "jobs/1/logs/out/0",
        "jobs/1/logs/out/5",
    ]
    assert [each.key for each in objects.list("jobs/1")] == sorted(
        ["jobs/1/logs/out/0", "jobs/1/logs/out/5", "jobs/1/other", "jobs/10/x"]
    )
    assert objects.list("nothing/like/it") == []


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../../x", "a//b", ".incoming/x"])
def test_keys_stay_within_the_store(objects, key):
    with pytest.raises(ObjectStoreError, match="is no key"):
        objects.put(key, [b"x"])
    with pytest.raises(ObjectStoreError, match="is no key"):
        objects.get(key)


def test_a_missing_object_is_said_at_once(objects):
    with pytest.raises(ObjectStoreError, match=r"^x: can't be read: .*No such file"):
        objects.get("x")
    with pytest.raises(ObjectStoreError, match=r"^x: can't be read"):
        objects.stat("x")
    assert not objects.exists("x")


def test_listing_while_others_put_never_fails_or_shows_a_part(objects):
    done = threading.Event()

    def put():
        for number in range(150):
            objects.put(f"logs/{number:03d}", [b"x" * 1000])
        done.set()

    thread = threading.Thread(target=put)
    thread.start()
    while not done.is_set():
        assert all(each.size == 1000 for each in objects.list("logs/"))
    thread.join()
    assert len(objects.list("logs/")) == 150


@pytest.mark.parametrize("url", ["", "s3://bucket", "/objects", "file://host/objects", "file:x"])
def test_other_urls_are_refused_with_a_sentence(url):
    with pytest.raises(ValueError, match="file:///absolute/path"):
        ObjectStore.open(url)
