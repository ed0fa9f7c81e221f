"""Objects under concurrent readers and writers."""

import threading

from shoal_gateway.objectstore import ObjectStore


def test_a_reader_keeps_the_object_that_it_began_with(tmp_path):
    objects = ObjectStore.open(f"file://{tmp_path}/objects")
    objects.put("a", [b"1" * 100])
    reading = objects.get("a")
    objects.put("a", [b"2"])
    assert b"".join(objects.get("a")) == b"2"
    assert b"".join(reading) == b"1" * 100


def test_listing_while_others_put_never_fails_or_shows_a_part(tmp_path):
    objects = ObjectStore.open(f"file://{tmp_path}/objects")

    def put():
        for number in range(150):
            objects.put(f"logs/{number:03d}", [b"x" * 1000])

    thread = threading.Thread(target=put)
    thread.start()
    while thread.is_alive():
        assert all(each.size == 1000 for each in objects.list("logs/"))
    thread.join()
    assert len(objects.list("logs/")) == 150
