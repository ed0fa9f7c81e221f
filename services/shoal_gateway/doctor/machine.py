"""This machine: Java, ZooKeeper's jar, addresses and ports, open files, disks, permissions."""

from __future__ import annotations

import os
import re
import resource
import shutil
import socket
import subprocess
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from shoal.testing.installed import ZooKeeperError, find_classpath, find_java, free_port
from shoal_gateway.doctor.findings import Finding, ok, problem, warning
from shoal_gateway.doctor.versions import numbers

# What ZooKeeper 3.8 runs on, and the oldest ZooKeeper whose behaviour ours relies on.
JAVA = 8
ZOOKEEPER = (3, 6)
# Bytes free: below the first something fails soon, below the second in a while.
LITTLE, SOME = 200 << 20, 2 << 30
# Open files: what a process needs by itself, and for each replica that it calls.
FILES, FILES_EACH = 256, 4

_JAVA_VERSION = re.compile(r'version "(?:1\.)?(\d+)[^"]*"')
_POM = "META-INF/maven/org.apache.zookeeper/zookeeper/pom.properties"
_JAR = re.compile(r"zookeeper-(\d[\w.]*)\.jar$")


def java(*, needed: bool) -> Iterator[Finding]:
    """The Java that a local ZooKeeper would run on.

    Args:
        needed: Whether there is one here; a fleet elsewhere needs none.
    """
    try:
        found = find_java()
    except ZooKeeperError as error:
        yield _absent("Java", str(error), needed=needed)
        return
    done = subprocess.run(
        [found, "-version"], capture_output=True, text=True, timeout=30, check=False
    )
    told = done.stderr + done.stdout
    match = _JAVA_VERSION.search(told)
    if match is None:
        mend = "set JAVA_HOME to a Java runtime that works"
        yield problem("Java", f"{found} -version says: {told.strip() or 'nothing'}", mend)
    elif int(match[1]) < JAVA:
        mend = f"install a Java runtime of version {JAVA} or newer"
        yield problem("Java", f"{match[1]} ({found}); ZooKeeper needs {JAVA} or newer", mend)
    else:
        yield ok("Java", f"{match[1]} ({found})")


def jar(*, needed: bool) -> Iterator[Finding]:
    """ZooKeeper's own code.

    Args:
        needed: As with `java`.
    """
    try:
        classpath = find_classpath()
    except ZooKeeperError as error:
        yield _absent("ZooKeeper's jar", str(error), needed=needed)
        return
    path = _jar_in(classpath)
    version = jar_version(path) if path is not None else ""
    if path is None or not version:
        mend = "set ZOOKEEPER_HOME to an unpacked release of ZooKeeper"
        yield warning("ZooKeeper's jar", f"its version can't be told: {classpath}", mend)
    elif numbers(version)[:2] < ZOOKEEPER:
        oldest = ".".join(map(str, ZOOKEEPER))
        mend = f"install ZooKeeper {oldest} or newer"
        yield problem("ZooKeeper's jar", f"{version} ({path}); {oldest} is the oldest", mend)
    else:
        yield ok("ZooKeeper's jar", f"{version} ({path})")


def _absent(what: str, why: str, *, needed: bool) -> Finding:
    if needed:
        return problem(what, why, "install it as it says, or use a fleet elsewhere: --zookeeper")
    return ok(what, "not found, and not needed for a fleet elsewhere")


def _jar_in(classpath: str) -> Path | None:
    for part in classpath.split(":"):
        path = Path(part)
        if path.name == "*":
            found = sorted(each for each in path.parent.glob("zookeeper-*.jar"))
            named = [each for each in found if _JAR.search(each.name)]
            if named:
                return named[0]
        elif path.name.startswith("zookeeper") and path.exists():
            return path.resolve()
    return None


def jar_version(path: Path) -> str:
    """As Maven has written it into the jar, else by its name; empty when neither says."""
    try:
        with zipfile.ZipFile(path) as archive:
            lines = archive.read(_POM).decode("utf-8", "replace").splitlines()
    except (OSError, KeyError, zipfile.BadZipFile):
        lines = []
    for line in lines:
        name, _, value = line.partition("=")
        if name.strip() == "version" and numbers(value.strip()):
            return value.strip()
    match = _JAR.search(path.name)
    return match[1] if match is not None else ""


def addresses(hosts: Iterable[str]) -> Iterator[Finding]:
    """The loopback addresses that stand for a local fleet's hosts, and ports for ZooKeeper."""
    refused = []
    for address in hosts:
        with socket.socket() as probe:
            try:
                probe.bind((address, 0))
            except OSError as error:
                refused.append(f"{address} ({error.strerror})")
    if refused:
        mend = (
            "a local fleet gives each host a loopback address of its own; on macOS they are made"
            " with `sudo ifconfig lo0 alias 127.0.1.1`, or take `shoal up --hosts 1`"
        )
        yield problem("hosts' addresses", f"can't be bound: {', '.join(refused)}", mend)
        return
    try:
        free_port()
    except ZooKeeperError as error:
        yield problem("ports", str(error), "see who holds them: ss -ltnp")
        return
    yield ok("hosts' addresses", "can be bound, and ports are free")


def ports(wanted: Iterable[str]) -> Iterator[Finding]:
    """Ports that somebody means to listen on: ``7400``, ``10.0.0.5:7400``."""
    for text in wanted:
        address, _, port = text.rpartition(":")
        what = f"port {text}"
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address or "0.0.0.0", int(port)))  # noqa: S104 - closed at once
            except OSError as error:
                mend = f"see who listens: ss -ltnp 'sport = :{port}'; or take another port"
                yield problem(what, f"can't be bound: {error.strerror}", mend)
            else:
                yield ok(what, "is free")


def open_files(replicas: int, soft: int | None = None) -> Iterator[Finding]:
    """How many files, and so connections, a process may open.

    Args:
        replicas: How many a process here may come to call.
        soft: The limit; None: this process's.
    """
    if soft is None:
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    wanted = FILES + FILES_EACH * replicas
    if soft == resource.RLIM_INFINITY:
        yield ok("open files", "without a limit")
    elif soft < wanted:
        mend = f"ulimit -n {max(wanted, 4096)}; for systemd's units LimitNOFILE={max(wanted, 4096)}"
        yield problem("open files", f"at most {soft}, and {wanted} may be needed", mend)
    else:
        yield ok("open files", f"at most {soft}")


def disks(places: Iterable[Path]) -> Iterator[Finding]:
    """Space where things are written; a place that is not there yet counts as its parent."""
    seen = set()
    for place in places:
        path = nearest(place)
        device = path.stat().st_dev
        if device in seen:
            continue
        seen.add(device)
        usage = shutil.disk_usage(path)
        what, told = f"disk of {path}", f"{_size(usage.free)} of {_size(usage.total)} free"
        mend = "make room: `shoal down` leaves logs and lost hosts' directories in the fleet's"
        if usage.free < LITTLE:
            yield problem(what, told, mend)
        elif usage.free < SOME:
            yield warning(what, told, mend)
        else:
            yield ok(what, told)


def writable(what: str, place: Path) -> Finding:
    """Whether a directory may be written to, or made where it is missing."""
    path = nearest(place)
    mend = f"give it to this user: chown {os.getuid()}:{os.getgid()} {path}; or name another place"
    if not path.is_dir():
        return problem(what, f"{path} is no directory", f"move {path} away, or name another place")
    if not os.access(path, os.W_OK | os.X_OK):
        return problem(what, f"{path} can't be written to by this user", mend)
    if path != place.absolute():
        return ok(what, f"{place} is not there yet, and can be made")
    return ok(what, f"{place} can be written to")


def nearest(place: Path) -> Path:
    """A place, or the nearest above it that is there."""
    path = place.absolute()
    while not path.exists():
        path = path.parent
    return path


def _size(count: float) -> str:
    return f"{count / (1 << 30):.1f} GiB"
