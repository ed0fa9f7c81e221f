"""Jobs that kill their supervisors are quarantined and can be replayed; no innocent job is."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from shoal_gateway.client import Gateway
from shoal_gateway.fleet.processes import kill_marked
from tests.integration.test_appmanager_faults import wait_for
from tests.support.hosts import DEADLINE, hosts
from tests.support.waiting import eventually

__all__ = ["hosts"]

SHOAL = Path(sys.executable).with_name("shoal")
# A job's parent is the guard, and the guard's the supervisor.
PARENT = "os.getppid()"
GRANDPARENT = "int(open(f'/proc/{os.getppid()}/stat').read().rpartition(')')[2].split()[1])"
# Kills one of them until it is cured; writes an output.
TOXIC = """
import os, time
if not os.path.exists({cure!r}):
    os.kill({victim}, 9)
    time.sleep(3600)
open("x", "w").write("cured")
"""


def replay(hosts, job_id, code=0):
    """As a person does; what the command says."""
    done = subprocess.run(
        [SHOAL, "--zookeeper", hosts.hosts, "replay", job_id, "--json"],
        cwd=hosts.root,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout) if code == 0 else done.stderr


@pytest.mark.parametrize("victim", [PARENT, GRANDPARENT], ids=["guard", "supervisor"])
def test_a_job_that_kills_its_own_supervisor_is_quarantined_and_its_neighbour_is_not(
    hosts, tmp_path, victim
):
    cure, go = tmp_path / "cure", tmp_path / "go"
    hosts.start("api")
    hosts.manager(lease=30.0)
    hosts.start("scheduler", 1, "--poll", "0.1")
    neighbour = hosts.submit(wait_for(go), outputs=["x"])
    hosts.reaches(neighbour, "RUNNING")
    toxic = hosts.submit(TOXIC.format(cure=str(cure), victim=victim), outputs=["x"])
    dead = hosts.reaches(toxic, "DEAD")
    assert [each.outcome for each in dead.attempts] == ["supervisor lost"] * 3
    assert (dead.attempt, dead.toxic_losses) == (3, 3)
    assert "quarantined" in dead.reason
    # Who runs beside it notices nothing, and nobody else can be replayed.
    assert hosts.state(neighbour) == "RUNNING"
    assert "only a DEAD job" in replay(hosts, neighbour, code=1)
    go.touch()
    job = hosts.reaches(neighbour, "SUCCEEDED")
    assert (job.attempt, job.toxic_losses) == (1, 0)

    # Not cured yet: it is quarantined anew, after three more.
    (queued,) = replay(hosts, toxic)
    assert queued["id"] == toxic
    again = eventually(
        lambda: job if (job := hosts.job(toxic)).attempt == 6 and job.toxic_losses == 3 else None,
        DEADLINE,
        "the second quarantine",
    )
    assert [each.number for each in again.attempts] == [1, 2, 3, 4, 5, 6]
    cure.touch()
    replay(hosts, toxic)
    job = hosts.reaches(toxic, "SUCCEEDED")
    assert (job.attempt, job.manifest.attempt, job.toxic_losses) == (7, 7, 0)
    assert hosts.content(job, "x") == b"cured"
    gateway = Gateway(hosts.directory, "ada")
    with pytest.raises(grpc.RpcError, match="SUCCEEDED; only a DEAD job") as caught:
        gateway.replay(toxic)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_a_job_whose_hosts_die_again_and_again_is_innocent(hosts, tmp_path, monkeypatch):
    go = tmp_path / "go"
    hosts.start("scheduler", 1, "--poll", "0.1")
    # All that starts from here on is on the host.
    monkeypatch.setenv("SHOAL_HOST", "host-1")
    name = hosts.manager(lease=1.0)
    job_id = hosts.submit(wait_for(go), outputs=["x"])
    starts = []
    for deaths in range(1, 5):
        starts += eventually(lambda: hosts.starts(job_id), what="the start")
        # As a power cut: manager, supervisor and job at once, and the disk with them.
        kill_marked({**hosts.mark, "SHOAL_HOST": "host-1"})
        hosts.processes[name].wait(30)
        shutil.rmtree(hosts.host(1))
        lost = ["lease lost"] * deaths
        eventually(
            lambda lost=lost: [each.outcome for each in hosts.job(job_id).attempts] == lost,
            DEADLINE,
            f"loss number {deaths}",
        )
        hosts.manager(lease=1.0)
    go.touch()
    job = hosts.reaches(job_id, "SUCCEEDED")
    assert (job.attempt, job.toxic_losses, job.failures) == (5, 0, 0)
    assert len({each["runner_id"] for each in starts}) == 4
