"""What a local ZooKeeper needs of the machine: Java, the jar, a port, and some patience."""

from __future__ import annotations

import errno
import os
import random
import shutil
import socket
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

# Where Debian keeps the jar, which names its libraries, and the logger that it leaves to choose.
_JAR = "/usr/share/java/zookeeper.jar"
_LOGGER = "/usr/share/java/slf4j-simple.jar"
# What ZooKeeper needs for TLS, and its jar does not name.
_TLS = "/usr/share/java/netty-codec.jar:/usr/share/java/netty-resolver.jar"

_CURE = (
    "Install both with `apt-get install zookeeper`, or set JAVA_HOME, and ZOOKEEPER_HOME to an "
    "unpacked release of ZooKeeper."
)

# Below the range from which Linux takes the ports of outgoing connections (32768 and up): a port
# of ours stays free while its server is down, and can be bound again.
_PORTS = range(18000, 32000)

# A port is not bound before its server has started, nor while it is down. Until then others leave
# it alone because we hold a name in Linux's abstract namespace, which ends with this process. The
# oldest are given up: each costs a file descriptor.
_CLAIMS = 200
_claims: deque[int] = deque()


class ZooKeeperError(RuntimeError):
    """ZooKeeper could not be found, started or reached; the message says what to do."""


def find_java() -> str:
    """The Java launcher: ``$JAVA_HOME/bin/java``, or the one on the path.

    Raises:
        ZooKeeperError: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    if home and (Path(home) / "bin" / "java").exists():
        return str(Path(home) / "bin" / "java")
    found = shutil.which("java")
    if found is None:
        raise ZooKeeperError(f"ZooKeeper needs Java, and `java` is not on the path. {_CURE}")
    return found


def find_classpath() -> str:
    """ZooKeeper's jar and libraries: from ``$ZOOKEEPER_HOME``, or where Debian puts them.

    Raises:
        ZooKeeperError: there is none.
    """
    home = os.environ.get("ZOOKEEPER_HOME")
    if home and list(Path(home, "lib").glob("zookeeper-*.jar")):
        # Its settings for logging lie in conf.
        return f"{home}/conf:{home}/lib/*"
    if not Path(_JAR).exists():
        raise ZooKeeperError(f"{_JAR} does not exist. {_CURE}")
    return f"{_JAR}:{_LOGGER}:{_TLS}"


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on and that no outgoing connection will take.

    While this process lives, no other one is told of it by this function.

    Raises:
        ZooKeeperError: none was found.
    """
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                continue
        if _claim(port):
            return port
    raise ZooKeeperError(f"no free port on {address} from {_PORTS.start} to {_PORTS.stop}")


def _claim(port: int) -> bool:
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(f"\0shoal-port-{port}")
    except OSError as error:
        claim.close()
        # Anything else than taken: there is no such namespace here, and no claims.
        return error.errno != errno.EADDRINUSE
    _claims.append(claim.detach())
    if len(_claims) > _CLAIMS:
        os.close(_claims.popleft())
    return True


def poll(holds: Callable[[], bool], timeout: float) -> bool:
    """Asks every 20 ms whether something of another process holds; False after ``timeout``."""
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True
