"""HAProxy and nginx as HTTP/2 gateways in front of the same servers, on loopback."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.paired.bench import Bench
from benchmarks.paired.processes import Daemon
from shoal.testing.installed import free_port, poll

HAPROXY = "HAProxy"
NGINX = "nginx"
# Where Debian keeps them; not on the path of everybody.
SBIN = "/usr/sbin"


def haproxy(port: int, targets: Sequence[str], folder: Path) -> list[str]:
    """Writes HAProxy's configuration; its command line."""
    servers = "\n".join(
        f"  server s{number} {target} proto h2" for number, target in enumerate(targets)
    )
    (folder / "haproxy.cfg").write_text(
        f"""global
  maxconn 1000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend grpc
  bind 127.0.0.1:{port} proto h2
  default_backend echo
backend echo
  balance roundrobin
{servers}
""",
        encoding="utf-8",
    )
    return [_found("haproxy"), "-db", "-f", str(folder / "haproxy.cfg")]


def nginx(port: int, targets: Sequence[str], folder: Path) -> list[str]:
    """Writes nginx's configuration; its command line.

    With connections to the servers kept open, and no end of a connection after 1000 requests: its
    defaults would make it look slower than it need be.
    """
    servers = "\n".join(f"    server {target};" for target in targets)
    places = "\n".join(
        f"  {name}_temp_path {folder}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"""daemon off;
worker_processes auto;
{"user root;" if os.geteuid() == 0 else ""}
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1000; }}
http {{
  access_log off;
{places}
  upstream echo {{
{servers}
    keepalive 64;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} http2;
    keepalive_requests 1000000000;
    location / {{ grpc_pass grpc://echo; }}
  }}
}}
""",
        encoding="utf-8",
    )
    return [_found("nginx"), "-e", f"{folder}/error.log", "-c", str(folder / "nginx.conf")]


Prepare = Callable[[int, Sequence[str], Path], list[str]]
KINDS: dict[str, tuple[str, Prepare]] = {HAPROXY: ("haproxy", haproxy), NGINX: ("nginx", nginx)}


@contextmanager
def gateways(bench: Bench, targets: Sequence[str]) -> Iterator[dict[str, str]]:
    """Starts those that are installed: name → target. The others are remarked upon."""
    with ExitStack() as stack:
        started = {}
        for name, (program, prepare) in KINDS.items():
            if _path(program) is None:
                bench.remark(
                    f"{name} is not installed, so its rows are missing: apt-get install {program}"
                )
                continue
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="shoal-bench-")))
            port = free_port()
            daemon = Daemon(prepare(port, targets, folder), folder / "output")
            stack.callback(daemon.end)
            if not poll(lambda port=port: _listens(port), 10.0):  # type: ignore[misc]
                raise RuntimeError(f"{name} does not listen: {daemon.log.read_text()}")
            started[name] = f"127.0.0.1:{port}"
        yield started


def _path(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{SBIN}")


def _found(program: str) -> str:
    path = _path(program)
    if path is None:
        raise RuntimeError(f"{program} is not installed: apt-get install {program}")
    return path


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True
