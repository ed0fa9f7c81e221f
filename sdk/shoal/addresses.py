"""Where a server listens, and under which address it is found."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Callable, Sequence
from typing import Any

from shoal.errors import BindError

_EVERYWHERE = ("0.0.0.0", "::", "*", "")  # noqa: S104 - compared with, not bound


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[::1]:port``.

    Raises:
        ValueError: it is neither.
    """
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+(?:%\w+)?\]|[^:\[\]/]*):(\d{1,5})", address)
    if match is None or int(match[2]) > 65535:
        raise ValueError(f"an address is 'host:port' or '[ipv6]:port', not {address!r}")
    return match[1].strip("[]"), int(match[2])


def advertised(bind: str, advertise: str | None) -> tuple[str, int | None]:
    """The host that callers are told to connect to, and the port if it is not the one bound.

    It is ``advertise`` (a host, or ``host:port`` behind a port mapping) if that is given, else the
    host that is bound. A server that listens on every address must say which one to use: to guess
    would go wrong on every machine with two networks, silently.

    Raises:
        ValueError: an address can't be read, or the server listens everywhere and nobody said
            under which address it is found.
    """
    host, _ = split_address(bind)
    port: int | None = None
    if advertise is not None:
        host = advertise.strip("[]")
        # A bare IPv6 address has more than one colon and no brackets.
        if advertise.count(":") == 1 or "]:" in advertise:
            host, port = split_address(advertise)
    if host in _EVERYWHERE:
        raise ValueError(
            f"bind={bind!r} listens on every address; say which one callers should use: "
            "advertise='10.0.0.5'"
            if advertise is None
            else f"advertise={advertise!r} is no address that a caller can connect to"
        )
    return host, port


def exclusive(options: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Server options with ports that are not shared: else a second bind succeeds silently."""
    return list({"grpc.so_reuseport": 0, **dict(options)}.items())


def bound(address: str, add: Callable[[], int]) -> int:
    """The port that ``add`` has bound.

    Raises:
        BindError: it could not; says the address and the cause.
    """
    try:
        port = add()
    except RuntimeError as error:
        raise _bind_error(address) from error
    if port == 0:
        raise _bind_error(address)
    return port


def _bind_error(address: str) -> BindError:
    cause = _cause(address)
    if cause is None:
        return BindError(f"{address} can't be bound; GRPC_VERBOSITY=debug says more")
    hint = {
        errno.EADDRINUSE: "another process listens there; stop it, or bind port 0",
        errno.EADDRNOTAVAIL: "it is not an address of this machine",
        errno.EACCES: "ports below 1024 take privileges",
    }.get(cause.errno or 0, "choose another address")
    reason = os.strerror(cause.errno) if cause.errno and cause.errno > 0 else str(cause)
    return BindError(cause.errno, f"{address} can't be bound: {reason}: {hint}")


def _cause(address: str) -> OSError | None:
    """What the system says to the same wish: grpc keeps it to itself."""
    try:
        host, port = split_address(address)
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except ValueError:
        return None
    except OSError as error:
        return error
    for family, kind, protocol, _, where in found:
        with socket.socket(family, kind, protocol) as probe:
            # As grpc does: a connection that lingers from before does not hold the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(where)
                probe.listen(1)
            except OSError as error:
                return error
    return None
