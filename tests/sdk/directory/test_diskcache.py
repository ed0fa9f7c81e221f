"""Snapshots on disk."""

import json
import logging
from types import MappingProxyType

import pytest

from shoal.diskcache import DiskCache, default_directory
from shoal_balancer import Replica, Status

SET = (
    Replica("a", "10.0.0.1", 1, version="2", metadata=MappingProxyType({"team": "sea"})),
    Replica("b", "::1", 2, status=Status.DRAINING, enabled=False, registered_at=7.5),
)


def test_a_set_comes_back_with_its_age(tmp_path):
    cache = DiskCache(tmp_path / "new" / "folder", "zk:1/x")
    cache.save("jobs", SET)
    replicas, age = DiskCache(tmp_path / "new" / "folder", "zk:1/x").load("jobs")
    assert replicas == SET
    assert 0.0 <= age < 60.0

    path = cache.path("jobs")
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "saved_at": document["saved_at"] - 3600.0}))
    assert cache.load("jobs")[1] >= 3600.0


def test_ensembles_and_services_do_not_mix(tmp_path):
    DiskCache(tmp_path, "zk:1/x").save("jobs", SET)
    assert DiskCache(tmp_path, "zk:1/y").load("jobs") is None
    assert DiskCache(tmp_path, "zk:1/x").load("job") is None


def test_a_write_replaces_the_file_whole_and_leaves_nothing_beside_it(tmp_path):
    cache = DiskCache(tmp_path, "zk:1/x")
    cache.save("jobs", SET)
    before = cache.path("jobs").stat().st_ino
    cache.save("jobs", SET[:1])
    assert cache.path("jobs").stat().st_ino != before
    assert [path.name for path in tmp_path.iterdir()] == [cache.path("jobs").name]
    assert cache.load("jobs")[0] == SET[:1]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 1, "replicas": ["x"]}'])
def test_a_spoilt_file_is_passed_over_with_a_warning(tmp_path, caplog, content):
    cache = DiskCache(tmp_path, "zk:1/x")
    cache.path("jobs").write_text(content)
    with caplog.at_level(logging.WARNING):
        assert cache.load("jobs") is None
    assert str(cache.path("jobs")) in caplog.text


def test_a_disk_that_fails_costs_one_warning_and_no_error(tmp_path, caplog):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    cache = DiskCache(in_the_way, "zk:1/x")
    with caplog.at_level(logging.WARNING):
        cache.save("jobs", SET)
        cache.save("jobs", SET)
    assert len(caplog.records) == 1
    assert "SHOAL_CACHE_DIR" in caplog.text


def test_where_snapshots_lie(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("SHOAL_CACHE_DIR", str(tmp_path))
    assert default_directory() == tmp_path
    monkeypatch.delenv("SHOAL_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "shoal"


def test_a_user_without_a_home_keeps_none_and_is_told(monkeypatch, caplog):
    monkeypatch.delenv("SHOAL_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", no_home)
    with caplog.at_level(logging.WARNING):
        assert default_directory() is None
    assert "cache_dir" in caplog.text
    cache = DiskCache(None, "zk:1/x")
    cache.save("jobs", SET)
    assert cache.load("jobs") is None
