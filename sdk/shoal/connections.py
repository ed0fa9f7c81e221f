"""Which peers are connected to a port of ours, from the kernel.

grpc tells a server nothing of connections that end. The kernel's tables do (Linux); they are read
while a server drains, and when very many callers have said hello, never on the path of a call.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_ESTABLISHED = "01"


def peers_of(port: int) -> frozenset[str] | None:
    """Peers with a connection to a local port, named as `normal` names them; None if unknowable."""
    try:
        tables = [table.read_text(encoding="ascii") for table in _TABLES if table.exists()]
    except OSError:
        return None
    if not tables:
        return None
    return frozenset(peer for table in tables for peer in _peers(table.splitlines()[1:], port))


def normal(peer: str) -> str:
    """A peer as grpc names it (``ipv4:10.0.0.7:4000``, ``ipv6:%5B::1%5D:4000``), in one spelling.

    An IPv4 address that came through an IPv6 socket is an IPv4 address.
    """
    kind, _, rest = peer.replace("%5B", "[").replace("%5D", "]").partition(":")
    host, _, port = rest.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdigit():
        return peer
    try:
        return _named(ipaddress.ip_address(host.strip("[]").partition("%")[0]), int(port))
    except ValueError:
        return peer


def _named(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> str:
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        address = mapped
    return f"ipv{address.version}:{address}:{port}"


def _peers(rows: Iterable[str], wanted: int) -> Iterator[str]:
    for row in rows:
        _, local, remote, state, *_ = row.split()
        if state == _ESTABLISHED and int(local.rpartition(":")[2], 16) == wanted:
            address, _, port = remote.rpartition(":")
            yield _named(_address(address), int(port, 16))


def _address(digits: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address of a table's hexadecimal words, each in the machine's own byte order."""
    raw = bytes.fromhex(digits)
    if sys.byteorder == "little":
        raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
    return ipaddress.ip_address(socket.inet_ntop(family, raw))
