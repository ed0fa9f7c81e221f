"""Only the right processes are ended."""

import os
import signal
import sys
import uuid

import pytest

from shoal_gateway.fleet import processes
from tests.support.waiting import eventually

SLEEPER = [sys.executable, "-c", "import signal; signal.pause()"]


@pytest.fixture
def marks():
    found = {processes.FLEET_MARK: uuid.uuid4().hex, processes.HOST_MARK: "host-1"}
    yield found
    processes.kill_marked({processes.FLEET_MARK: found[processes.FLEET_MARK]})


def start(marks, tmp_path, command=SLEEPER):
    return processes.spawn(command, log=tmp_path / "log", environment=marks)


def test_a_process_is_its_number_and_its_start_time(marks, tmp_path):
    process = start(marks, tmp_path)
    assert processes.alive(process)
    impostor = processes.Identity(process.pid, process.started + 1)
    assert not processes.alive(impostor)
    assert not processes.send(impostor, signal.SIGKILL)
    assert processes.alive(process)
    assert processes.send(process, signal.SIGKILL)
    assert processes.wait_gone([process], 10.0) == []


def test_a_host_is_killed_with_all_that_its_processes_started(marks, tmp_path):
    forker = "import os, signal; os.fork(); os.setsid() if os.fork() == 0 else 0; signal.pause()"
    start(marks, tmp_path, [sys.executable, "-c", forker])
    # Two forks in a row are four processes, two of which leave their session.
    eventually(lambda: len(list(processes.marked(marks))) == 4)
    other = start({**marks, processes.HOST_MARK: "host-2"}, tmp_path)

    assert processes.kill_marked(marks) == 4

    assert list(processes.marked(marks)) == []
    assert processes.alive(other)


def test_this_process_is_never_among_the_marked(marks, monkeypatch):
    assert all(p.pid != os.getpid() for p in processes.marked({}))
