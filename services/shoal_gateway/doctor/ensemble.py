"""ZooKeeper's servers, each by itself and all together."""

from __future__ import annotations

import socket
import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, NoAuthError
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.hosts import collect_hosts

from shoal import instance, protection, zookeepertls
from shoal.directory import parse_hosts
from shoal.errors import InstanceFormatError, ShoalError
from shoal.testing import zookeeperserver
from shoal.tls import Tls
from shoal_gateway import fourletters
from shoal_gateway.doctor.findings import Finding, ok, problem, warning
from shoal_gateway.doctor.machine import ZOOKEEPER
from shoal_gateway.doctor.versions import numbers

# Seconds for a server to answer.
PATIENCE = 3.0
# Milliseconds for a read.
SLOW = 100.0
# Seconds between two clocks: beyond the first what people read is wrong, beyond the second what has
# an end is taken for ended, or not begun yet: certificates, tokens, keys.
SKEW, WRONG = 1.0, 30.0
READS = 5


@dataclass(frozen=True, slots=True)
class Told:
    """What a server says of itself.

    Attributes:
        version: Of its code.
        mode: ``standalone``, ``leader``, ``follower``, ``observer``; empty: it serves nobody.
        latency: Of its requests: least, average and most, milliseconds, as it says it.
    """

    version: str
    mode: str
    latency: str


def parsed(answer: str) -> Told:
    """Of an answer to "srvr"."""
    told = fourletters.fields(answer)
    latency = told.get("Latency min/avg/max", "")
    return Told(fourletters.version(told), told.get("Mode", ""), latency)


def servers(
    address: str, tls: Tls | None, ask: Callable[[str, int, Tls | None], str] | None = None
) -> Iterator[Finding]:
    """Each server that an address names, and whether they are enough.

    Args:
        address: With chroot, as directories take it.
        tls: Certificate, where it begins with ``tls://``.
        ask: Asks a server "srvr"; raises ``OSError``.
    """
    listed, _ = collect_hosts(parse_hosts(address)[0])
    asking = ask or _srvr
    # Whoever has a certificate may well look at a ZooKeeper that speaks plain text.
    shown = tls if address.startswith(zookeepertls.SCHEME) else None
    modes = []
    for host, port in listed:
        finding, mode = _server(host, port, shown, asking)
        yield finding
        modes.append(mode)
    yield from ensemble([mode for mode in modes if mode is not None], len(listed))


def _server(
    host: str, port: int, tls: Tls | None, ask: Callable[[str, int, Tls | None], str]
) -> tuple[Finding, str | None]:
    """What is found, and its mode; None where it does not serve, empty where it does not say."""
    what = f"ZooKeeper {host}:{port}"
    began = time.monotonic()
    try:
        answer = ask(host, port, tls)
    except OSError as error:
        mend = "is it running, and does a firewall let this machine through? a local one comes back"
        return problem(what, f"does not answer: {error}", f"{mend} with `shoal up`"), None
    took = (time.monotonic() - began) * 1e3
    told = parsed(answer)
    if not told.mode:
        if fourletters.NOT_ALLOWED in answer:
            mend = "4lw.commands.whitelist=srvr in its zoo.cfg, if you want to know more"
            return warning(what, "answers, and does not say how it is", mend), ""
        said = answer.strip() or "nothing"
        mend = "see its log: a member without a quorum serves nobody, and neither does one at start"
        return problem(what, f"serves nobody; it says: {said}", mend), None
    shown = f"{told.version}, {told.mode}, answers in {took:.0f} ms"
    if told.latency:
        shown += f", its requests took {told.latency} ms (least/average/most)"
    if told.version and numbers(told.version)[:2] < ZOOKEEPER:
        oldest = ".".join(map(str, ZOOKEEPER))
        return problem(what, shown, f"upgrade it: {oldest} is the oldest supported"), told.mode
    return ok(what, shown), told.mode


def ensemble(modes: Sequence[str], named: int) -> Iterator[Finding]:
    """Whether those that serve are one ensemble, and whether all of it.

    Args:
        modes: Of the servers that serve; empty where one does not say.
        named: How many servers the address names.
    """
    what = "ZooKeeper's ensemble"
    leaders = modes.count("leader")
    if not modes:
        mend = "callers go on with what they know; start servers until most of them run"
        yield problem(what, "nobody serves", mend)
    elif named > 1 and "standalone" in modes:
        mend = "give each a myid and all the same server.N= lines, or name one only"
        yield problem(what, "servers that know nothing of each other are named together", mend)
    elif leaders > 1:
        mend = "name servers of one ensemble only"
        yield problem(what, f"{leaders} leaders: these are several ensembles", mend)
    elif len(modes) < named:
        mend = "start the others: the next that is lost may be one too many"
        yield warning(what, f"{len(modes)} of {named} servers serve", mend)
    elif named > 1 and named % 2 == 0:
        mend = f"{named - 1} servers survive as many losses, with less work"
        yield warning(what, f"{named} servers, an even number", mend)
    elif named > 1:
        yield ok(what, f"{named} servers, a leader and its followers" if leaders else "all serve")


def session(address: str, tls: Tls | None) -> Iterator[Finding]:
    """What only a session shows: a round trip, the chroot, clocks, who may write."""
    hosts, chroot = parse_hosts(address)
    secure = address.startswith(zookeepertls.SCHEME)
    try:
        client = _client(hosts, tls if secure else None)
    except ShoalError as error:
        yield problem("ZooKeeper session", str(error), "see what its servers say, above")
        return
    try:
        yield from _within(client, chroot, secure=secure)
    finally:
        client.stop()
        client.close()


def _within(client: KazooClient, chroot: str, *, secure: bool) -> Iterator[Finding]:
    took = []
    for _ in range(READS):
        began = time.monotonic()
        there = client.exists(chroot or "/")
        took.append((time.monotonic() - began) * 1e3)
    usual = statistics.median(took)
    told = f"a read takes {usual:.1f} ms"
    if usual > SLOW:
        mend = "is the network or its disk slow? sessions may time out: see `shoal top`'s latency"
        yield warning("ZooKeeper session", told, mend)
    else:
        yield ok("ZooKeeper session", told)
    if there is None:
        mend = "nothing, if the fleet was never started; else look at the address after the slash"
        yield warning("chroot", f"{chroot} is not there", mend)
        return
    yield from _clock(client, chroot)
    yield from _replicas_clocks(client, chroot)
    if secure:
        yield from _open_nodes(client, chroot)


def _clock(client: KazooClient, chroot: str) -> Iterator[Finding]:
    """By a node, whose time is of ZooKeeper's clock; it goes with the session at the latest."""
    what = "clock"
    path = f"{chroot}/doctor-{uuid.uuid4()}"
    began = time.time()
    try:
        client.create(path, b"", ephemeral=True)
    except NoAuthError:
        mend = "ask with an operator's certificate: --tls DIR"
        yield warning(what, "not compared to ZooKeeper's: this certificate may write nothing", mend)
        return
    except KazooException as error:
        yield warning(what, f"not compared to ZooKeeper's: {error!r}", "see its log")
        return
    ended = time.time()
    made = client.get(path)[1].ctime / 1e3
    client.delete(path)
    yield judged_clock(made, began, ended)


def judged_clock(made: float, began: float, ended: float) -> Finding:
    """This machine's clock beside ZooKeeper's; all in seconds since 1970.

    Args:
        made: When a node was made, by ZooKeeper's clock.
        began: When it was asked for, by ours.
        ended: When it was there, by ours.
    """
    # Somewhere in between it was made: that much can't be told.
    skew = made - began if made < began else max(made - ended, 0.0)
    side = "behind" if skew > 0.0 else "ahead of"
    told = f"{abs(skew):.1f} s {side} ZooKeeper's"
    mend = "let both follow a time server: timedatectl set-ntp true"
    if abs(skew) > WRONG:
        return problem("clock", told, f"{mend}; certificates and tokens count on it")
    if abs(skew) > SKEW:
        return warning("clock", told, mend)
    return ok("clock", "agrees with ZooKeeper's")


def _replicas_clocks(client: KazooClient, chroot: str) -> Iterator[Finding]:
    ahead = []
    count = 0
    services = f"{chroot}/services"
    for service in client.get_children(services) if client.exists(services) else ():
        for name in client.get_children(f"{services}/{service}"):
            try:
                data, stat = client.get(f"{services}/{service}/{name}")
                replica = instance.decode(data)
            except (KazooException, InstanceFormatError):
                continue  # gone meanwhile; or no registration, of which directories warn
            count += 1
            # It wrote this time before the node was made. One that is behind can't be told from one
            # that was announced anew after a lost session.
            early = replica.registered_at - stat.ctime / 1e3
            if early > SKEW:
                ahead.append(f"{name} by {early:.1f} s")
    if ahead:
        mend = "let those hosts follow a time server: timedatectl set-ntp true"
        yield warning("replicas' clocks", f"ahead of ZooKeeper's: {', '.join(ahead)}", mend)
    elif count:
        yield ok("replicas' clocks", f"none of {count} is ahead of ZooKeeper's")


def _open_nodes(client: KazooClient, chroot: str) -> Iterator[Finding]:
    found = list(protection.open_nodes(client, chroot or "/"))
    if found:
        shown = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        told = f"anybody who may connect can change {shown}"
        yield problem("ZooKeeper's ACLs", told, "shoal zookeeper protect, as an operator")
    else:
        yield ok("ZooKeeper's ACLs", "all nodes are closed to strangers")


def _client(hosts: str, tls: Tls | None) -> KazooClient:
    if tls is not None:
        return zookeepertls.client(hosts, tls, timeout=PATIENCE * 2)
    client = KazooClient(hosts)
    try:
        client.start(timeout=PATIENCE * 2)
    except KazooTimeoutError as error:
        client.stop()
        client.close()
        raise ShoalError(f"none of {hosts} gives one within {PATIENCE * 2:g} s") from error
    return client


def _srvr(host: str, port: int, tls: Tls | None) -> str:
    with socket.create_connection((host, port), timeout=PATIENCE) as plain:
        connection = plain if tls is None else zookeeperserver.wrapped(plain, tls)
        with connection:
            connection.sendall(b"srvr")
            data = b"".join(iter(lambda: connection.recv(65536), b""))
    return data.decode("utf-8", "replace")
