"""Jobs are counted beside who looks, and not more often than is good for the store."""

from __future__ import annotations

import threading

from shoal_gateway.registry import counted
from shoal_gateway.registry.counted import Counted
from shoal_protos.gateway.model.v1 import job_pb2
from tests.support.waiting import eventually


class Store:
    """Counts when the test lets it."""

    def __init__(self):
        self.go = threading.Event()
        self.asked = 0
        self.error = None

    def counts(self, owner):
        assert owner == ""
        self.asked += 1
        assert self.go.wait(30.0)
        if self.error is not None:
            raise self.error
        return {job_pb2.STATE_QUEUED: 7}


def test_who_looks_does_not_wait_for_the_store(caplog):
    store, now = Store(), [0.0]
    look = Counted(store.counts, lambda: now[0])
    assert look() == look() == []
    store.go.set()
    found = dict(eventually(look, what="a count"))
    assert found[("QUEUED",)] == 7
    assert found[("RUNNING",)] == 0
    assert store.asked == 1
    # It stands still: what is known is told, for a while.
    store.go.clear()
    now[0] = counted.GOOD_FOR
    assert dict(look()) == dict(look()) == found
    eventually(lambda: store.asked == 2, what="another count")
    now[0] = counted.OLD
    assert look() == []
    # One that fails is tried again.
    store.error = OSError("gone")
    store.go.set()
    eventually(lambda: look() == [] and store.asked > 2, what="a count after one that failed")
    assert "jobs can't be counted" in caplog.text
    store.error = None
    eventually(look, what="a count")
