"""A Docker engine of a test's own, and a base image made of this machine: nothing can be pulled.

The engine has its own data, socket and processes, no bridge and no rules in the machine's firewall.
The base is Debian-like in small: this machine's Python with the libraries that it and the wheels
need, a shell, mkdir and chown.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
WHEELS = ROOT / "build" / "wheels"
PROGRAMS = ("/bin/sh", "/bin/mkdir", "/bin/chown")
# Parts of Python's library that no service needs.
LEFT_OUT = {"site-packages", "dist-packages", "test", "idlelib", "tkinter", "turtledemo", "lib2to3"}


def missing():
    """Why no engine can be started here; empty when one can."""
    if os.geteuid() != 0:
        return "a Docker engine needs root"
    if not (shutil.which("dockerd") and shutil.which("docker")):
        return "dockerd is not installed (apt-get install docker.io)"
    if not (WHEELS / ".stamp").exists():
        return "the image's wheels are not at hand (scripts/wheels.sh)"
    return ""


class Engine:
    """dockerd, as long as the block lasts. Its images stay, so that the next build is short.

    Raises:
        OSError: it does not start here; says why.
    """

    def __init__(self) -> None:
        self._data = ROOT / "build" / "docker"
        self._data.mkdir(parents=True, exist_ok=True)
        # Sockets have short names.
        self._run = Path(tempfile.mkdtemp(prefix="shoal-docker-"))
        self._socket = f"unix://{self._run}/s"

    def __enter__(self):
        # Two runs of tests in one checkout must not have two engines on the same data.
        self._lock = (self._data / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        command = ["dockerd", "--data-root", self._data / "data", "--exec-root", self._run / "x"]
        command += ["--host", self._socket, "--pidfile", self._run / "pid", "--bridge", "none"]
        command += ["--iptables=false", "--ip6tables=false"]
        self.log = self._run / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            eventually(self._answers, 60.0, "the engine's answer")
            # Of a run that was killed.
            self.clear()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_):
        try:
            self.clear()
        finally:
            self._end()

    def _end(self):
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(60)
        self._lock.close()
        shutil.rmtree(self._run, ignore_errors=True)

    def _answers(self):
        if self._process.poll() is not None:
            raise OSError(f"dockerd can't run here: {self.log.read_text()[-500:]}")
        return self._run_docker("version").returncode == 0

    def _run_docker(self, *arguments, **options):
        # The builder that dockerd itself has: the other one wants a plug-in.
        environment = {**os.environ, "DOCKER_HOST": self._socket, "DOCKER_BUILDKIT": "0"}
        options.setdefault("text", True)
        return subprocess.run(
            ["docker", *map(str, arguments)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **options,
        )

    def docker(self, *arguments, **options):
        """Runs a docker command; its output."""
        done = self._run_docker(*arguments, **options)
        assert done.returncode == 0, f"docker {arguments}: {done.stdout}"
        return done.stdout.strip() if isinstance(done.stdout, str) else done.stdout

    def clear(self):
        """Removes all containers, with their volumes."""
        if names := self.docker("ps", "-aq").split():
            self.docker("rm", "--force", "--volumes", *names)

    def inspect(self, name):
        """What the engine knows of a container or an image."""
        return json.loads(self.docker("inspect", name))[0]

    def build(self, *arguments):
        """Builds the project's image on a base of this machine, without a network; its name."""
        keys = set()
        for name, wheels in (("shoal-base", False), ("shoal-builder", True)):
            changes = ["ENV PATH=/usr/local/bin:/bin"]
            if wheels:
                changes += ["ENV PIP_NO_INDEX=1", "ENV PIP_FIND_LINKS=/wheels"]
            # Imported anew only when it has changed, or all that was built on it is stale.
            key = f"{name}:{_fingerprint(wheels)}"
            keys.add(key)
            if not self.docker("images", "-q", key):
                options = [each for change in changes for each in ("--change", change)]
                with tempfile.TemporaryFile() as tar:
                    _write_base(tar, wheels=wheels)
                    tar.seek(0)
                    self.docker("import", *options, "-", key, stdin=tar)
            self.docker("tag", key, name)
        bases = ["--build-arg", "BASE=shoal-base", "--build-arg", "BUILDER=shoal-builder"]
        build = ["build", "--network", "none", *bases, *arguments]
        # The first stage has a name, so that what is not named any more can be thrown away.
        self.docker(*build, "--target", "builder", "-t", "shoal-built", ROOT)
        self.docker(*build, "-t", "shoal", ROOT)
        for old in self.docker("images", "--format", "{{.Repository}}:{{.Tag}}").split():
            if old not in keys and old.partition(":")[2] not in ("latest", "<none>"):
                self.docker("rmi", old)
        self.docker("image", "prune", "--force")
        return "shoal"


def _fingerprint(wheels):
    facts = [sys.version, str(Path(__file__).stat().st_mtime_ns)]
    if wheels:
        facts += sorted(each.name for each in WHEELS.glob("*.whl"))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _write_base(out, *, wheels):
    version = "python{}.{}".format(*sys.version_info[:2])
    python = Path(os.path.realpath(sys.executable))
    library = Path(sysconfig.get_path("stdlib"))
    objects = [python, *map(Path, PROGRAMS), *library.glob("lib-dynload/*.so")]
    with tarfile.open(fileobj=out, mode="w") as tar:
        # Programs are linked to what they were installed as; here all is in its real place.
        tar.dereference = True
        libraries = _libraries([*objects, *_in_venv()])
        (system,) = {Path(path).parent for path in libraries if Path(path).name == "libc.so.6"}
        for path in sorted(libraries):
            # One that Python brought along goes where all look, whatever its own path was.
            ours = path.startswith(("/lib", "/usr/lib"))
            tar.add(path, path if ours else system / Path(path).name)
        for program in PROGRAMS:
            tar.add(program, program)
        tar.add(python, f"/usr/local/bin/{version}")
        tar.add(library, f"/usr/local/lib/{version}", filter=_needed)
        if Path("/usr/share/python-wheels").is_dir():  # Debian's ensurepip has its wheels there
            tar.add("/usr/share/python-wheels", "/usr/share/python-wheels")
        if wheels:
            for each in WHEELS.glob("*.whl"):
                tar.add(each, f"/wheels/{each.name}")
        link = tarfile.TarInfo("usr/local/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, version
        tar.addfile(link)
        _add(tar, "etc/passwd", b"root:x:0:0::/root:/bin/sh\n")
        for name, mode in (("tmp", 0o1777), ("root", 0o700), ("proc", 0o555), ("var", 0o755)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)


def _add(tar, name, content):
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _needed(entry):
    parts = set(Path(entry.name).parts)
    return None if parts & LEFT_OUT or "__pycache__" in parts else entry


def _in_venv():
    """Compiled parts of what is installed here, which are those of the image too."""
    return [
        each
        for name in ("grpc", "numpy", "matplotlib", "google", "cryptography", "sqlalchemy")
        for each in (Path(sysconfig.get_path("purelib")) / name).rglob("*.so")
    ]


def _libraries(objects):
    """The system's libraries that they are linked with."""
    shown = subprocess.run(["ldd", *objects], capture_output=True, text=True, timeout=60).stdout
    found = set(re.findall(r"(?:=> )?(/\S+) \(0x", shown))
    ours = (str(ROOT), sysconfig.get_path("purelib"))
    return {path for path in found if not path.startswith(ours)}
