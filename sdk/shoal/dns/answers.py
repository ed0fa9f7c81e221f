"""What is answered to a question, given a view of the zone. Pure; no wire format here."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass, replace

from shoal.dns.view import (
    SERVER,
    STATUS,
    Address,
    Labels,
    Node,
    View,
    Zone,
    address_labels,
    address_of,
    labels_of,
)
from shoal_balancer import Replica

# Shares in SRV records are whole numbers; one of weight 1.0 gets this.
SRV_UNIT = 100
SRV_MOST = 65535
TEXT_LIMIT = 255


class Type(enum.IntEnum):
    """Types of records that are known here."""

    A = 1
    NS = 2
    SOA = 6
    TXT = 16
    AAAA = 28
    SRV = 33
    IXFR = 251
    AXFR = 252
    ANY = 255


class Code(enum.IntEnum):
    """Response codes."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


IN, ANY_CLASS = 1, 255


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        labels: The whole name's, as they came; compared without regard to the case of letters.
        type: Of record, as a number.
        class_: 1 is the Internet's.
    """

    labels: Labels
    type: int
    class_: int = IN


@dataclass(frozen=True, slots=True)
class Srv:
    """Where a service is."""

    weight: int
    port: int
    target: Labels
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Soa:
    """Who answers for the zone, and how long a "no" may be kept."""

    server: Labels
    mailbox: Labels
    serial: int
    minimum: int


@dataclass(frozen=True, slots=True)
class Name:
    """The value of an NS record."""

    labels: Labels


@dataclass(frozen=True, slots=True)
class Text:
    """The value of a TXT record: strings of at most 255 bytes."""

    strings: tuple[str, ...]


Value = Address | Srv | Soa | Name | Text


@dataclass(frozen=True, slots=True)
class Record:
    """One record of an answer; ``labels`` is its owner's whole name."""

    labels: Labels
    type: Type
    ttl: int
    value: Value


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said.

    Attributes:
        code: Of the response.
        authoritative: Whether it is about our zone.
        records: The answer.
        authority: With a "no", the zone's SOA (RFC 2308).
        additional: Addresses of what SRV and NS records point to.
    """

    code: Code
    authoritative: bool = False
    records: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()


def answer(question: Question, view: View, rng: random.Random) -> Answer:
    """The answer to a question.

    Records are in an order drawn anew each time: most programs take the first.
    """
    zone = view.zone
    labels = tuple(label.lower() for label in question.labels)
    if question.class_ not in (IN, ANY_CLASS) or question.type in (Type.AXFR, Type.IXFR):
        return Answer(Code.REFUSED)
    if labels[-len(zone.name) :] != zone.name:
        return Answer(Code.REFUSED)
    relative = labels[: len(labels) - len(zone.name)]
    if not relative:
        return _found(question, view, _apex(question.labels, view))
    node = view.nodes.get(relative)
    if node is None:
        return _no(view, Code.NXDOMAIN) if view.complete else Answer(Code.SERVFAIL)
    if node.unknown:
        return Answer(Code.SERVFAIL)
    return _found(question, view, _records(question.labels, relative, node, view, rng))


def _found(question: Question, view: View, records: tuple[Record, ...]) -> Answer:
    if question.type == Type.ANY:
        # One kind of record is enough (RFC 8482).
        chosen = tuple(each for each in records if each.type == records[0].type)
    else:
        chosen = tuple(each for each in records if each.type == question.type)
    if not chosen:
        return _no(view, Code.NOERROR)
    return Answer(
        Code.NOERROR, authoritative=True, records=chosen, additional=_additional(chosen, view)
    )


def _no(view: View, code: Code) -> Answer:
    return Answer(code, authoritative=True, authority=(_soa(view.zone.name, view),))


def _soa(owner: Labels, view: View) -> Record:
    zone = view.zone
    soa = Soa((*SERVER, *zone.name), ("hostmaster", *zone.name), view.serial, zone.negative_ttl)
    return Record(owner, Type.SOA, zone.negative_ttl, soa)


def _apex(owner: Labels, view: View) -> tuple[Record, ...]:
    zone = view.zone
    server = Name((*SERVER, *zone.name))
    return (_soa(owner, view), Record(owner, Type.NS, zone.ttl, server))


def _records(
    owner: Labels, relative: Labels, node: Node, view: View, rng: random.Random
) -> tuple[Record, ...]:
    zone = view.zone
    if relative == STATUS:
        return tuple(_text(owner, 0, strings) for strings in view.told)
    if relative == SERVER and not node.kind:
        return tuple(_address(owner, zone.ttl, address) for address in zone.server)
    if node.address is not None:
        return (_address(owner, zone.ttl, node.address),)
    replicas = list(node.replicas)
    rng.shuffle(replicas)
    srv = _srv(owner, zone, replicas)
    if node.kind == "srv":
        return srv
    # Several replicas of one host are one address.
    addresses = dict.fromkeys(each for each in map(address_of, replicas) if each is not None)
    return (
        *(_address(owner, zone.ttl, address) for address in addresses),
        *srv,
        *(_text(owner, zone.ttl, _facts(replica)) for replica in replicas),
    )


def _address(owner: Labels, ttl: int, address: Address) -> Record:
    return Record(owner, Type.A if address.version == 4 else Type.AAAA, ttl, address)


def _text(owner: Labels, ttl: int, strings: tuple[str, ...]) -> Record:
    return Record(owner, Type.TXT, ttl, Text(tuple(map(_cut, strings))))


def _cut(text: str) -> str:
    return text.encode()[:TEXT_LIMIT].decode("utf-8", "ignore")


def _facts(replica: Replica) -> tuple[str, ...]:
    return (
        f"id={replica.id}",
        f"version={replica.version}",
        f"flavor={replica.flavor}",
        f"zone={replica.zone}",
        f"address={replica.address}",
        f"port={replica.port}",
        f"status={replica.status}",
    )


def _srv(owner: Labels, zone: Zone, replicas: list[Replica]) -> tuple[Record, ...]:
    heaviest = max((replica.weight for replica in replicas), default=1.0)
    unit = min(SRV_UNIT, SRV_MOST / heaviest)
    records = []
    for replica in replicas:
        target = _target(replica, zone)
        if target is not None:
            weight = max(1, round(replica.weight * unit))
            records.append(Record(owner, Type.SRV, zone.ttl, Srv(weight, replica.port, target)))
    return tuple(records)


def _target(replica: Replica, zone: Zone) -> Labels | None:
    address = address_of(replica)
    if address is not None:
        return (*address_labels(address), *zone.name)
    try:
        return labels_of(replica.address)
    except ValueError:
        return None  # its TXT record still tells the address


def _additional(records: tuple[Record, ...], view: View) -> tuple[Record, ...]:
    zone = view.zone
    wanted: dict[Labels, None] = {}
    for record in records:
        if isinstance(record.value, Srv):
            wanted[record.value.target] = None
        elif isinstance(record.value, Name):
            wanted[record.value.labels] = None
    found = []
    for labels in wanted:
        relative = labels[: len(labels) - len(zone.name)]
        if relative == SERVER:
            found += [_address(labels, zone.ttl, address) for address in zone.server]
            continue
        node = view.nodes.get(relative)
        if node is not None and node.address is not None:
            found.append(_address(labels, zone.ttl, node.address))
    return tuple(found)


def without(said: Answer, count: int) -> Answer:
    """The answer with only its first ``count`` records, for a packet that is too small."""
    return replace(said, records=said.records[:count], additional=())
