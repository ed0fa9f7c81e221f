"""The manager with real supervisors and a registry in the test's hand."""

import hashlib
import json
import os
import signal
import threading

from shoal_gateway.appmanager import logic, supervisor
from shoal_gateway.appmanager.offers import Input
from shoal_gateway.appmanager.ports import Ended, Held, TakenError
from shoal_gateway.objectstore import ObjectStoreError
from tests.services.appmanager.host import STAY, host
from tests.support.waiting import eventually

__all__ = ["host"]


def test_a_job_is_begun_run_stored_and_reported(host):
    host.open()
    data = b"date,temp\n"
    key = f"uploads/{hashlib.sha256(data).hexdigest()}"
    host.objects.put(key, [data])
    code = "print('hello'); open('out/b.txt', 'w').write(open('in/a.csv').read() * 2)"
    job_id = host.python(
        f"import os; os.mkdir('out'); {code}",
        inputs=(Input("in/a.csv", key, hashlib.sha256(data).hexdigest()),),
        outputs=("out/b.txt",),
    )
    result = host.report(job_id)
    assert (result.ended, result.exit_code, result.attempt) == (Ended.SUCCEEDED, 0, 1)
    ((name, stored),) = result.files
    assert name == "out/b.txt"
    assert b"".join(host.objects.get(stored.key)) == data * 2
    assert stored.sha256 == hashlib.sha256(data * 2).hexdigest()
    # Under the fence that Begin gave, not the offer's.
    ((begun_id, fence, _, runner_id),) = host.registry.begun
    assert (begun_id, result.lease.fence) == (job_id, fence + 1)
    prefix = f"jobs/{job_id}/attempt-1/{runner_id}"
    assert stored.key == f"{prefix}/outputs/out/b.txt"
    assert b"".join(host.objects.get(f"{prefix}/logs/stdout/{0:020d}")) == b"hello\n"
    eventually(lambda: not host.attempts(), what="an empty host")
    assert [entry["event"] for entry in host.ledger()] == ["start", "end", "published"]


def test_a_missing_output_a_failure_and_a_limit_are_said(host):
    host.open(slots=3)
    missing = host.python("pass", outputs=("result.json",))
    failing = host.python("raise SystemExit(9)", outputs=("result.json",))
    slow = host.python(STAY, wall_seconds=0.2)
    assert "no file 'result.json'" in host.report(missing).reason
    assert host.report(missing).ended is Ended.FAILED
    assert (host.report(failing).ended, host.report(failing).exit_code) == (Ended.FAILED, 9)
    assert host.report(slow).ended is Ended.FAILED
    assert "limit of 0.2 s" in host.report(slow).reason


def test_an_output_that_links_out_of_the_working_directory_is_not_published(host):
    host.open()
    job_id = host.python("import os; os.symlink('/etc/hostname', 'x')", outputs=("x",))
    assert host.report(job_id).ended is Ended.FAILED


def test_slots_bound_what_is_taken_item_by_item(host):
    host.open(slots=2)
    offers = [host.offer("{python}", "-c", STAY) for _ in range(3)]
    answers = host.manager.start(offers)
    assert [answer.verdict for answer in answers] == ["started", "started", "full"]
    assert (host.manager.free, host.manager.utilisation) == (0, 1.0)
    assert len(host.registry.begun) == 2


def test_a_job_that_begin_gives_to_another_runs_nothing(host):
    host.open()
    host.registry.begin_error = TakenError("it is RUNNING at fence 9")
    _, answer = host.start("{python}", "-c", "pass")
    assert (answer.verdict, answer.reason) == ("taken", "it is RUNNING at fence 9")
    assert host.attempts() == []
    assert host.ledger() == []
    assert host.manager.free == 2


def test_what_this_host_cannot_run_is_not_begun(host):
    host.open()
    _, foreign = host.start("{python}", "-c", "pass", flavor="slurm")
    _, missing = host.start("{python}", "{app}/x.py")
    host.registry.away = True
    _, away = host.start("{python}", "-c", "pass")
    assert [each.verdict for each in (foreign, missing, away)] == ["unable"] * 3
    assert "flavor slurm" in foreign.reason
    assert missing.reason == "application test@1.0 is not installed on its host"
    assert away.reason == "the registry is away"
    assert host.registry.begun == []
    assert host.attempts() == []


def test_a_host_without_room_says_so_without_its_paths(host, caplog):
    host.open()
    place = host.root / "attempts" / "local"
    place.rmdir()
    place.touch()
    _, answer = host.start("{python}", "-c", "pass")
    assert answer.reason == "no place for the attempt: Not a directory"
    assert str(place) in caplog.text
    place.unlink()


def test_inputs_that_cannot_be_had_give_the_job_back(host, caplog):
    host.open()
    absent = Input("a", "uploads/none", "0" * 64)
    host.objects.put("uploads/bad", [b"changed"])
    changed = Input("a", "uploads/bad", "0" * 64)
    for wanted, why in ((absent, "the object store failed"), (changed, "hashes to")):
        job_id, answer = host.start("{python}", "-c", "pass", inputs=(wanted,))
        assert answer.verdict == "taken"
        report = host.report(job_id)
        assert report.ended is Ended.ABANDONED
        assert why in report.reason
        # Users read it; where things lie on the host is in the log.
        for said in (report.reason, answer.reason):
            assert str(host.root) not in said
    assert str(host.root) in caplog.text
    assert host.ledger() == []
    eventually(lambda: host.manager.free == 2, what="free slots")


def test_leases_are_renewed_while_uploads_hang(host):
    host.open()
    hang, entered = threading.Event(), threading.Event()
    put = host.objects.put

    def slow(key, chunks, sha256=None):
        if "/outputs/" in key:
            entered.set()
            hang.wait(30)
        return put(key, chunks, sha256)

    host.objects.put = slow
    job_id = host.python("open('x', 'w')", outputs=("x",))
    assert entered.wait(30)
    before = host.registry.renewed[job_id]
    eventually(lambda: host.registry.renewed[job_id] >= before + 3, what="renewals")
    hang.set()
    assert host.report(job_id).ended is Ended.SUCCEEDED


def test_leases_grow_old_while_the_registry_is_away(host):
    host.open(lease=0.2)
    host.python(STAY)
    host.registry.away = True
    eventually(lambda: host.manager.kept_for > 0.5, what="leases that nobody renews")
    assert host.manager.alive()
    host.registry.away = False
    eventually(lambda: host.manager.kept_for < 0.2, what="a renewal")


def test_reports_are_repeated_until_the_registry_answers(host):
    host.open()
    job_id = host.python("import time; time.sleep(0.5)")
    host.registry.away = True
    host.over()
    assert host.registry.reports == []
    assert len(host.attempts()) == 1
    host.registry.away = False
    assert host.report(job_id).ended is Ended.SUCCEEDED
    eventually(lambda: not host.attempts(), what="an empty host")
    assert len(host.registry.of(job_id)) == 1


def test_an_object_store_that_fails_is_tried_again(host):
    host.open()
    put, failures = host.objects.put, []

    def flaky(key, chunks, sha256=None):
        if "/outputs/" in key and len(failures) < 2:
            failures.append(key)
            raise ObjectStoreError("disk full")
        return put(key, chunks, sha256)

    host.objects.put = flaky
    assert host.report(host.python("open('x', 'w')", outputs=("x",))).ended is Ended.SUCCEEDED
    assert len(failures) == 2


def test_a_cancelled_job_is_killed_and_reported_under_the_new_fence(host):
    host.open()
    job_id = host.python(STAY)
    host.started()
    host.registry.verdicts[job_id] = (Held.CANCEL, 77)
    result = host.report(job_id)
    assert (result.ended, result.lease.fence) == (Ended.CANCELLED, 77)
    assert host.last() == "end"


def test_a_cancel_that_crosses_the_jobs_end_is_still_honoured(host):
    host.open(lease=600.0)
    host.registry.refusals[6] = "fence 6 is old, the job is at 7"
    job_id = host.python("import time; time.sleep(0.3)")
    host.registry.verdicts[job_id] = (Held.CANCEL, 7)
    eventually(lambda: len(host.registry.of(job_id)) == 2, what="a second report")
    first, second = host.registry.of(job_id)
    assert (first.ended, first.lease.fence) == (Ended.SUCCEEDED, 6)
    assert (second.ended, second.lease.fence) == (Ended.CANCELLED, 7)


def test_a_lost_job_is_killed_and_nothing_is_said(host):
    host.open()
    job_id = host.python(STAY)
    host.started()
    host.registry.verdicts[job_id] = (Held.LOST, 0)
    eventually(lambda: not host.attempts(), what="an empty host")
    assert host.last() == "end"
    assert host.registry.of(job_id) == []
    eventually(lambda: host.manager.free == 2, what="free slots")


def test_a_supervisor_that_dies_is_reported_when_nothing_is_left(host):
    host.open()
    job_id = host.python(STAY)
    host.started()
    job = host.ledger()[0]["pid"]
    seen = []
    report = host.registry.report
    host.registry.report = lambda result: (
        seen.append(supervisor.start_ticks(job)),
        report(result),
    )[1]
    os.kill(host.pid(job_id), signal.SIGKILL)
    assert host.report(job_id).ended is Ended.SUPERVISOR_LOST
    assert seen == [None]


def test_a_successor_adopts_what_runs_and_no_job_runs_twice(host):
    host.open()
    job_id = host.python(
        "import os, time\nprint('a', flush=True)\n"
        "while not os.path.exists('go'): time.sleep(0.02)\nprint('b'); open('x', 'w')",
        outputs=("x",),
    )
    runner_id = host.registry.begun[0][3]
    logs = f"jobs/{job_id}/attempt-1/{runner_id}/logs/stdout/"
    eventually(lambda: host.objects.list(logs), what="logs while it runs")
    pid = host.pid(job_id)
    host.manager.close()
    assert supervisor.start_ticks(pid) is not None
    renewed = host.registry.renewed[job_id]
    host.open()
    assert (host.pid(job_id), host.manager.free) == (pid, 1)
    eventually(lambda: host.registry.renewed[job_id] > renewed, what="a renewal")
    (place,) = (host.root / "attempts" / "local").iterdir()
    (place / "work" / "go").touch()
    result = host.report(job_id)
    assert (result.ended, result.lease.runner_id, result.lease.fence) == (
        Ended.SUCCEEDED,
        runner_id,
        6,
    )
    segments = [b"".join(host.objects.get(each.key)) for each in host.objects.list(logs)]
    assert b"".join(segments) == b"a\nb\n"
    assert len(segments) == 2
    eventually(lambda: not host.attempts(), what="an empty host")
    assert [entry["event"] for entry in host.ledger()] == ["start", "end", "published"]
    assert len(host.registry.begun) == 1


def test_a_successor_reports_what_ended_in_between(host):
    host.open()
    job_id = host.python("import time; time.sleep(1.0); raise SystemExit(3)")
    host.manager.close()
    host.over()
    host.open()
    result = host.report(job_id)
    assert (result.ended, result.exit_code) == (Ended.FAILED, 3)


def test_a_supervisor_that_died_with_its_manager_is_not_held_against_the_job(host):
    host.open()
    job_id = host.python(STAY)
    pid = host.pid(job_id)
    host.manager.close()
    os.kill(pid, signal.SIGKILL)
    # A signal is sent, and only then carried out.
    eventually(lambda: supervisor.start_ticks(pid) is None)
    host.open()
    assert host.report(job_id).ended is Ended.ABANDONED


def test_an_attempt_without_a_supervisor_is_given_up_for_good(host):
    host.open()
    place = host.root / "attempts" / "local" / "left"
    job_id = host.python("import time; time.sleep(1.0)")
    (path,) = (host.root / "attempts" / "local").iterdir()
    host.manager.close()
    host.over()
    eventually((path / "exit.json").exists, what="the supervisor's last word")
    # As a manager leaves it that is killed between the claim and the supervisor's first word.
    for name in ("supervisor.json", "exit.json"):
        (path / name).unlink()
    path.rename(place)
    host.registry.away = True
    manager = host.open()
    (runner,) = manager.running()
    late = runner.attempt.start()
    assert late.wait(30) == 3
    host.registry.away = False
    assert host.report(job_id).ended is Ended.ABANDONED
    assert len(host.ledger()) == 2


def test_another_lease_is_renewed_for_at_once_and_jobs_that_start_get_its_leash(host):
    # A renewal would come after ten minutes.
    manager = host.open(lease=2400.0)
    job_id = host.python(STAY)
    host.started()
    before = host.registry.renewed[job_id]
    manager.take_lease(1200.0, None)
    eventually(lambda: host.registry.renewed[job_id] > before, what="a renewal")
    manager.take_lease(0.4, 99.0)
    once = host.registry.renewed[job_id]
    eventually(lambda: host.registry.renewed[job_id] > once + 3, what="renewals at the new pace")
    later = host.python(STAY)
    leashes = {
        spec["job_id"]: spec["leash_seconds"]
        for spec in (
            json.loads(path.read_text()) for path in host.root.glob("attempts/*/*/spec.json")
        )
    }
    assert leashes == {job_id: 3 * 2400.0 + 15.0, later: 99.0}


def test_a_manager_whose_renewer_hangs_no_longer_says_that_it_lives(host, monkeypatch):
    monkeypatch.setattr(logic, "HANGS", 0.3)
    manager = host.open()
    assert manager.alive()
    go, renew = threading.Event(), host.registry.renew
    monkeypatch.setattr(host.registry, "renew", lambda leases: (go.wait(30), renew(leases))[1])
    host.python(STAY)
    eventually(lambda: not manager.alive(), what="a manager that is given up")
    go.set()
    eventually(manager.alive, what="a manager that lives")
