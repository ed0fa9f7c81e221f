"""The supervisor as a real process: how jobs end, and that nothing of them survives."""

import json
import os
import signal
import sys
import time
import uuid
from pathlib import Path

import pytest

from shoal_gateway.appmanager import attempt as attempts
from shoal_gateway.appmanager import supervisor
from shoal_gateway.appmanager.attempt import Attempt, Spec
from tests.support.waiting import eventually

# Starts three processes and writes down all four ids: a plain child, one in a session of its own,
# and a daemon: forked twice, so that its parent has ended. The latter two are deaf to SIGTERM and
# have no environment to be found by.
TREE = """
import os, signal, subprocess, sys, time
fork = "import os, sys; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0); "
say = "open('daemon.tmp', 'w').write(str(os.getpid())); os.rename('daemon.tmp', 'daemon'); "
sleep = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)"
quiet = dict(start_new_session=True, env={})
detached = subprocess.Popen([sys.executable, "-c", sleep], **quiet)
plain = subprocess.Popen([sys.executable, "-c", sleep])
subprocess.run([sys.executable, "-c", fork + say + sleep], env={})
while not os.path.exists("daemon"):
    time.sleep(0.01)
daemon = int(open("daemon").read())
with open("pids.tmp", "w") as file:
    print(os.getpid(), detached.pid, plain.pid, daemon, file=file)
os.rename("pids.tmp", "pids")
"""
STAY = TREE + "time.sleep(3600)"


class Job:
    """An attempt whose supervisor was started, without a manager."""

    def __init__(self, root, command, wall=0.0, memory=0, leash=0.0):
        runner_id = str(uuid.uuid4())
        self.ledger = root / "ledger.jsonl"
        place = root / "attempts"
        spec = Spec(
            job_id=str(uuid.uuid4()),
            attempt=1,
            runner_id=runner_id,
            command=tuple(command),
            environment=attempts.environment("job", 1, runner_id, place, root / "cache"),
            outputs=(),
            wall_seconds=wall,
            memory_mib=memory,
            ledger=str(self.ledger),
            leash_seconds=leash,
        )
        self.attempt = Attempt.create(place, spec)
        self.process = self.attempt.start()

    def ended(self):
        self.process.wait(60)
        return self.attempt.exit

    def stream(self, name):
        return (self.attempt.path / name).read_text()

    def pids(self):
        path = self.attempt.work / "pids"
        eventually(path.exists, what="the job's tree")
        pids = [int(pid) for pid in path.read_text().split()]
        assert len(pids) == 4
        return pids

    def entries(self):
        return [json.loads(line) for line in self.ledger.read_text().splitlines()]


def alive(pid):
    return supervisor.start_ticks(pid) is not None


def all_gone(pids):
    return eventually(lambda: not any(alive(pid) for pid in pids), what="the end of the tree")


@pytest.fixture
def run(tmp_path):
    jobs = []

    def start(*command, **limits):
        jobs.append(Job(tmp_path, command, **limits))
        return jobs[-1]

    yield start
    for job in jobs:
        job.process.kill()
        job.process.wait(30)


def python(code):
    return sys.executable, "-c", code


def test_output_and_exit_code_are_kept(run):
    job = run(*python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"))
    end = job.ended()
    assert (end.exit_code, end.reason) == (7, "")
    assert (job.stream("stdout"), job.stream("stderr")) == ("out\n", "err\n")
    start, last = job.entries()
    assert (start["event"], last["event"], last["exit_code"]) == ("start", "end", 7)
    for entry in (start, last):
        assert entry["job_id"] == job.attempt.spec.job_id
        assert entry["runner_id"] == job.attempt.spec.runner_id
        assert entry["pid"] > 0


def test_a_job_has_its_own_group_directory_signals_and_little_environment(run):
    job = run(
        *python(
            "import json, os, signal; print(json.dumps([os.getpid() == os.getpgrp(), os.getcwd(),"
            " sorted(os.environ), [int(s) for s in signal.pthread_sigmask(0, [])]]))"
        )
    )
    assert job.ended().exit_code == 0
    leads, directory, names, blocked = json.loads(job.stream("stdout"))
    assert leads
    assert Path(directory) == job.attempt.work
    assert "SHOAL_JOB_ID" in names
    assert "PYTHONPATH" not in names
    assert blocked == []


def test_what_its_manager_ignores_is_no_matter(run):
    # As `nohup` or a careless parent leave it; with SIGCHLD ignored, nobody hears of a child's end.
    ignored = (signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    try:
        job = run("/bin/sh", "-c", "grep SigIgn /proc/self/status; exit 5")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert job.ended().exit_code == 5
    mask = int(job.stream("stdout").split()[1], 16)
    # Not the two below SIGRTMIN: they are the C library's own, and nobody can set them.
    assert [each for each in signal.valid_signals() if mask >> (each - 1) & 1] == []


def test_a_job_killed_by_a_signal_has_its_number_negative(run):
    job = run(*python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"))
    assert job.ended().exit_code == -signal.SIGSEGV


def test_a_command_that_is_not_there_is_said(run):
    end = run("/no/such/program").ended()
    assert end.exit_code == 127
    assert end.reason == "program can't be run: No such file or directory"
    assert "No such file" in end.reason


def test_the_memory_limit_holds(run):
    job = run(*python("x = bytearray(400 << 20)"), memory=200)
    assert job.ended().exit_code == 1
    assert "MemoryError" in job.stream("stderr")


def test_the_wall_limit_ends_the_whole_tree(run):
    job = run(*python(STAY), wall=5.0)
    pids = job.pids()
    end = job.ended()
    assert end.reason == "ran longer than its limit of 5 s"
    # Written down last: by then nothing is left.
    assert not any(alive(pid) for pid in pids)


def test_nothing_that_a_job_leaves_behind_survives_it(run):
    job = run(*python(TREE))
    pids = job.pids()
    assert job.ended().exit_code == 0
    assert not any(alive(pid) for pid in pids)


def test_sigterm_to_the_supervisor_ends_the_tree(run):
    job = run(*python(STAY))
    pids = job.pids()
    job.process.terminate()
    assert job.ended().reason == "ended on request"
    assert not any(alive(pid) for pid in pids)


def test_nothing_survives_a_supervisor_that_is_killed(run):
    job = run(*python(STAY))
    pids = job.pids()
    job.process.kill()
    assert job.ended() is None
    all_gone(pids)
    eventually(lambda: job.entries()[-1]["event"] == "end", what="the ledger's last line")
    assert job.entries()[-1]["cause"] == "supervisor lost"
    assert job.attempt.exit is None


def test_nothing_survives_a_guard_that_is_killed(run):
    job = run(*python(STAY))
    pids = job.pids()
    guard = supervisor.descendants(job.process.pid)[0]
    os.kill(guard, signal.SIGKILL)
    # The supervisor ends without a word on how: that is a loss of the supervisor.
    assert job.ended() is None
    assert not any(alive(pid) for pid in pids)


def test_a_supervisor_that_comes_after_the_attempt_was_given_up_runs_nothing(tmp_path, run):
    first = run(*python("pass"))
    first.ended()
    (first.attempt.path / "exit.json").unlink()
    again = first.attempt.start()
    assert again.wait(30) == 3
    assert [entry["event"] for entry in first.entries()] == ["start", "end"]


def test_ledger_lines_of_many_jobs_stay_whole(run):
    jobs = [run(*python("pass")) for _ in range(8)]
    for job in jobs:
        assert job.ended().exit_code == 0
    entries = jobs[0].entries()
    assert len(entries) == 16
    assert len({entry["runner_id"] for entry in entries}) == 8


def test_a_job_that_no_manager_looks_after_is_ended_when_its_leash_runs_out(run):
    job = run(*python(STAY), leash=1.0)
    pids = job.pids()
    end = job.ended()
    assert (end.cause, end.exit_code) == (supervisor.ORPHANED, -signal.SIGKILL)
    assert end.reason == "no manager looked after it for 1 s"
    assert end.says_nothing
    all_gone(pids)


def test_a_job_that_a_manager_looks_after_outlives_its_leash(run):
    job = run(*python("import time; time.sleep(3)"), leash=1.0)
    # Not by the number of touches: a slow machine may skip some and is not to fail for that.
    while job.process.poll() is None:
        job.attempt.look_after()
        time.sleep(0.05)
    assert (job.attempt.exit.cause, job.attempt.exit.exit_code) == (supervisor.EXITED, 0)


def test_a_job_outlives_a_pause_longer_than_a_wait_of_its_guard(run, tmp_path):
    go = tmp_path / "go"
    wait = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)"
    job = run(*python(wait), leash=8.0)
    eventually(job.ledger.exists, what="its start")
    for _ in range(2):
        tree = [job.process.pid, *supervisor.descendants(job.process.pid)]
        for pid in tree:
            os.kill(pid, signal.SIGSTOP)
        # Looks at the leash are a second apart.
        time.sleep(1.2)
        for pid in tree:
            os.kill(pid, signal.SIGCONT)
    go.touch()
    assert job.ended().cause == supervisor.EXITED


def test_time_that_its_host_stood_still_does_not_count_for_a_leash(tmp_path):
    leash = supervisor.Leash(tmp_path / "leash", 8.0, 100.0)
    assert leash.next_look() == 101.0
    # A day passes between two looks: at most two looks' worth of it counts.
    assert not leash.ran_out(100_000.0)
    assert not leash.ran_out(100_000.5)
    assert not leash.ran_out(100_005.0)
    assert not leash.ran_out(100_007.0)
    assert leash.ran_out(100_009.0)


def test_a_touch_gives_the_whole_leash_again(tmp_path):
    path = tmp_path / "leash"
    path.touch()
    leash = supervisor.Leash(path, 8.0, 0.0)
    assert not any(leash.ran_out(float(now)) for now in range(1, 8))
    os.utime(path, (1.0, 1.0))  # whatever the clock on the wall says
    assert not any(leash.ran_out(float(now)) for now in range(8, 16))
    assert leash.ran_out(16.0)


def test_without_a_leash_nobody_looks(tmp_path):
    leash = supervisor.Leash(tmp_path / "leash", 0.0, 0.0)
    assert leash.next_look() is None
    assert not leash.ran_out(1e9)
