"""Whatever becomes of an attempt, its span is told of once."""

from __future__ import annotations

import pytest

from shoal_gateway import jobtraces
from shoal_gateway.appmanager import pool
from shoal_gateway.appmanager.ports import Held, TakenError
from tests.services.appmanager.host import STAY, host
from tests.support.waiting import eventually

__all__ = ["host"]

PARENT = f"00-{'1' * 32}-{'2' * 16}-01"


class Spans:
    """Remembers what was begun and told."""

    def __init__(self):
        self.begun = []
        self.told = []

    def child(self, parent):
        self.begun.append(f"{parent[:36]}{len(self.begun) + 3:016x}-01")
        return self.begun[-1]

    def ended(self, name, span, ended, facts, error):
        assert name == "shoal.job.attempt"
        self.told.append((span.own, facts["shoal.outcome"], error))

    def current(self):
        return ""

    within = staticmethod(lambda _: jobtraces.within(jobtraces.NONE))


@pytest.fixture
def spans(monkeypatch):
    made = Spans()
    monkeypatch.setattr(jobtraces, "spans", made)
    return made


@pytest.fixture(params=["command", "function"])
def start(request, host, monkeypatch):
    monkeypatch.setattr(pool, "GRACE", 0.3)
    place = host.root / "apps" / "test"
    place.mkdir(parents=True)
    (place / "functions.py").write_text(
        "import time\ndef noop(): pass\ndef stay(): time.sleep(60)\n"
    )
    host.open()

    def start(*, stays=False):
        if request.param == "command":
            return host.start("{python}", "-c", STAY if stays else "pass", trace_context=PARENT)
        name = f"functions:{'stay' if stays else 'noop'}"
        return host.start(function=name, trace_context=PARENT)

    return start


def outcome(spans):
    """Of the one attempt that there was."""
    ((own, outcome, error),) = eventually(lambda: spans.told, what="a span")
    assert spans.begun == [own]
    return outcome, error


def test_a_reported_one(spans, start):
    start()
    assert outcome(spans) == ("succeeded", "")


def test_one_that_was_begun_elsewhere(spans, start, host):
    host.registry.begin_error = TakenError("it is RUNNING at fence 9")
    start()
    assert outcome(spans) == ("taken", "it is RUNNING at fence 9")


def test_one_that_could_not_be_begun(spans, start, host):
    host.registry.away = True
    start()
    assert outcome(spans) == ("unable", "the registry is away: nobody is there")


def test_one_that_is_lost(spans, start, host):
    job_id, _ = start(stays=True)
    host.registry.verdicts[job_id] = (Held.LOST, 0)
    assert outcome(spans) == ("lost", "its job is somebody else's")


def test_one_whose_report_is_refused(spans, start, host):
    host.registry.refusals[6] = "it is at fence 7"
    start()
    assert outcome(spans)[0] == "succeeded"
