"""Functions in real worker processes, under a manager with a registry in the test's hand."""

import json
import os
import signal

import pytest

from shoal_gateway.appmanager import prefetch, supervisor, table
from shoal_gateway.appmanager.offers import Input
from shoal_gateway.appmanager.ports import Ended, Held, TakenError
from shoal_gateway.appmanager.workers import Said, heard
from tests.services.appmanager.functions import (
    call,
    content,
    events,
    functions,
    log,
    result,
    worker_of,
)
from tests.services.appmanager.host import host
from tests.support.waiting import eventually

__all__ = ["functions", "host"]


def test_what_a_function_returns_is_its_output_and_workers_are_kept(functions):
    host = functions
    host.open(slots=1)
    made = [call(host, "add", a="1", b="2", outputs=("result.json",)) for _ in range(1)]
    first = result(host, made[0])
    again = eventually(lambda: host.manager.free, what="a free slot") and call(
        host, "add", a="3", b="4", outputs=("result.json",)
    )
    second = result(host, again)
    assert (first["sum"], second["sum"]) == (3, 7)
    assert first["pid"] == second["pid"] != os.getpid()
    report = host.report(again)
    assert (report.ended, report.exit_code, report.attempt) == (Ended.SUCCEEDED, 0, 1)
    # Under the fence that Begin gave, not the offer's.
    assert report.lease.fence == 6
    eventually(lambda: len(events(host, again)) == 3, what="the ledger")
    assert [entry["event"] for entry in events(host, again)] == ["start", "end", "published"]
    assert {entry["runner_id"] for entry in events(host, again)} == {report.lease.runner_id}


def test_inputs_files_and_output_of_one_call_are_not_the_next_ones(functions):
    host = functions
    host.open(slots=1)
    data = b"wet "
    key = "uploads/a"
    stored = host.objects.put(key, [data])
    given = Input("in/a.txt", key, stored.sha256)
    first = call(host, "files", inputs=(given,), outputs=("more.txt",))
    assert content(host, first, "more.txt") == data + first.encode()
    eventually(lambda: host.manager.free, what="a free slot")
    spoke = call(host, "speak")
    assert host.report(spoke).ended is Ended.SUCCEEDED
    assert sorted(log(host, spoke, "stdout").split()) == [b"hello", b"raw"]
    assert log(host, spoke, "stderr") == b"oh\n"
    eventually(lambda: host.manager.free, what="a free slot")
    # The listing is taken before its own result is written.
    last = call(host, "until", path="/", outputs=("result.json",))
    assert result(host, last) == []
    assert log(host, last, "stdout") == b""


def test_what_a_function_raises_is_said_and_is_in_the_logs(functions):
    host = functions
    host.open()
    failed, left = call(host, "fail"), call(host, "leave", code="75")
    report = host.report(failed)
    assert (report.ended, report.exit_code) == (Ended.FAILED, 1)
    assert report.reason.endswith("ValueError: no such mushroom")
    assert b"Traceback" in log(host, failed, "stderr")
    assert (host.report(left).ended, host.report(left).exit_code) == (Ended.FAILED, 75)
    eventually(lambda: host.manager.free == 2, what="free slots")
    wrong, missing = call(host, "odd", outputs=("result.json",)), call(host, "nothing")
    assert "not JSON serializable" in host.report(wrong).reason
    assert "nothing" in host.report(missing).reason
    eventually(lambda: host.manager.free == 2, what="free slots")
    absent, extra = call(host, "noop", outputs=("x",)), call(host, "noop", z="1")
    assert "no file 'x'" in host.report(absent).reason
    assert "unexpected keyword argument" in host.report(extra).reason


def test_a_reason_of_any_bytes_is_one_that_can_be_reported(functions):
    host = functions
    host.open(slots=1)
    reason = host.report(call(host, "cry")).reason
    assert reason.endswith("ValueError: r\\udce9sum\\udce9")
    assert reason.encode()


def test_a_line_that_no_worker_says_costs_the_call_and_not_the_manager(functions):
    host = functions
    host.open(slots=1)
    for line in ("nonsense", '{"code": "x"}'):
        assert host.report(call(host, "forge", line=line)).ended is Ended.SUPERVISOR_LOST
        eventually(lambda: host.manager.free, what="a free slot")
    assert host.report(call(host, "noop")).ended is Ended.SUCCEEDED


GOOD = {"code": 3, "reason": "why", "left": False, "retire": True, "seconds": 0.1}


def test_what_a_worker_says_is_heard():
    assert heard(json.dumps({"ready": True}).encode()).code is None
    assert heard(json.dumps(GOOD).encode()) == Said(3, "why", left=False, retire=True)


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"1", b"[]", b"{}", b"\xff", b"[" * 10_000]
    + [
        json.dumps(GOOD | wrong).encode()
        for wrong in ({"code": 256}, {"code": -1}, {"code": None}, {"reason": 1}, {"left": 1})
    ],
    ids=str,
)
def test_what_no_worker_says_is_refused(line):
    with pytest.raises(ValueError, match=r"no answer|brackets|Expecting|decode"):
        heard(line)


@pytest.mark.parametrize(
    ("how", "said"), [("exit", "exit code 7"), ("9", "SIGKILL"), ("11", "SIGSEGV")]
)
def test_a_dead_worker_is_an_attempt_lost_and_nothing_more(functions, how, said):
    host = functions
    host.open()
    gate = host.root / "gate"
    other = call(host, "until", path=str(gate))
    dying = call(host, "die", how=how)
    report = host.report(dying)
    assert report.ended is Ended.SUPERVISOR_LOST
    assert said in report.reason
    assert [e["event"] for e in events(host, dying)] == ["start", "end"]
    assert events(host, dying)[1]["cause"] == "supervisor lost"
    # Another worker takes its place, and the other call has felt nothing.
    eventually(lambda: host.manager.free, what="a free slot")
    assert host.report(call(host, "noop")).ended is Ended.SUCCEEDED
    gate.touch()
    assert host.report(other).ended is Ended.SUCCEEDED


def test_limits_and_cancels_kill_the_worker(functions):
    host = functions
    host.open()
    slow = call(host, "stay", wall=0.2)
    hog = call(host, "hog", memory=512)
    assert host.report(slow).ended is Ended.FAILED
    assert "limit of 0.2 s" in host.report(slow).reason
    assert "MemoryError" in host.report(hog).reason
    eventually(lambda: host.manager.free == 2, what="free slots")
    wanted, lost = call(host, "stay"), call(host, "stay")
    pids = [worker_of(host, each) for each in (wanted, lost)]
    host.registry.verdicts[wanted] = (Held.CANCEL, 9)
    host.registry.verdicts[lost] = (Held.LOST, 0)
    report = host.report(wanted)
    assert (report.ended, report.lease.fence) == (Ended.CANCELLED, 9)
    eventually(lambda: not any(map(supervisor.start_ticks, pids)), what="dead workers")
    eventually(lambda: host.manager.free == 2, what="free slots")
    assert host.registry.of(lost) == []


def test_an_end_that_crosses_its_cancel_is_reported_under_the_new_fence(functions):
    host = functions
    host.open(lease=60.0)
    host.registry.refusals[6] = "fence 6 is old, the job is at 7"
    job_id = "00000000-0000-4000-8000-000000000001"
    host.registry.verdicts[job_id] = (Held.CANCEL, 7)
    offer = host.offer(function="functions:noop", job_id=job_id)
    host.manager.start([offer])
    eventually(lambda: len(host.registry.of(job_id)) == 2, what="two reports")
    refused, said = host.registry.of(job_id)
    assert (refused.ended, refused.lease.fence) == (Ended.SUCCEEDED, 6)
    assert (said.ended, said.lease.fence) == (Ended.CANCELLED, 7)
    eventually(lambda: not host.manager.calls(), what="nothing held")
    assert "published" not in {entry["event"] for entry in host.ledger()}


def test_what_a_function_leaves_running_ends_and_its_worker_is_replaced(functions):
    host = functions
    host.open(slots=1)
    note = host.root / "child"
    job_id = call(host, "breed", path=str(note))
    before = worker_of(host, job_id)
    assert host.report(job_id).ended is Ended.SUCCEEDED
    eventually(lambda: supervisor.start_ticks(int(note.read_text())) is None, what="its end")
    eventually(lambda: host.manager.free, what="a free slot")
    assert worker_of(host, call(host, "noop")) != before


def test_what_another_has_is_dropped_and_what_has_no_room_is_said(functions):
    host = functions
    host.open(slots=1)
    host.registry.begin_error = TakenError("it is RUNNING at fence 9")
    offer = host.offer(function="functions:noop")
    (answer,) = host.manager.start([offer])
    assert (answer.verdict, answer.reason) == ("taken", "it is RUNNING at fence 9")
    assert host.manager.free == 1
    host.registry.begin_error = None
    offers = [host.offer(function="functions:stay") for _ in range(2)]
    # Nothing is known of how long it takes: no second one waits here.
    assert [each.verdict for each in host.manager.start(offers)] == ["started", "full"]
    assert host.manager.refuses(offers)
    assert host.ledger() == [] or {e["event"] for e in host.ledger()} == {"start"}


def test_calls_that_will_not_wait_long_wait_here(functions, monkeypatch):
    # However slow this machine is.
    monkeypatch.setattr(prefetch, "AHEAD", 3600.0)
    host = functions
    host.open(slots=1)
    host.report(call(host, "noop"))
    eventually(lambda: host.manager.free, what="a free slot")
    offers = [host.offer(function="functions:noop") for _ in range(100)]
    answers = host.manager.start(offers)
    assert {each.verdict for each in answers} == {"started"}
    for each in offers:
        assert host.report(each.job_id).ended is Ended.SUCCEEDED


def test_nothing_waits_behind_what_stays(functions):
    """However short it is itself: others could run it at once."""
    host = functions
    host.open(slots=1)
    for name in ("until", "noop"):
        assert host.report(call(host, name, **({"path": "/"} if name == "until" else {}))).ended
        eventually(lambda: host.manager.free, what="a free slot")
    short = host.offer(function="functions:noop")
    eventually(lambda: not host.manager.refuses([short]), what="room")
    gate = host.root / "gate"
    # Known to be short, but this time it is not.
    call(host, "until", path=str(gate))
    eventually(lambda: host.manager.refuses([short]), what="no room")
    gate.touch()
    eventually(lambda: host.manager.free, what="a free slot")
    host.python("import time; time.sleep(3600)")
    assert host.manager.refuses([short])


def test_functions_and_commands_share_the_slots(functions):
    host = functions
    host.open(slots=2)
    gate = host.root / "gate"
    call(host, "until", path=str(gate))
    host.python("import time; time.sleep(3600)")
    _, answer = host.start("{python}", "-c", "pass")
    assert answer.verdict == "full"
    assert (host.manager.free, host.manager.utilisation) == (0, 1.0)
    gate.touch()
    eventually(lambda: host.manager.free == 1, what="a free slot")


def crowded(host):
    """A manager of one slot with a call in it and some that wait; the gate that lets it go on."""
    host.open(slots=1)
    gate = host.root / "gate"
    # So that it is known to be short.
    assert host.report(call(host, "until", path="/")).ended is Ended.SUCCEEDED
    eventually(lambda: host.manager.free, what="a free slot")
    return gate, [call(host, "until", path=str(gate)) for _ in range(5)]


def test_a_command_that_finds_only_functions_gets_the_next_slot(functions, monkeypatch):
    monkeypatch.setattr(prefetch, "AHEAD", 3600.0)
    monkeypatch.setattr(table, "KEPT", 3600.0)
    host = functions
    gate, calls = crowded(host)
    command, function = host.offer("{python}", "-c", "pass"), host.offer(function="functions:noop")
    assert host.manager.refuses([command])
    assert host.manager.refuses([function])
    gate.touch()
    for each in calls:
        assert host.report(each).ended is Ended.SUCCEEDED
    eventually(lambda: host.manager.free, what="a free slot")
    # Whoever comes first: a flood of functions would always.
    assert [each.verdict for each in host.manager.start([function])] == ["full"]
    assert [each.verdict for each in host.manager.start([command])] == ["started"]
    assert host.report(command.job_id).ended is Ended.SUCCEEDED
    eventually(lambda: host.manager.free, what="a free slot")
    assert [each.verdict for each in host.manager.start([function])] == ["started"]


def test_a_slot_is_not_kept_for_long(functions, monkeypatch):
    monkeypatch.setattr(prefetch, "AHEAD", 3600.0)
    monkeypatch.setattr(table, "KEPT", 0.05)
    host = functions
    gate, _ = crowded(host)
    parameters = (("path", "/"),)
    offers = [
        host.offer("{python}", "-c", "pass"),
        host.offer(function="functions:until", parameters=parameters),
    ]
    answers = host.manager.start(offers)
    assert answers[0].verdict == "full"
    # The command has gone elsewhere.
    eventually(lambda: not host.manager.refuses(offers[1:]), what="room to wait")
    gate.touch()


def test_a_manager_that_leaves_gives_back_what_does_not_end(functions):
    host = functions
    host.open()
    stays = call(host, "stay")
    pid = worker_of(host, stays)
    host.close()
    host.manager = None
    (report,) = host.registry.of(stays)
    assert (report.ended, report.reason) == (Ended.ABANDONED, "its manager leaves")
    assert supervisor.start_ticks(pid) is None
    assert [entry["event"] for entry in events(host, stays)] == ["start", "end"]


def test_an_application_that_is_not_there_is_said_before_anything_is_begun(functions):
    host = functions
    host.open()
    offer = host.offer(function="functions:noop", application="other@1")
    (answer,) = host.manager.start([offer])
    assert answer.verdict == "unable"
    assert "other@1 is not installed" in answer.reason
    assert host.registry.begun == []


def test_two_applications_may_have_modules_of_one_name(functions):
    host = functions
    host.open(slots=1)
    place = host.root / "apps" / "twin"
    place.mkdir()
    (place / "functions.py").write_text("def add(a, b): return a + b")
    for application, sum_ in (("test@1", 5), ("twin@1", "23"), ("test@1", 5)):
        eventually(lambda: host.manager.free, what="a free slot")
        offer = host.offer(
            function="functions:add",
            application=application,
            parameters=(("a", "2"), ("b", "3")),
            outputs=("result.json",),
        )
        host.manager.start([offer])
        found = result(host, offer.job_id)
        assert (found["sum"] if isinstance(found, dict) else found) == sum_


def test_a_killed_worker_that_is_idle_is_replaced(functions):
    host = functions
    host.open(slots=1)
    job_id = call(host, "noop")
    host.report(job_id)
    pid = worker_of(host, job_id)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: supervisor.start_ticks(pid) is None, what="its end")
    again = call(host, "noop")
    assert host.report(again).ended is Ended.SUCCEEDED
