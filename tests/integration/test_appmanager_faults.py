"""Managers, supervisors and registries that die, hang or come back late: one execution, one end."""

import contextlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import grpc

from shoal_protos.gateway.appmanager.v1 import appmanager_pb2, appmanager_pb2_grpc
from tests.support.hosts import DEADLINE, TREE, alive, gone, hosts, tree
from tests.support.waiting import eventually

__all__ = ["hosts"]

# Ends when the test says so; writes an output.
WAIT = """
import os, time
while not os.path.exists({go!r}):
    time.sleep(0.02)
open("x", "w").write({text!r})
"""
STAY = "import time; time.sleep(3600)"


def wait_for(go, text="done"):
    return WAIT.format(go=str(go), text=text)


def test_a_start_that_hangs_and_is_retried_elsewhere_runs_one_process(hosts):
    for number in (1, 2):
        hosts.manager(number)
    hosts.directory.ready("appmanager", 30, count=2)
    job_id = hosts.submit("import time; time.sleep(0.5)")
    offer = hosts.lease()
    # Begin hangs, so the first Start outlasts its attempt's time and is sent to the second.
    hosts.pause("registry-1")
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(hosts.offer, offer, attempt_timeout=1.0)
        for number in (1, 2):
            place = hosts.host(number) / "attempts" / "local"
            eventually(lambda place=place: any(place.iterdir()), what=f"a Start at {number}")
        hosts.resume("registry-1")
        job = hosts.ended(job_id)
        # Whatever its caller hears, the job was begun by one of the two only.
        starting.exception(DEADLINE)
    assert (job.attempt, len(job.attempts)) == (1, 1)
    assert len(hosts.starts(job_id)) == 1
    eventually(
        lambda: not any(p for n in (1, 2) for p in (hosts.host(n) / "attempts/local").iterdir()),
        what="empty hosts",
    )
    assert hosts.state(job_id) == "SUCCEEDED"


def test_a_manager_that_wakes_with_an_old_offer_runs_nothing(hosts):
    for number in (1, 2):
        hosts.manager(number)
    hosts.directory.ready("appmanager", 30, count=2)
    job_id = hosts.submit("import time; time.sleep(0.3)")
    offer = hosts.lease()
    hosts.pause("appmanager-1")
    assert hosts.offer(offer, attempt_timeout=1.0) == "VERDICT_STARTED"
    hosts.resume("appmanager-1")
    assert hosts.offer(offer, to="appmanager-1") == "VERDICT_TAKEN"
    assert hosts.reaches(job_id, "SUCCEEDED").attempts[0].host == "host-2"
    assert len(hosts.starts(job_id)) == 1


def test_a_paused_manager_reports_late_and_the_fence_refuses_it(hosts, tmp_path):
    go = tmp_path / "go"
    first = hosts.manager(1, lease=1.0)
    hosts.manager(2, lease=30.0)
    job_id = hosts.submit(wait_for(go), outputs=["x"])
    assert hosts.offer(hosts.lease(), to=first) == "VERDICT_STARTED"
    (stale,) = hosts.job(job_id).attempts
    hosts.pause(first)
    hosts.reaches(job_id, "QUEUED")
    # The supervisor was not paused: the old attempt succeeds, and its manager is to say so.
    go.touch()
    eventually(lambda: hosts.last(1) == "end", what="the old attempt's end")
    go.unlink()
    assert hosts.offer(hosts.lease(), to="appmanager-2") == "VERDICT_STARTED"
    hosts.resume(first)
    late = f"(succeeded, 1 files) was refused: fence {stale.fence} is old"
    eventually(lambda: late in hosts.log(first), DEADLINE, "the refusal")
    # What it wanted to publish was really stored, and counts for nothing.
    prefix = f"jobs/{job_id}/attempt-1/{stale.runner_id}/outputs/"
    assert [each.key for each in hosts.objects.list(prefix)] == [f"{prefix}x"]
    assert hosts.state(job_id) == "RUNNING"
    go.touch()
    job = hosts.reaches(job_id, "SUCCEEDED")
    assert job.manifest.attempt == 2
    assert job.manifest.runner_id == job.attempts[1].runner_id != stale.runner_id
    assert [attempt.outcome for attempt in job.attempts] == ["lease lost", "succeeded"]


def test_a_paused_manager_that_lost_a_running_job_ends_it(hosts):
    first = hosts.manager(1, lease=1.0)
    job_id = hosts.submit(STAY)
    hosts.offer(hosts.lease(), to=first)
    hosts.pause(first)
    hosts.reaches(job_id, "QUEUED")
    (start,) = eventually(lambda: hosts.starts(job_id), what="the start")
    assert alive(start["pid"])
    hosts.resume(first)
    gone([start["pid"]])
    eventually(lambda: not hosts.running(first), what="an idle manager")
    assert hosts.state(job_id) == "QUEUED"


def test_a_killed_managers_job_is_adopted_and_runs_once(hosts, tmp_path):
    go = tmp_path / "go"
    name = hosts.manager(lease=20.0)
    job_id = hosts.submit(wait_for(go), outputs=["x"])
    hosts.offer(hosts.lease())
    (running,) = hosts.running(name)
    hosts.kill(name)
    hosts.manager(lease=20.0)
    (adopted,) = hosts.running(name)
    assert adopted.supervisor_pid == running.supervisor_pid
    assert adopted.runner_id == running.runner_id
    go.touch()
    job = hosts.reaches(job_id, "SUCCEEDED")
    assert (job.attempt, job.manifest.runner_id) == (1, running.runner_id)
    assert hosts.content(job, "x") == b"done"
    assert len(hosts.starts(job_id)) == 1


def test_a_manager_that_is_told_to_end_leaves_its_jobs_to_the_next(hosts, tmp_path):
    go = tmp_path / "go"
    name = hosts.manager(lease=30.0)
    job_id = hosts.submit(wait_for(go))
    hosts.offer(hosts.lease())
    (running,) = hosts.running(name)
    assert hosts.terminate(name) == 0
    assert alive(running.supervisor_pid)
    go.touch()
    # Ends while nobody manages it; the next one reads from disk how.
    gone([running.supervisor_pid])
    hosts.manager(lease=30.0)
    assert hosts.reaches(job_id, "SUCCEEDED").attempt == 1
    assert len(hosts.starts(job_id)) == 1


def test_a_manager_that_leaves_takes_no_more_jobs(hosts):
    name = hosts.manager()
    hosts.submit(STAY)
    request = appmanager_pb2.StartRequest(offers=[hosts.lease()])
    (replica,) = hosts.directory.ready("appmanager", 30)
    with grpc.insecure_channel(replica.target) as channel:
        stub = appmanager_pb2_grpc.AppManagerStub(channel)
        stub.Status(appmanager_pb2.StatusRequest(), timeout=DEADLINE)
        hosts.processes[name].terminate()
        watch = hosts.directory.watch("appmanager")
        eventually(lambda: not any(each.routable for each in watch.replicas()), what="the drain")
        # It serves for a while longer, for those that have not heard.
        with contextlib.suppress(grpc.RpcError):
            (item,) = stub.Start(request, timeout=DEADLINE).items
            assert item.verdict == appmanager_pb2.StartResponse.VERDICT_FULL
    assert hosts.processes[name].wait(DEADLINE) == 0
    assert hosts.ledger() == []


def test_a_job_whose_host_shuts_down_runs_elsewhere_and_has_not_failed(hosts, tmp_path):
    go = tmp_path / "go"
    for number in (1, 2):
        hosts.manager(number)
    job_id = hosts.submit(wait_for(go), outputs=["x"])
    assert hosts.offer(hosts.lease(), to="appmanager-1") == "VERDICT_STARTED"
    (running,) = hosts.running("appmanager-1")
    eventually(lambda: hosts.starts(job_id), what="the start")
    os.kill(running.supervisor_pid, signal.SIGTERM)
    hosts.reaches(job_id, "QUEUED")
    assert hosts.offer(hosts.lease(), to="appmanager-2") == "VERDICT_STARTED"
    go.touch()
    job = hosts.reaches(job_id, "SUCCEEDED")
    assert [attempt.outcome for attempt in job.attempts] == ["abandoned", "succeeded"]
    assert (job.toxic_losses, job.failures) == (0, 0)


def test_a_job_whose_supervisors_die_is_quarantined_and_nothing_survives(hosts):
    name = hosts.manager()
    hosts.start("scheduler", 1, "--poll", "0.1")
    job_id = hosts.submit(TREE)
    for losses in (1, 2, 3):
        pids = tree(hosts)
        (running,) = hosts.running(name)
        os.kill(running.supervisor_pid, signal.SIGKILL)
        gone(pids)
        eventually(lambda losses=losses: hosts.job(job_id).toxic_losses == losses, DEADLINE)
    job = hosts.reaches(job_id, "DEAD")
    assert (job.attempt, job.toxic_losses) == (3, 3)
    assert {attempt.outcome for attempt in job.attempts} == {"supervisor lost"}
    assert "quarantined" in job.reason
    # Each attempt ended before the next began.
    events = [entry["event"] for entry in hosts.ledger()]
    assert events == ["start", "end"] * 3
