"""What a zone holds at one moment: immutable, with an index of its names. Pure.

Names below the zone, as labels in lower case:

    <service>                A and AAAA, SRV, TXT of the replicas that take calls
    <flavor>.<service>       the same of one flavor
    _<service>._tcp          SRV, as RFC 2782 has it
    <address>.addr           A or AAAA of one announced address; what SRV records point to
    ns                       the server itself
    _status                  TXT: how ZooKeeper is, and how old what is known of each service is

A service's or flavor's name with dots in it is as many labels.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from shoal_balancer import Replica, Status
from shoal_balancer.snapshot import CALM

Labels = tuple[str, ...]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

LABEL_LIMIT, NAME_LIMIT = 63, 253
STATUS: Labels = ("_status",)
SERVER: Labels = ("ns",)
ADDRESSES = "addr"
PROTOCOL = "_tcp"


@dataclass(frozen=True, slots=True)
class Zone:
    """What does not change while the server runs.

    Attributes:
        name: The zone's labels, lower case.
        ttl: Seconds for which answers may be kept.
        negative_ttl: The same of "there is no such name".
        server: Addresses of this server, told as those of ``ns.<zone>``.
    """

    name: Labels
    ttl: int = 2
    negative_ttl: int = 2
    server: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Service:
    """One service as it is known.

    Attributes:
        name: The service's.
        replicas: All that are announced; None when nothing is known of it yet.
        age: Seconds since ZooKeeper confirmed it: 0.0 while it is watched, None if never.
        held: Whether its replicas are held although ZooKeeper shows none of them.
    """

    name: str
    replicas: tuple[Replica, ...] | None
    age: float | None = 0.0
    held: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """What a name stands for.

    Attributes:
        replicas: Those that take calls; empty for a name that is only there for others below it.
        unknown: Whether what it has is not known yet.
        kind: "replicas", "srv" for RFC 2782's names, "address", or "" for nothing of its own.
        address: Of kind "address".
    """

    replicas: tuple[Replica, ...] = ()
    unknown: bool = False
    kind: str = ""
    address: Address | None = None


@dataclass(frozen=True, slots=True)
class View:
    """The zone at one moment.

    Attributes:
        zone: What does not change.
        serial: Grows with each change.
        nodes: Every name of the zone that there is, relative to it; not the zone itself.
        complete: Whether the list of services is known; else a name that is not there may exist.
        told: Texts of ``_status``, one for each record.
        left_out: Services that can't be named in DNS, and why.
    """

    zone: Zone
    serial: int = 1
    nodes: Mapping[Labels, Node] = field(default_factory=lambda: MappingProxyType({}))
    complete: bool = False
    told: tuple[tuple[str, ...], ...] = ()
    left_out: tuple[str, ...] = ()


def labels_of(name: str) -> Labels:
    """The labels of a dotted name, in lower case.

    Raises:
        ValueError: it can't be a name in DNS; says why.
    """
    labels = tuple(name.lower().rstrip(".").split("."))
    for label in labels:
        if not 0 < len(label.encode()) <= LABEL_LIMIT:
            raise ValueError(f"{name!r}: a label has 1 to {LABEL_LIMIT} bytes, and {label!r} not")
    if sum(len(label.encode()) + 1 for label in labels) > NAME_LIMIT:
        raise ValueError(f"{name!r} is longer than {NAME_LIMIT} bytes")
    return labels


def address_of(replica: Replica) -> Address | None:
    """The replica's IP address; None where it announced a host name."""
    try:
        found = ipaddress.ip_address(replica.address.strip("[]"))
    except ValueError:
        return None
    # A link-local address with its interface means something on one host only.
    return None if getattr(found, "scope_id", None) else found


def address_labels(address: Address) -> Labels:
    """The name of an address below the zone: ``10-0-0-5.addr``."""
    text = str(address) if address.version == 4 else address.exploded
    return (text.replace(".", "-").replace(":", "-"), ADDRESSES)


def usable(replicas: Iterable[Replica]) -> tuple[Replica, ...]:
    """Whom to name: those that are UP and enabled, and the BUSY too where they are many.

    As channels spare the busy: while most are not. Else the few that are left would get everything,
    and a name without an address would turn a busy service into one that is down.
    """
    routable = tuple(replica for replica in replicas if replica.routable)
    calm = tuple(each for each in routable if each.status is Status.UP)
    return calm if len(calm) >= CALM * len(routable) else routable


def build(
    zone: Zone,
    services: Iterable[Service],
    *,
    serial: int = 1,
    complete: bool = True,
    zookeeper: str = "connected",
) -> View:
    """The view of a set of services."""
    nodes: dict[Labels, Node] = {STATUS: Node(), SERVER: Node()}
    found = sorted(services, key=lambda service: service.name)
    left_out = []
    for service in found:
        try:
            _add(nodes, zone, service)
        except ValueError as error:
            left_out.append(f"{service.name}: {error}")
    for labels in list(nodes):
        # What is only part of longer names exists all the same (RFC 8020).
        for start in range(1, len(labels)):
            nodes.setdefault(labels[start:], Node())
    return View(
        zone,
        serial,
        MappingProxyType(nodes),
        complete,
        (
            (f"zookeeper={zookeeper}", f"services={len(found)}", f"complete={_yes(complete)}"),
            *map(_told, found),
        ),
        tuple(left_out),
    )


def _add(nodes: dict[Labels, Node], zone: Zone, service: Service) -> None:
    name = labels_of(service.name)
    srv = (f"_{name[0]}", *name[1:], PROTOCOL)
    replicas = service.replicas
    unknown = replicas is None
    _check(zone, service.name, srv)
    if name in nodes:
        raise ValueError("another service has that name already, in letters of another case")
    chosen = usable(replicas or ())
    nodes[name] = Node(chosen, unknown, "replicas")
    nodes[srv] = Node(chosen, unknown, "srv")
    flavors = sorted({replica.flavor for replica in replicas or () if replica.flavor})
    for flavor in flavors:
        try:
            labels = (*labels_of(flavor), *name)
            _check(zone, flavor, labels)
        except ValueError:
            continue  # told by its TXT record all the same
        ours = usable(each for each in replicas or () if each.flavor.lower() == flavor.lower())
        nodes.setdefault(labels, Node(ours, unknown, "replicas"))
    for replica in replicas or ():
        address = address_of(replica)
        if address is not None:
            nodes.setdefault(address_labels(address), Node(kind="address", address=address))


def _check(zone: Zone, name: str, labels: Labels) -> None:
    try:
        labels_of(".".join((*labels, *zone.name)))
    except ValueError as error:
        raise ValueError(f"{name!r} can't be named in this zone: {error}") from error


def _told(service: Service) -> tuple[str, ...]:
    known = service.replicas is not None
    age = "unknown" if service.age is None else f"{service.age:.1f}"
    stale = not known or service.held or service.age != 0.0
    return (
        f"service={service.name}",
        f"replicas={len(service.replicas or ())}",
        f"usable={len(usable(service.replicas or ()))}",
        f"age={age}",
        f"held={_yes(service.held)}",
        f"stale={_yes(stale)}",
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"
