"""Where a server listens, and under which address it is found."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from typing import Any

from shoal.errors import BindError

EVERYWHERE = ("0.0.0.0", "::", "*", "")  # noqa: S104 - compared with, not bound


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
    if host in EVERYWHERE:
        raise ValueError(
            f"bind={bind!r} listens on every address; say which one callers should use: "
            "advertise='10.0.0.5'"
            if advertise is None
            else f"advertise={advertise!r} is no address that a caller can connect to"
        )
    return host, port


def towards(hosts: str) -> str:
    """The address of this machine that it reaches others from, by its routes; nothing is sent.

    Args:
        hosts: ``host:port``, several with commas, the first that has a route counts; ``tls://`` may
            stand before them and a chroot follow, so that ZooKeeper's address will do.

    Raises:
        OSError: no way leads to any of them; says why for each.
    """
    failed = []
    for each in hosts.removeprefix("tls://").partition("/")[0].split(","):
        try:
            host, port = split_address(each.strip())
            found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
            for family, kind, protocol, _, where in found:
                with socket.socket(family, kind, protocol) as probe:
                    # Of a datagram socket this only chooses the route.
                    probe.connect(where)
                    return str(probe.getsockname()[0])
        except (OSError, ValueError) as error:
            failed.append(f"{each.strip()}: {error}")
    raise OSError(f"no way leads to {'; '.join(failed)}")


def exclusive(options: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Server options with ports that are not shared: else a second bind succeeds silently."""
    return list({"grpc.so_reuseport": 0, **dict(options)}.items())


def bound(address: str, add: Callable[[], int]) -> int:
    """The port that ``add`` has bound.

    Raises:
        BindError: it could not; says the address and the cause.
    """
    # Of a name's addresses grpc binds those that it can, and is content with one. Where another
    # process has the port on the other, callers would find either of the two servers.
    if _is_name(address) and (taken := _errors(address, errno.EADDRINUSE)):
        raise _bind_error(address, taken)
    try:
        port = add()
    except RuntimeError as error:
        raise _bind_error(address, _errors(address)) from error
    if port == 0:
        raise _bind_error(address, _errors(address))
    return port


def _bind_error(address: str, causes: list[OSError]) -> BindError:
    if not causes:
        return BindError(f"{address} can't be bound; GRPC_VERBOSITY=debug says more")
    number = causes[0].errno
    hint = {
        errno.EADDRINUSE: "another process listens there; stop it, or bind port 0",
        errno.EADDRNOTAVAIL: "it is not an address of this machine",
        errno.EACCES: "ports below 1024 take privileges",
    }.get(number or 0, "choose another address")
    return BindError(number, f"{address} can't be bound: {causes[0].strerror}: {hint}")


def _is_name(address: str) -> bool:
    try:
        host, _ = split_address(address)
        ipaddress.ip_address(host.partition("%")[0] or "::")
    except ValueError:
        return True
    return False


def _errors(address: str, only: int | None = None) -> list[OSError]:
    """What the system says to the same wish, for each address of a name: grpc keeps it to itself.

    Args:
        address: ``host:port``.
        only: Of these errors the ones with this number.
    """
    try:
        host, port = split_address(address)
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except ValueError:
        # Nothing that the system would know (a Unix socket, say).
        return []
    except OSError as error:
        return [error]
    errors = []
    for family, kind, protocol, _, where in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                # As grpc does: a connection that lingers from before does not hold the port.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(where)
        except OSError as error:
            if only in (None, error.errno):
                errors.append(error)
    return errors
