"""The program that drains an instance before it goes, as a real process; moto keeps the hooks."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.awsfront import Leaving, RefusedError
from tests.support.waiting import eventually

INSTANCE = "i-0123456789abcdef0"
STATE = "meta-data/autoscaling/target-lifecycle-state"


@pytest.fixture
def leaving(front, moto, account):
    account.group("g", 0, fleet="blue", role="services")
    made = Leaving(front, moto)
    made.set(INSTANCE, "g", "InService")
    made.hook("g", "drain")
    made.hook("g", "launch", transition="LAUNCHING")
    return made


class Program:
    """The program with a drain that the test holds back and lets go."""

    def __init__(self, directory, *arguments) -> None:
        self.began, self.held = directory / "began", directory / "held"
        self.held.touch()
        self._log = directory / "log"
        drain = directory / "drain.sh"
        drain.write_text(
            "#!/bin/sh\n"
            f"echo $$ >{self.began}.new && mv {self.began}.new {self.began}\n"
            f"while [ -e {self.held} ]; do sleep 0.05; done\nexit $1\n"
        )
        drain.chmod(0o755)
        # Looks more often than the real one has to.
        code = (
            "import sys; from shoal_gateway.aws import lifecycle; "
            "lifecycle.LOOK = lifecycle.AGAIN = 0.05; lifecycle.BEATS = 300 / 0.1; "
            "sys.exit(lifecycle.main(sys.argv[1:]))"
        )
        command = [sys.executable, "-c", code, "--drain", str(drain), *arguments]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [each.replace("DRAIN", str(drain)) for each in command], stdout=log, stderr=log
            )

    def log(self):
        return self._log.read_text()

    def waits(self):
        eventually(
            lambda: "waiting for the end of" in self.log() or self.process.poll() is not None
        )
        assert self.process.poll() is None, self.log()

    def drains(self):
        eventually(self.began.exists, what="the drain")

    def ended(self):
        return self.process.wait(60)

    def close(self):
        self.held.unlink(missing_ok=True)
        self.process.kill()
        self.process.wait()


@pytest.fixture
def program(imds, leaving, tmp_path, monkeypatch):
    for name in ("SHOAL_UNITS", "SHOAL_LIFECYCLE_HOOK", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    made = []

    def start(*arguments):
        made.append(Program(tmp_path, *arguments))
        return made[-1]

    yield start
    for each in made:
        each.close()


def test_an_instance_goes_when_it_has_drained_and_not_before(program, imds, leaving):
    running = program()
    running.waits()
    asked = len(imds.asked)
    eventually(lambda: len(imds.asked) > asked + 4)
    assert not running.began.exists()
    leaving.set(INSTANCE, "g", "Terminating:Wait")
    imds.values[STATE] = "Terminated"
    running.drains()
    eventually(lambda: len(leaving.beats) >= 3, what="heartbeats")
    assert set(leaving.beats) == {"drain"}
    assert leaving.completed == []
    running.held.unlink()
    assert running.ended() == 0, running.log()
    assert leaving.completed == ["drain"]
    assert "hook drain of group g is completed" in running.log()


def test_only_the_hooks_that_are_named_are_completed(program, imds, leaving):
    leaving.hook("g", "somebody-elses")
    leaving.set(INSTANCE, "g", "Terminating:Wait")
    imds.values[STATE] = "Terminated"
    running = program("--hook", "drain")
    running.held.unlink()
    assert running.ended() == 0, running.log()
    assert leaving.completed == ["drain"]
    assert set(leaving.beats) <= {"drain"}


def test_autoscaling_that_fails_is_asked_again(program, imds, leaving, front):
    leaving.set(INSTANCE, "g", "Terminating:Wait")
    front.failing["RecordLifecycleActionHeartbeat"] = [RefusedError("AccessDenied", "no", 403)]
    front.failing["CompleteLifecycleAction"] = [RefusedError("AccessDenied", "no", 403)] * 2
    imds.values[STATE] = "Terminated"
    running = program()
    eventually(lambda: leaving.beats)
    running.held.unlink()
    assert running.ended() == 0, running.log()
    assert leaving.completed == ["drain"]
    assert "access denied" in running.log()


def test_a_hook_that_is_refused_holds_up_no_other(program, imds, leaving):
    leaving.hook("g", "audit")
    leaving.hook("g", "logs")
    leaving.refusing = {"drain"}
    leaving.set(INSTANCE, "g", "Terminating:Wait")
    imds.values[STATE] = "Terminated"
    running = program()
    eventually(lambda: {"audit", "logs"} <= set(leaving.beats), what="heartbeats of the others")
    running.held.unlink()
    eventually(lambda: set(leaving.completed) == {"audit", "logs"})
    leaving.refusing = set()
    assert running.ended() == 0, running.log()
    assert sorted(leaving.completed) == ["audit", "drain", "logs"]


def test_one_that_is_stopped_in_mid_drain_completes_nothing(program, imds, leaving):
    leaving.set(INSTANCE, "g", "Terminating:Wait")
    imds.values[STATE] = "Terminated"
    running = program()
    running.drains()
    drain = int(running.began.read_text())
    running.process.send_signal(signal.SIGTERM)
    assert running.ended() == 0, running.log()
    assert leaving.completed == []
    assert "stopped before the drain was over" in running.log()
    # The next one drains anew, beside no other.
    assert not Path(f"/proc/{drain}").exists()


@pytest.mark.parametrize("kind", ["fails", "hangs", "is missing"])
def test_an_instance_that_can_not_drain_goes_all_the_same(program, imds, leaving, kind):
    leaving.set(INSTANCE, "g", "Terminating:Wait")
    imds.values[STATE] = "Terminated"
    arguments = {
        "fails": ["--drain", "DRAIN 3"],
        "hangs": ["--drain-timeout", "0.5"],
        "is missing": ["--drain", "/no/such/program"],
    }
    running = program(*arguments[kind])
    if kind == "fails":
        running.held.unlink()
    assert running.ended() == 0, running.log()
    assert leaving.completed == ["drain"]
    assert "goes without having drained" in running.log()


def test_a_spot_instance_drains_at_its_notice(program, imds, leaving):
    imds.values["meta-data/events/recommendations/rebalance"] = '{"noticeTime": "soon"}'
    running = program()
    running.waits()
    asked = len(imds.asked)
    eventually(lambda: len(imds.asked) > asked + 4)
    # Advice is not acted on unless that is asked for.
    assert not running.began.exists()
    imds.values["meta-data/spot/instance-action"] = '{"action": "terminate", "time": "now"}'
    running.held.unlink()
    running.drains()
    # Its group hears of it later.
    leaving.set(INSTANCE, "g", "Terminating:Wait")
    assert running.ended() == 0, running.log()
    assert leaving.completed == ["drain"]


def test_metadata_that_is_away_for_a_while_is_told_once(program, imds, leaving):
    running = program()
    running.waits()
    imds.failures = [403] * 5
    eventually(lambda: not imds.failures)
    leaving.set(INSTANCE, "g", "Terminating:Wait")
    imds.values[STATE] = "Terminated"
    running.held.unlink()
    assert running.ended() == 0, running.log()
    assert running.log().count("turned off for this instance") == 1


def test_sigterm_ends_one_that_waits(program, leaving):
    running = program()
    running.waits()
    running.process.send_signal(signal.SIGTERM)
    assert running.ended() == 0
    assert leaving.completed == []


def test_it_says_when_it_is_not_on_ec2(program, imds):
    imds.failures = [403]
    running = program()
    assert running.ended() == 1
    (line,) = running.log().strip().splitlines()
    assert line.startswith("python -m shoal_gateway.aws.lifecycle: the instance metadata service")


def test_the_units_are_those_of_the_environment(monkeypatch, capsys):
    from shoal_gateway.aws import lifecycle

    for units, said in (("shoal-api.service", "stop -- shoal-api.service,"), (None, "shoal-api*")):
        monkeypatch.delenv("SHOAL_UNITS", raising=False)
        if units:
            monkeypatch.setenv("SHOAL_UNITS", units)
        with pytest.raises(SystemExit):
            lifecycle.main(["--help"])
        assert said in capsys.readouterr().out.replace("\n", " ").replace("  ", "")


def test_its_own_unit_is_none_of_those_that_it_stops():
    from fnmatch import fnmatch

    from shoal_gateway.aws.lifecycle import UNITS

    def stopped(unit):
        return any(fnmatch(unit, pattern) for pattern in UNITS.split())

    assert not stopped("shoal-lifecycle.service")
    for ours in ("registry", "api", "scheduler", "appmanager@local", "appmanager@local-legacy"):
        assert stopped(f"shoal-{ours}.service")
