"""What jobs and hosts do that nobody wishes for: no slot is lost, and the right one is blamed."""

import json
import os
import signal

import pytest

from shoal_gateway.appmanager.offers import Input
from shoal_gateway.appmanager.ports import Ended, Held
from tests.services.appmanager.host import STAY, host
from tests.support.waiting import eventually

__all__ = ["host"]


def test_a_job_whose_host_shuts_down_is_given_back_and_has_not_failed(host):
    host.open()
    job_id = host.python(STAY)
    host.started()
    # As systemd does to all processes of a machine.
    os.kill(host.pid(job_id), signal.SIGTERM)
    result = host.report(job_id)
    assert (result.ended, result.exit_code) == (Ended.ABANDONED, None)
    eventually(lambda: host.manager.free == 2, what="free slots")


@pytest.mark.parametrize(
    ("code", "name", "words"),
    [
        ("import os; os.symlink('x', 'x')", "x", "made no file 'x'"),
        ("import os; os.mkdir('x')", "x", "made no file 'x'"),
        ("import os; os.mkfifo('x')", "x", "made no file 'x'"),
        ("open('x', 'w')", "x/y", "made no file 'x/y'"),
        ("pass", "é" * 200, "can't be read"),
    ],
    ids=["circle", "directory", "pipe", "below a file", "too long a name"],
)
def test_an_output_that_is_none_fails_the_job_at_once(host, code, name, words):
    host.open()
    result = host.report(host.python(code, outputs=(name,)))
    assert (result.ended, result.exit_code) == (Ended.FAILED, 0)
    assert words in result.reason
    eventually(lambda: host.manager.free == 2, what="free slots")


def test_an_output_that_forbids_its_reading_fails_the_job(host, monkeypatch):
    # By hand: root, who may run the tests, reads everything.
    def forbidden(directory, name, owner):
        raise PermissionError(13, "Permission denied", str(directory / name))

    monkeypatch.setattr("shoal_gateway.appmanager.beneath.opened", forbidden)
    host.open()
    result = host.report(host.python("open('x', 'w')", outputs=("x",)))
    assert result.ended is Ended.FAILED
    assert "'x' can't be read" in result.reason


def test_logs_that_forbid_their_reading_do_not_hold_up_the_end(host, monkeypatch):
    def forbidden(path, offset):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("shoal_gateway.appmanager.shipping._piece", forbidden)
    host.open()
    assert host.report(host.python("print('x')")).ended is Ended.SUCCEEDED


def test_whatever_goes_wrong_at_the_start_the_job_is_given_back(host, caplog):
    host.open()

    def broken(key, offset=0):
        raise UnicodeEncodeError("ascii", key, 0, 1, "no such letter")

    host.objects.get = broken
    wanted = Input("a", "uploads/a", "0" * 64)
    job_id, answer = host.start("{python}", "-c", "pass", inputs=(wanted,))
    assert answer.verdict == "taken"
    assert host.report(job_id).ended is Ended.ABANDONED
    assert "no such letter" in caplog.text
    eventually(lambda: host.manager.free == 2, what="free slots")
    assert host.ledger() == []


def test_a_host_with_many_descriptors_ends_jobs_too(host):
    host.open()
    many = []
    high = False
    try:
        while not high:
            # Once is not always enough: other threads give back low ones that they held meanwhile.
            assert len(many) < 10 * 1100
            many += [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
            job_id = host.python(STAY)
            (runner,) = host.manager.running()
            high = runner.handle > 1023
            host.registry.verdicts[job_id] = (Held.CANCEL, 7)
            assert host.report(job_id).ended is Ended.CANCELLED
            eventually(lambda: not host.manager.running(), what="the slot to be free")
    finally:
        for descriptor in many:
            os.close(descriptor)


def test_a_runner_that_was_let_go_is_not_signalled(host):
    host.open()
    job_id = host.python("pass")
    (runner,) = host.manager.running()
    host.report(job_id)
    eventually(lambda: runner.handle == -1, what="the end of its descriptor")
    # A renewal's answer that was under way meanwhile.
    runner.cancel(9)
    runner.disown()
    assert host.manager.running() == []


def test_remains_do_not_stop_a_manager(host, caplog):
    place = host.root / "attempts" / "local"
    remains = {
        "nothing": {},
        "torn": {"spec.json": "{"},
        "other": {"spec.json": "{}"},
        ".removed": {"spec.json": "{}"},
    }
    for name, files in remains.items():
        (place / name).mkdir(parents=True)
        for file, text in files.items():
            (place / name / file).write_text(text)
    host.open()
    assert "torn/spec.json can't be read" in caplog.text
    assert "other/spec.json has other fields" in caplog.text
    # Nothing was begun in a directory without a spec.
    assert host.attempts() == ["other", "torn"]
    assert host.report(host.python("pass")).ended is Ended.SUCCEEDED


@pytest.mark.parametrize(
    ("file", "text"), [("exit.json", "{"), ("exit.json", "[]"), ("claim.json", "{}")]
)
def test_an_end_that_cannot_be_read_is_left_to_its_lease(host, caplog, file, text):
    host.open()
    job_id = host.python("import time; time.sleep(1.0)")
    (place,) = (host.root / "attempts" / "local").iterdir()
    host.manager.close()
    eventually((place / "exit.json").exists, what="the supervisor's last word")
    (place / file).write_text(text)
    host.open()
    assert f"{place} is left alone" in caplog.text
    assert (host.manager.free, host.registry.of(job_id)) == (2, [])


def test_an_end_without_a_cause_is_a_jobs_own(host):
    host.open()
    job_id = host.python("import time; time.sleep(1.0)")
    (place,) = (host.root / "attempts" / "local").iterdir()
    host.manager.close()
    path = place / "exit.json"
    eventually(path.exists, what="the supervisor's last word")
    document = json.loads(path.read_text())
    del document["cause"]
    path.write_text(json.dumps(document))
    host.open()
    assert host.report(job_id).ended is Ended.SUCCEEDED
