"""`shoal top`, `shoal ps --watch`, `shoal doctor` and completion beside a whole fleet."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

SHOAL = Path(sys.executable).with_name("shoal")
DEADLINE = 60.0


@pytest.fixture
def shoal(fleet):
    def run(*arguments, code=0, **environment):
        done = subprocess.run(
            [SHOAL, "--fleet", fleet.fleet.directory, *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    return run


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *command):
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            os.execv(SHOAL, ["shoal", *map(str, command)])
        fcntl.ioctl(self.file, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
        self.before = termios.tcgetattr(self.file)
        self.shown = b""

    def until(self, text):
        """Reads until it has shown a text since the last time."""
        seen, deadline = len(self.shown), time.monotonic() + DEADLINE
        while text not in self.shown[seen:]:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.file], [], [], max(left, 0.0))
            assert ready, self.shown.decode(errors="replace")
            self.shown += os.read(self.file, 65536)

    def press(self, key):
        os.write(self.file, key)

    def end(self):
        """Its exit code, when it has ended, and whether the terminal is as before."""
        try:
            while data := os.read(self.file, 65536):
                self.shown += data
        except OSError:
            pass  # its end
        clean = termios.tcgetattr(self.file) == self.before
        os.close(self.file)
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status), clean


# Where a screen of its own begins and ends, and where the cursor is shown again.
ENTER, LEAVE, CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


def test_top_shows_what_each_replica_says_of_itself(shoal):
    shoal("submit", "nap", "-p", "seconds=0.1", "--count", "4", "--wait")
    found = json.loads(shoal("top", "--once", "--interval", "0.5", "--json"))
    assert found["directory"] == "connected"
    assert found["jobs"]["by_state"]["SUCCEEDED"] >= 4
    rows = found["replicas"]
    assert {row["service"] for row in rows} == {"registry", "api", "scheduler", "appmanager"}
    for row in rows:
        assert (row["state"], row["fault"]) == ("UP", None)
        assert row["latency_ms"] > 0.0
        # It was asked itself, so calls have ended there.
        assert row["calls_per_second"] > 0.0
        assert (row["slots"] == 2) == (row["service"] == "appmanager")
        assert (row["utilisation"] is not None) == (row["service"] == "appmanager")
    started = [row["jobs_per_second"] for row in rows if row["service"] in SCHEDULING]
    assert all(each is not None for each in started)


SCHEDULING = ("scheduler", "appmanager")


def test_top_sees_jobs_run(shoal):
    shoal("submit", "nap", "-p", "seconds=20", "--count", "1")
    for _ in range(20):
        rows = json.loads(shoal("top", "--once", "-n", "0.2", "--json", "-s", "appmanager"))
        busy = [row for row in rows["replicas"] if row["jobs_running"]]
        if busy:
            break
    assert busy[0]["utilisation"] == 0.5
    for job in json.loads(shoal("jobs", "--state", "running", "--json")):
        shoal("cancel", job["id"])


def test_top_on_a_terminal_sorts_by_keys_and_leaves_it_clean(fleet):
    top = Terminal("--fleet", fleet.fleet.directory, "top", "-n", "0.3")
    top.until(b"service \xe2\x86\x91")
    top.press(b"u")
    top.until(b"util \xe2\x86\x93")
    top.press(b"u")
    top.until(b"util \xe2\x86\x91")
    top.press(b"q")
    assert top.end() == (0, True)
    assert top.shown.index(ENTER) < top.shown.rindex(LEAVE)
    assert top.shown.endswith(CURSOR + LEAVE) or top.shown.endswith(LEAVE + CURSOR)


@pytest.mark.parametrize("command", [["top", "-n", "0.3"], ["ps", "--watch"]], ids=" ".join)
def test_ctrl_c_leaves_the_terminal_clean(fleet, command):
    shown = Terminal("--fleet", fleet.fleet.directory, *command)
    shown.until(b"registry-1")
    shown.press(b"\x03")
    assert shown.end() == (130, True)
    assert shown.shown.rindex(LEAVE) > shown.shown.index(ENTER)
    assert b"Traceback" not in shown.shown


def test_ps_watch_tells_of_a_replica_that_goes_and_comes(fleet, shoal):
    watching = subprocess.Popen(
        [SHOAL, "--fleet", fleet.fleet.directory, "ps", "--watch", "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def status():
        document = json.loads(watching.stdout.readline())
        return next(each for each in document["replicas"] if each["id"] == "api-3")["status"]

    try:
        assert status() == "UP"
        fleet.fleet.kill("api-3")
        while status() != "DOWN":
            pass
        fleet.fleet.start("api-3")
        while status() != "UP":
            pass
    finally:
        watching.send_signal(signal.SIGINT)
        _, said = watching.communicate(timeout=DEADLINE)
        if not fleet.fleet.running("api-3"):
            fleet.fleet.start("api-3")
    assert (watching.returncode, said.strip()) == (130, "")


def test_doctor_finds_a_whole_fleet_well(shoal, tmp_path):
    found = json.loads(shoal("doctor", "--json", "--objects", f"file://{tmp_path}"))
    seen = {each["what"]: each["verdict"] for each in found["findings"]}
    assert found["problems"] == 0
    for what in ("Java", "ZooKeeper session", "clock", "service registry", "processes"):
        assert seen[what] == "ok"
    assert all(each["mend"] for each in found["findings"] if each["verdict"] != "ok")


def test_doctor_says_how_to_mend_what_is_broken(fleet, shoal):
    fleet.fleet.kill("scheduler-2")
    try:
        said = shoal("doctor", "--quiet", "--port", fleet.target_of("api"), code=1)
    finally:
        fleet.fleet.start("scheduler-2")
    assert "process of scheduler-2: does not run" in said
    assert "shoal start scheduler-2" in said
    assert "Address already in use" in said


def test_a_shell_is_offered_the_newest_jobs(fleet, shoal):
    job = json.loads(shoal("submit", "nap", "-p", "seconds=0.1", "--json"))[0]["id"]
    words = f"shoal --fleet {fleet.fleet.directory} logs {job[:4]}"
    said = shoal(_SHOAL_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD="4")
    assert job in said.split()
