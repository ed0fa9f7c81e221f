"""Jobs through real registry, scheduler and app managers: limits, cancel, flavors, retries."""

import json
from pathlib import Path

from shoal_protos.gateway.model.v1 import job_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2
from tests.support.hosts import DEADLINE, TREE, gone, hosts, tree

__all__ = ["hosts"]

FLAVORS = Path(__file__).parents[2] / "build" / "flavors"


def test_cancel_kills_the_whole_tree(hosts):
    name = hosts.manager()
    job_id = hosts.submit(TREE)
    hosts.offer(hosts.lease())
    pids = tree(hosts)
    request = registry_pb2.CancelJobRequest(id=job_id, reason="changed my mind")
    assert hosts.registry.CancelJob(request, timeout=DEADLINE).job.cancelling
    job = hosts.reaches(job_id, "CANCELLED")
    # Its runner said so, after the kill; no lease had to run out.
    assert [attempt.outcome for attempt in job.attempts] == ["cancelled"]
    assert not job.HasField("manifest")
    gone(pids)
    assert hosts.running(name) == []


def test_limits_fail_the_job_and_say_so(hosts):
    hosts.manager()
    hosts.start("scheduler", 1, "--poll", "0.1")
    slow = hosts.submit(TREE, resources=job_pb2.Resources(wall_seconds=2.0))
    large = hosts.submit(
        "x = bytearray(600 << 20)", resources=job_pb2.Resources(memory_mib=300, wall_seconds=60)
    )
    pids = tree(hosts)
    job = hosts.ended(slow)
    assert job_pb2.State.Name(job.state) == "STATE_FAILED"
    assert "limit of 2 s" in job.reason
    gone(pids)
    job = hosts.ended(large)
    assert (job_pb2.State.Name(job.state), job.exit_code) == ("STATE_FAILED", 1)
    runner = job.attempts[0].runner_id
    logs = hosts.objects.list(f"jobs/{large}/attempt-1/{runner}/logs/stderr/")
    assert b"MemoryError" in b"".join(b"".join(hosts.objects.get(each.key)) for each in logs)


def test_a_retryable_exit_code_starts_it_again(hosts, tmp_path):
    hosts.manager()
    hosts.start("scheduler", 1, "--poll", "0.1")
    once = tmp_path / "once"
    code = (
        f"import os\nif not os.path.exists({str(once)!r}): open({str(once)!r}, 'w'); os._exit(75)"
    )
    job_id = hosts.submit(code, retryable_exit_codes=[75], max_failures=3)
    job = hosts.reaches(job_id, "SUCCEEDED")
    assert (job.attempt, job.failures) == (2, 1)
    assert [attempt.outcome for attempt in job.attempts] == ["failed", "succeeded"]


def test_jobs_reach_their_flavor_and_its_library(hosts):
    code = "import json, numpy; json.dump(numpy.__version__, open('v.json', 'w'))"
    for number, flavor in ((1, "local"), (2, "local-legacy")):
        python = FLAVORS / flavor / "bin" / "python"
        hosts.manager(number, flavor=flavor, python=python)
    hosts.start("scheduler", 1, "--poll", "0.1")
    jobs = {
        flavor: [hosts.submit(code, flavor=flavor, outputs=["v.json"]) for _ in range(3)]
        for flavor in ("local", "local-legacy")
    }
    for flavor, major, host in (("local", "2", "host-1"), ("local-legacy", "1", "host-2")):
        for job_id in jobs[flavor]:
            job = hosts.reaches(job_id, "SUCCEEDED")
            assert json.loads(hosts.content(job, "v.json")).partition(".")[0] == major
            assert [attempt.host for attempt in job.attempts] == [host]


def test_more_jobs_than_slots_all_run_once(hosts):
    for number in (1, 2):
        hosts.manager(number)
    hosts.start("scheduler", 1, "--poll", "0.1")
    jobs = [hosts.submit("import time; time.sleep(0.2)") for _ in range(12)]
    for job_id in jobs:
        assert hosts.reaches(job_id, "SUCCEEDED", "FAILED", "DEAD").attempt == 1
        assert len(hosts.starts(job_id)) == 1
    assert {hosts.state(job_id) for job_id in jobs} == {"SUCCEEDED"}
