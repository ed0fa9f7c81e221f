"""What holds after each look."""

import json

from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import ConfigInvalidError
from shoal.recipes.configcache import ConfigCache
from shoal.recipes.configstate import Observed, Reading, Source, following

DEFAULT = "default"
UNREAD = Reading(DEFAULT, None, Source.DEFAULTS)


def read(data):
    if data == b"bad":
        raise ConfigInvalidError("bad indeed")
    return data.decode()


def look(reading, seen):
    return following(reading, seen, read, DEFAULT)


def test_the_first_answer_takes_the_place_of_what_was_on_disk():
    disk = Reading("old", 3, Source.DISK)
    assert look(disk, Observed(b"new", 5)) == Reading("new", 5, Source.ZOOKEEPER, newest=5)
    assert look(disk, None) == Reading(DEFAULT, None, Source.ZOOKEEPER)
    assert look(UNREAD, None) == Reading(DEFAULT, None, Source.ZOOKEEPER)


def test_a_bad_document_leaves_what_holds_and_says_so_until_a_good_one_comes():
    good = look(UNREAD, Observed(b"good", 1))
    bad = look(good, Observed(b"bad", 2))
    assert (bad.value, bad.version, bad.source, bad.newest) == ("good", 1, Source.ZOOKEEPER, 2)
    assert bad.problem == "version 2 is passed over, 1 still holds: bad indeed"
    assert look(bad, Observed(b"better", 3)).problem is None
    first = look(UNREAD, Observed(b"bad", 0))
    assert (first.value, first.source) == (DEFAULT, Source.DEFAULTS)
    assert "version 0 is passed over, the defaults hold" in first.problem
    disk = look(Reading("old", 3, Source.DISK), Observed(b"bad", 4))
    assert (disk.value, disk.source) == ("old", Source.DISK)


def test_a_document_that_vanishes_still_holds():
    good = look(UNREAD, Observed(b"good", 7))
    gone = look(good, None)
    assert (gone.value, gone.version) == ("good", 7)
    assert gone.problem == "the document is gone; version 7 still holds"
    # Made anew, its versions begin again.
    assert look(gone, Observed(b"anew", 0)) == Reading("anew", 0, Source.ZOOKEEPER, newest=0)


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.builds(Observed, st.sampled_from([b"bad", b"a", b"b"]), st.integers(0, 9)),
        )
    )
)
def test_what_holds_is_always_the_last_good_one(looks):
    reading, last = UNREAD, None
    for seen in looks:
        reading = look(reading, seen)
        if seen is not None and seen.data != b"bad":
            last = seen
        assert reading.value == (last.data.decode() if last else DEFAULT)
        assert reading.version == (last.version if last else None)
        healthy = seen is last or (seen is None and last is None)
        assert (reading.problem is None) == healthy


def test_readings_say_where_they_are_from():
    assert str(UNREAD) == "the defaults, unread"
    assert str(Reading(1, None, Source.ZOOKEEPER)) == "the defaults"
    assert str(Reading(1, 4, Source.DISK)) == "version 4 from disk"
    assert str(Reading(1, 4, Source.ZOOKEEPER, "it rains")) == "version 4 (it rains)"


def test_a_document_is_kept_on_disk_for_each_ensemble(tmp_path):
    cache = ConfigCache(tmp_path, "zk1:2181/a", "limits")
    assert cache.load() is None
    cache.save(Observed(b'{"a": 1}', 4))
    kept = ConfigCache(tmp_path, "zk1:2181/a", "limits").load()
    assert kept.seen == Observed(b'{"a": 1}', 4)
    assert kept.age >= 0.0
    assert ConfigCache(tmp_path, "zk1:2181/b", "limits").load() is None
    assert ConfigCache(tmp_path, "zk1:2181/a", "limit_s").load() is None
    cache.forget()
    cache.forget()
    assert cache.load() is None
    ConfigCache(None, "x", "y").save(Observed(b"{}", 1))
    assert ConfigCache(None, "x", "y").load() is None


def test_a_snapshot_that_can_not_be_read_or_written_is_passed_over(tmp_path, caplog):
    cache = ConfigCache(tmp_path, "zk", "limits")
    cache.save(Observed(b"{}", 1))
    whole = json.loads(cache.path.read_text())
    for text in (
        "",
        "[]",
        "{}",
        json.dumps({**whole, "data": 3}),
        json.dumps({**whole, "version": "x"}),
    ):
        cache.path.write_text(text)
        caplog.clear()
        assert cache.load() is None
        assert "passed over" in caplog.text
    cache.path.write_text(json.dumps({**whole, "format": 99}))
    assert cache.load() is None
    (tmp_path / "file").write_text("")
    ConfigCache(tmp_path / "file", "zk", "limits").save(Observed(b"{}", 1))
    assert "SHOAL_CACHE_DIR" in caplog.text
