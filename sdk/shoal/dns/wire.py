"""Packets into questions, and answers into packets; dnslib does the format.

Whatever comes in, `respond` returns a packet or None and raises nothing: anybody can send anything
to a port.
"""

from __future__ import annotations

import logging
import random
import struct
from dataclasses import dataclass
from typing import Any

try:
    import dnslib
    from dnslib.dns import DNSBuffer
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "shoal.dns needs dnslib: pip install 'shoal[dns]'", name=error.name
    ) from error

from shoal.dns.answers import (
    Answer,
    Code,
    Name,
    Question,
    Record,
    Soa,
    Srv,
    Text,
    Type,
    answer,
    without,
)
from shoal.dns.view import NAME_LIMIT, Labels, View

logger = logging.getLogger(__name__)

HEADER = 12
# Without EDNS (RFC 1035), and the most we say over UDP with it: more is cut into fragments on the
# way, which many networks drop (DNS flag day 2020).
PLAIN_UDP, EDNS_UDP = 512, 1232
TCP = 65535
# A question has one name of 255 bytes and perhaps some options; what is longer means no good.
LONGEST_QUERY = 4096
# Records that a question may come with: EDNS's, a signature, and some room.
MOST_EXTRAS = 8
# A record of the smallest kind: a pointer to its name, type, class, ttl, length, IPv4 address.
SMALLEST_RECORD = 16
OPT = 41
QUERY_OPCODE = 0


@dataclass(frozen=True, slots=True)
class Edns:
    """What a question says of itself by EDNS (RFC 6891).

    Attributes:
        size: Of the largest UDP packet that is taken, bytes.
        version: Only 0 is known.
    """

    size: int
    version: int


@dataclass(frozen=True, slots=True)
class Query:
    """A packet that asks something.

    Attributes:
        id: Given back with the answer.
        recursion: Whether recursion was desired, which is given back too.
        question: What is asked; None when that can't be read.
        edns: None without.
        code: What is wrong with it already; NOERROR when nothing is.
        opcode: Given back too.
    """

    id: int
    recursion: bool
    question: Question | None
    edns: Edns | None = None
    code: Code = Code.NOERROR
    opcode: int = QUERY_OPCODE


def parse(packet: bytes) -> Query | None:
    """The query in a packet; None when it deserves no answer: too short, or itself an answer."""
    if len(packet) < HEADER:
        return None
    number, flags, questions, answers, authorities, extras = struct.unpack("!6H", packet[:HEADER])
    if flags & 0x8000:
        return None  # Answering answers, two servers would never stop.
    recursion, opcode = bool(flags & 0x0100), flags >> 11 & 0xF
    if opcode != QUERY_OPCODE:
        return Query(number, recursion, None, code=Code.NOTIMP, opcode=opcode)
    broken = Query(number, recursion, None, code=Code.FORMERR)
    odd = questions != 1 or answers or authorities or extras > MOST_EXTRAS
    if odd or len(packet) > LONGEST_QUERY:
        return broken
    try:
        buffer = DNSBuffer(packet)
        buffer.offset = HEADER
        asked = dnslib.DNSQuestion.parse(buffer)
        question = Question(_labels(asked.qname), int(asked.qtype), int(asked.qclass))
        options = [each for each in _extras(buffer, extras) if each.rtype == OPT]
    except Exception as error:  # noqa: BLE001 - whatever is in a packet, it is only a packet
        logger.debug("a query can't be read: %r", error)
        return broken
    if len(options) > 1:
        return broken
    edns = Edns(int(options[0].edns_len), int(options[0].edns_ver)) if options else None
    if edns is not None and edns.version != 0:
        return Query(number, recursion, question, edns, Code.BADVERS)
    return Query(number, recursion, question, edns)


def _extras(buffer: Any, count: int) -> list[Any]:
    return [dnslib.RR.parse(buffer) for _ in range(count)]


def _labels(name: Any) -> Labels:
    # Pointers can make a name longer than names may be, and than could be answered.
    if len(name) > NAME_LIMIT:
        raise ValueError(f"a name of {len(name)} bytes")
    return tuple(label.decode() for label in name.label)


def respond(packet: bytes, view: View, rng: random.Random, *, udp: bool = True) -> bytes | None:
    """The packet that answers a packet; None when nothing is to be sent."""
    query = parse(packet)
    if query is None:
        return None
    try:
        if query.question is None or query.code is not Code.NOERROR:
            return _packed(query, Answer(query.code))
        said = answer(query.question, view, rng)
        return fitted(query, said, limit(query, udp=udp), udp=udp)
    except Exception:
        logger.exception("the question %r could not be answered", query.question)
        return _packed(query, Answer(Code.SERVFAIL))


def limit(query: Query, *, udp: bool) -> int:
    """The largest answer that may be sent, bytes."""
    if not udp:
        return TCP
    return PLAIN_UDP if query.edns is None else max(PLAIN_UDP, min(query.edns.size, EDNS_UDP))


def fitted(query: Query, said: Answer, most: int, *, udp: bool) -> bytes:
    """The answer as a packet of at most ``most`` bytes.

    First the additional records go, which nobody needs; then records, and over UDP it says that it
    is truncated, so that who wants all of them asks by TCP. There the rest can't be had at all.
    """
    fits = most // SMALLEST_RECORD
    if len(said.records) <= fits:
        for whole in (said, without(said, len(said.records))):
            packet = _packed(query, whole)
            if len(packet) <= most:
                return packet
    low, high = 0, min(len(said.records), fits)
    best = _packed(query, without(said, 0), truncated=udp)
    while low < high:
        middle = (low + high + 1) // 2
        packet = _packed(query, without(said, middle), truncated=udp)
        if len(packet) <= most:
            low, best = middle, packet
        else:
            high = middle - 1
    return best


def _packed(query: Query, said: Answer, *, truncated: bool = False) -> bytes:
    header = dnslib.DNSHeader(
        id=query.id,
        bitmap=0,
        qr=1,
        opcode=query.opcode,
        aa=int(said.authoritative),
        tc=int(truncated),
        rd=int(query.recursion),
        rcode=said.code & 0xF,
    )
    record = dnslib.DNSRecord(header)
    if query.question is not None:
        asked = query.question
        record.add_question(dnslib.DNSQuestion(_name(asked.labels), asked.type, asked.class_))
    for each in said.records:
        record.add_answer(_rr(each))
    for each in said.authority:
        record.add_auth(_rr(each))
    for each in said.additional:
        record.add_ar(_rr(each))
    if query.edns is not None:
        record.add_ar(dnslib.EDNS0(_name(()), udp_len=EDNS_UDP, ext_rcode=said.code >> 4))
    return bytes(record.pack())


def _name(labels: Labels) -> Any:
    return dnslib.DNSLabel([label.encode() for label in labels])


def _rr(record: Record) -> Any:
    return dnslib.RR(_name(record.labels), int(record.type), ttl=record.ttl, rdata=_rdata(record))


def _rdata(record: Record) -> Any:
    value = record.value
    if isinstance(value, Srv):
        return dnslib.SRV(value.priority, value.weight, value.port, _name(value.target))
    if isinstance(value, Text):
        return dnslib.TXT([text.encode() for text in value.strings])
    if isinstance(value, Name):
        return dnslib.NS(_name(value.labels))
    if isinstance(value, Soa):
        # Nobody copies this zone, so its times are only there because they must be.
        times = (value.serial, 3600, 600, 86400, value.minimum)
        return dnslib.SOA(_name(value.server), _name(value.mailbox), times)
    return (dnslib.A if record.type is Type.A else dnslib.AAAA)(str(value))
