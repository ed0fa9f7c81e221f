"""The shell that hosts boot with, run on programs of a test's own."""

import os
import subprocess

from tests.support.terraform import REPOSITORY

COMMON = REPOSITORY / "terraform/shared/common.sh"
CERTIFICATES = REPOSITORY / "terraform/shared/certificates.sh"
ZOOKEEPER = REPOSITORY / "terraform/modules/zookeeper/zookeeper.sh"
TLS = REPOSITORY / "terraform/modules/zookeeper/tls.sh"
SERVICES = REPOSITORY / "terraform/modules/fleet/services.sh"
PUT = REPOSITORY / "terraform/put-certificates.sh"

# Disks have programs that Debian keeps off everybody's path.
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"


class Shell:
    """Runs lines after the scripts' functions, with programs of the test's own in front."""

    def __init__(self, directory):
        self.directory = directory
        self.programs = directory / "bin"
        self.programs.mkdir()
        self.calls = directory / "calls"
        self.calls.touch()

    def program(self, name, lines=""):
        """Puts a program on the path, which writes down its arguments first."""
        path = self.programs / name
        path.write_text(f'#!/bin/bash\nprintf "%s\\n" "{name} $*" >>{self.calls}\n{lines}\n')
        path.chmod(0o755)

    def called(self):
        return self.calls.read_text().splitlines()

    def run(self, *scripts, lines, environment=(), code=0):
        script = "\n".join([*(f". {each}" for each in scripts), lines])
        done = subprocess.run(
            ["bash", "-c", script],
            env={
                "PATH": f"{self.programs}:{PATH}",
                "RETRY_PAUSE": "0",
                "DISKS": str(self.directory / "disks"),
                **dict(environment),
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done
