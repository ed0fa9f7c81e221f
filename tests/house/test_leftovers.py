"""What a run of tests leaves running is told, and ended, also when the run itself is killed."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
LEAVING = """
import pathlib, subprocess, time

def test_one_that_leaves_a_process():
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    process.returncode = 0
    pathlib.Path({pid!r}).write_text(str(process.pid))
    time.sleep({seconds})
"""


@pytest.fixture
def leaving(tmp_path):
    """Starts a run whose only test leaves a process; the run, and a function of who was left."""
    runs = []

    def start(seconds, *arguments):
        pid = tmp_path / "pid"
        (tmp_path / "test_leaving.py").write_text(LEAVING.format(pid=str(pid), seconds=seconds))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "-p", "no:cacheprovider"]
        command += ["-c", ROOT / "pyproject.toml", *arguments, tmp_path / "test_leaving.py"]
        run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        runs.append(run)
        return run, lambda: int(eventually(lambda: pid.exists() and pid.read_text(), 30.0))

    yield start
    for run in runs:
        run.kill()
        run.wait()
        run.stdout.close()


def gone(pid):
    try:
        # Of a zombie nothing can be read.
        return not Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return True


def test_a_process_that_is_left_fails_the_run_and_is_ended(leaving):
    # In a worker, as most runs have them.
    run, left = leaving(0, "-n", "1")
    printed, _ = run.communicate(timeout=60)
    assert run.returncode == 1, printed
    assert f"left running by a test: {left()} sleep 600" in printed
    eventually(lambda: gone(left()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_takes_what_it_started_along(leaving, number):
    run, left = leaving(600)
    pid = left()
    run.send_signal(number)
    eventually(lambda: gone(pid), 30.0)
    printed, _ = run.communicate(timeout=60)
    assert ("KeyboardInterrupt" in printed) == (number == signal.SIGTERM)
