"""A machine whose first process is a real systemd: a copy of this one's files in namespaces."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import uuid
from pathlib import Path

from tests.support.docker import ROOT
from tests.support.waiting import eventually

SYSTEMD = Path("/usr/lib/systemd/systemd")
UNITS = ROOT / "deploy" / "systemd"


def missing():
    """Why no such machine can be started here; empty when one can."""
    if os.geteuid() != 0:
        return "namespaces with a systemd of their own need root"
    tools = ("unshare", "nsenter", "pivot_root", "systemd-sysusers")
    if not SYSTEMD.exists() or not all(map(shutil.which, tools)):
        return "systemd is not installed (apt-get install systemd)"
    return ""


class Machine:
    """Boots with the block, ends with it.

    Args:
        place: Directory for what it is made of.
        services: Units to start.
        settings: Content of files in /etc/shoal.
        watchdog: Seconds in which units have to give signs of life.

    Raises:
        OSError: it does not boot here; says why.
    """

    def __init__(self, place, services, settings, *, watchdog) -> None:
        # Named for a control group, too.
        self._place = place / f"shoal-machine-{uuid.uuid4().hex[:8]}"
        self._files = self._place / "files"
        self._services = services
        self._init = ""
        self._lay_out(settings, watchdog)

    def _lay_out(self, settings, watchdog):
        units = self._files / "etc/systemd/system"
        shutil.copytree(UNITS, units, ignore=lambda *_: ["etc", "shoal.sysusers"])
        wants = " ".join(["systemd-journald.service", *self._services])
        (units / "machine.target").write_text(f"[Unit]\nWants={wants}\n")
        # A Python whose own place users can't reach must be told where its library is.
        dropin = units / "shoal-.service.d" / "test.conf"
        dropin.parent.mkdir()
        dropin.write_text(
            f"[Service]\nEnvironment=LD_LIBRARY_PATH=/opt/shoal/base/lib\nWatchdogSec={watchdog}\n"
        )
        sysusers = self._files / "usr/lib/sysusers.d/shoal.conf"
        sysusers.parent.mkdir(parents=True)
        shutil.copy(UNITS / "shoal.sysusers", sysusers)
        for name, content in settings.items():
            path = self._files / "etc/shoal" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        apps = self._files / "var/lib/shoal/host/apps"
        shutil.copytree(ROOT / "examples/nap", apps / "nap")
        catalogue = self._files / "etc/shoal/catalogue"
        catalogue.mkdir(parents=True)
        shutil.copy(ROOT / "examples/nap/nap-1.0.toml", catalogue)
        self._environment()

    def _environment(self):
        """A virtual environment that borrows this one's packages and the checkout's code."""
        version = "python{}.{}".format(*sys.version_info[:2])
        venv = self._files / "opt/shoal/venv"
        site = venv / "lib" / version / "site-packages"
        site.mkdir(parents=True)
        packages = Path(sysconfig.get_path("purelib")).relative_to(ROOT)
        code = [packages, "balancer", "sdk", "services", "protos/gen"]
        (site / "shoal.pth").write_text("".join(f"/opt/shoal/src/{each}\n" for each in code))
        (venv / "pyvenv.cfg").write_text("home = /opt/shoal/base/bin\n")
        (venv / "bin").mkdir()
        (venv / "bin/python").symlink_to(f"/opt/shoal/base/bin/{version}")
        (self._files / "opt/shoal/flavors").mkdir()
        (self._files / "opt/shoal/flavors/local").symlink_to("../venv")

    def __enter__(self):
        script = Path(__file__).with_suffix(".sh")
        self._log = self._place / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["unshare", "--mount", script, self._place, ROOT, sys.base_prefix],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            eventually(self._booted, 60.0, "systemd's start")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _booted(self):
        if self._process.poll() is not None:
            raise OSError(f"systemd can't run here: {self._log.read_text()[-500:]}")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        if not children.strip():
            return False
        self._init = children.split()[0]
        state = self.run("systemctl", "is-system-running").stdout.strip()
        return state in ("running", "degraded", "starting")

    def __exit__(self, *_):
        # With its first process all others of the namespace end, and then its parent.
        if self._process.poll() is None:
            os.kill(int(self._init or self._process.pid), signal.SIGKILL)
        self._process.wait(60)
        tidy = 'mount -t cgroup2 c "$1" && find "$1/$2" -depth -type d -exec rmdir {} ";"'
        place = [str(self._place / "cgroup"), self._place.name]
        subprocess.run(["unshare", "--mount", "sh", "-c", tidy, "sh", *place], timeout=60)

    def run(self, *command):
        """Runs a command on the machine."""
        inside = ["nsenter", "--target", self._init, "--mount", "--pid", "--uts", "--ipc"]
        return subprocess.run(
            [*inside, "--cgroup", *command], capture_output=True, text=True, timeout=120
        )

    def systemctl(self, *arguments):
        done = self.run("systemctl", *arguments)
        assert done.returncode == 0, f"{arguments}: {done.stderr}{self.journal()[-3000:]}"
        return done.stdout.strip()

    def show(self, unit, name):
        """A property of a unit."""
        return self.systemctl("show", "--property", name, "--value", unit)

    def journal(self):
        return self.run("journalctl", "--no-pager", "--output", "cat").stdout
