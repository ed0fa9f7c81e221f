"""Long jobs outlive the upgrade of their manager; without a successor they run elsewhere, once.

SHOAL_LONG_JOB_SECONDS=60 makes the long job longer than the suite has time for.
"""

import os
import signal
import subprocess

import pytest

from shoal_gateway.appmanager import supervisor
from tests.integration.test_appmanager_faults import STAY, wait_for
from tests.support.hosts import DEADLINE, alive, gone, hosts
from tests.support.waiting import eventually

__all__ = ["hosts"]

LONG = float(os.environ.get("SHOAL_LONG_JOB_SECONDS", "20"))
# What an upgrade gives a replica from SIGTERM to SIGKILL, seconds.
GRACE = 5.0

# Works for so long, by the clock of its own process, and says how long and in which process.
WORK = """
import os, time
end = time.monotonic() + {seconds}
while time.monotonic() < end:
    time.sleep(0.05)
open("x", "w").write(str(os.getpid()))
"""


@pytest.mark.timeout(LONG + 200)
def test_a_long_job_outlives_the_upgrade_of_its_manager(hosts):
    name = hosts.manager(1, "--version", "1.0", lease=30.0)
    job_id = hosts.submit(WORK.format(seconds=LONG), outputs=["x"])
    assert hosts.offer(hosts.lease(), to=name) == "VERDICT_STARTED"
    (before,) = hosts.running(name)
    manager = hosts.processes[name]
    manager.terminate()
    try:
        manager.wait(GRACE)
    except subprocess.TimeoutExpired:
        # The machine has too much to do: so would the upgrade, and the job is not to feel it.
        hosts.kill(name)
    assert alive(before.supervisor_pid)
    hosts.manager(1, "--version", "2.0", lease=30.0)
    (replica,) = hosts.directory.ready("appmanager", 30)
    assert (replica.id, replica.version) == (name, "2.0")
    (after,) = hosts.running(name)
    assert (after.runner_id, after.supervisor_pid) == (before.runner_id, before.supervisor_pid)
    eventually(lambda: hosts.state(job_id) == "SUCCEEDED", LONG + 60.0, "its success")
    job = hosts.job(job_id)
    (start,) = hosts.starts(job_id)
    assert [(each.number, each.outcome) for each in job.attempts] == [(1, "succeeded")]
    assert hosts.content(job, "x") == str(start["pid"]).encode()
    events = [entry["event"] for entry in hosts.ledger()]
    assert events == ["start", "end", "published"]


def left_alone(hosts, go, leash):
    """A job of host 1 whose manager died, and that host 2 has done since; its process's id."""
    first = hosts.manager(1, "--leash", str(leash), lease=2.0)
    hosts.manager(2, lease=30.0)
    job_id = hosts.submit(wait_for(go), outputs=["x"])
    assert hosts.offer(hosts.lease(), to=first) == "VERDICT_STARTED"
    (start,) = eventually(lambda: hosts.starts(job_id), what="the start")
    hosts.kill(first)
    hosts.reaches(job_id, "QUEUED")
    return job_id, start["pid"]


def test_without_a_successor_it_runs_elsewhere_and_who_comes_back_ends_the_old_one(hosts, tmp_path):
    go = tmp_path / "go"
    job_id, pid = left_alone(hosts, go, leash=600.0)
    assert hosts.offer(hosts.lease(), to="appmanager-2") == "VERDICT_STARTED"
    assert alive(pid)
    hosts.manager(1, lease=2.0)
    gone([pid])
    eventually(lambda: not hosts.running("appmanager-1"), what="an idle manager")
    go.touch()
    job = hosts.reaches(job_id, "SUCCEEDED")
    assert [each.outcome for each in job.attempts] == ["lease lost", "succeeded"]
    assert job.manifest.attempt == 2


def test_where_no_manager_ever_comes_back_the_supervisor_ends_its_job(hosts, tmp_path):
    go = tmp_path / "go"
    job_id, pid = left_alone(hosts, go, leash=4.0)
    gone([pid])
    (place,) = (hosts.host(1) / "attempts" / "local").iterdir()
    path = place / supervisor.EXIT
    eventually(path.exists, what="its last words")
    assert supervisor.ORPHANED in path.read_text()
    assert hosts.offer(hosts.lease(), to="appmanager-2") == "VERDICT_STARTED"
    go.touch()
    assert hosts.reaches(job_id, "SUCCEEDED").manifest.attempt == 2
    # Who comes back after all finds it ended, says so too late, and clears it away.
    hosts.manager(1, lease=2.0)
    eventually(lambda: not place.exists(), what="a clean host")
    job = hosts.job(job_id)
    assert [each.outcome for each in job.attempts] == ["lease lost", "succeeded"]
    assert (job.toxic_losses, job.failures) == (0, 0)


def test_a_registry_that_is_away_for_longer_than_a_leash_costs_no_job(hosts):
    name = hosts.manager(1, "--leash", "2.5", lease=2.0)
    job_id = hosts.submit(STAY)
    assert hosts.offer(hosts.lease(), to=name) == "VERDICT_STARTED"
    (start,) = eventually(lambda: hosts.starts(job_id), what="the start")
    hosts.pause("registry-1")
    # Three renewals have failed, each after its own time, and the leash has run out but for them.
    missed = "leases could not be renewed"
    eventually(lambda: hosts.log(name).count(missed) >= 3, DEADLINE, "failed renewals")
    assert alive(start["pid"])
    hosts.kill("registry-1")


def test_a_paused_host_comes_back_late_and_what_it_did_counts_for_nothing(hosts, tmp_path):
    # The Airavata hole: a worker that stood still, all of it, and overwrites its successor.
    go = tmp_path / "go"
    # Not to run out before the pause, however busy the machine: the manager would end the job.
    first = hosts.manager(1, lease=4.0)
    hosts.manager(2, lease=30.0)
    job_id = hosts.submit(
        f"import os\nwho = os.environ['SHOAL_ATTEMPT']\n{wait_for(go)}\nopen('x', 'w').write(who)",
        outputs=["x"],
    )
    assert hosts.offer(hosts.lease(), to=first) == "VERDICT_STARTED"
    (stale,) = hosts.job(job_id).attempts
    (running,) = hosts.running(first)
    eventually(lambda: hosts.starts(job_id), what="the start")
    manager = hosts.processes[first].pid
    tree = [manager, running.supervisor_pid, *supervisor.descendants(running.supervisor_pid)]
    for pid in tree:
        os.kill(pid, signal.SIGSTOP)
    hosts.reaches(job_id, "QUEUED")
    assert hosts.offer(hosts.lease(), to="appmanager-2") == "VERDICT_STARTED"
    go.touch()
    done = hosts.reaches(job_id, "SUCCEEDED")
    assert hosts.content(done, "x") == b"2"
    # The job first, its manager last: so the old attempt succeeds before anybody can end it.
    for pid in tree[1:]:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: hosts.last(1) == "end", what="the old attempt's end")
    os.kill(manager, signal.SIGCONT)
    refused = f"was refused: fence {stale.fence} is old"
    eventually(lambda: refused in hosts.log(first), DEADLINE, "the refusal")
    job = hosts.job(job_id)
    assert (job.manifest, job.version) == (done.manifest, done.version)
    assert hosts.content(job, "x") == b"2"
    assert [each.outcome for each in job.attempts] == ["lease lost", "succeeded"]
