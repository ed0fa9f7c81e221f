"""Packets in, packets out: what a resolver makes of it, and what no packet can break."""

import random
import struct

import dnslib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.dns.view import Service, Zone, build, labels_of
from shoal.dns.wire import EDNS_UDP, LONGEST_QUERY, PLAIN_UDP, TCP, respond
from shoal_balancer import Replica

RNG = random.Random(1)
ZONE = Zone(labels_of("shoal.test"))


def fleet(count):
    return build(
        ZONE,
        [
            Service(
                "jobs",
                tuple(
                    Replica(
                        f"r{n}", f"10.0.{n // 250}.{n % 250}", 5000, version="1.0", host="x" * 40
                    )
                    for n in range(count)
                ),
            )
        ],
    )


SMALL, LARGE = fleet(3), fleet(2000)


def asked(name="jobs.shoal.test", kind="A", size=None, **header):
    query = dnslib.DNSRecord.question(name, kind)
    for key, value in header.items():
        setattr(query.header, key, value)
    if size is not None:
        query.add_ar(dnslib.EDNS0(udp_len=size))
    return query


def told(query, view=SMALL, **options):
    packet = respond(query.pack(), view, RNG, **options)
    reply = dnslib.DNSRecord.parse(packet)
    assert reply.header.id == query.header.id
    assert reply.header.qr == 1
    return reply, len(packet)


def test_an_answer_repeats_the_question_and_is_authoritative():
    reply, _ = told(asked("jObS.ShOaL.test"))
    assert str(reply.q.qname) == "jObS.ShOaL.test."
    assert {str(rr.rdata) for rr in reply.rr} == {"10.0.0.0", "10.0.0.1", "10.0.0.2"}
    assert (reply.header.aa, reply.header.ra, reply.header.rd) == (1, 0, 1)
    assert reply.ar == []


def test_srv_and_txt_are_readable():
    reply, _ = told(asked("_jobs._tcp.shoal.test", "SRV"))
    assert {(rr.rdata.port, rr.rdata.weight) for rr in reply.rr} == {(5000, 100)}
    assert len(reply.ar) == 3
    reply, _ = told(asked("jobs.shoal.test", "TXT"), udp=False)
    assert all(b"version=1.0" in rr.rdata.data for rr in reply.rr)
    assert b"zookeeper=connected" in told(asked("_status.shoal.test", "TXT"))[0].rr[0].rdata.data


def test_negative_answers_have_the_soa_and_no_authority_is_claimed_elsewhere():
    reply, _ = told(asked("nobody.shoal.test"))
    assert reply.header.rcode == dnslib.RCODE.NXDOMAIN
    assert reply.auth[0].rtype == dnslib.QTYPE.SOA
    reply, _ = told(asked("example.org"))
    assert (reply.header.rcode, reply.header.aa) == (dnslib.RCODE.REFUSED, 0)


@pytest.mark.parametrize(
    ("size", "most"),
    [(None, PLAIN_UDP), (100, PLAIN_UDP), (900, 900), (4096, EDNS_UDP), (65535, EDNS_UDP)],
)
@pytest.mark.parametrize("kind", ["A", "SRV", "TXT"])
def test_what_does_not_fit_is_truncated_and_says_so(size, most, kind):
    reply, length = told(asked(kind=kind, size=size), LARGE)
    assert length <= most
    assert reply.header.tc == 1
    assert len(reply.rr) >= 1
    # Nearly nothing is wasted: one more record would not fit.
    assert length > most - 250
    assert [rr.rtype for rr in reply.ar] == ([dnslib.QTYPE.OPT] if size is not None else [])


def test_additional_records_go_first_and_silently():
    view = fleet(8)
    reply, length = told(asked(kind="SRV"), view)
    assert length <= PLAIN_UDP
    assert (len(reply.rr), len(reply.ar), reply.header.tc) == (8, 0, 0)


def test_by_tcp_all_come_and_never_more_than_a_packet_holds():
    reply, _ = told(asked(), LARGE, udp=False)
    assert (len(reply.rr), reply.header.tc) == (2000, 0)
    reply, length = told(asked(kind="TXT"), LARGE, udp=False)
    assert length <= TCP
    assert 500 < len(reply.rr) < 2000
    assert reply.header.tc == 0


def test_edns_of_another_version_is_refused_with_ours():
    query = asked()
    query.add_ar(dnslib.EDNS0(version=1, udp_len=1000))
    reply, _ = told(query)
    assert reply.header.rcode == 0
    assert (reply.ar[0].edns_rcode, reply.ar[0].edns_ver) == (1, 0)
    assert reply.rr == []


def test_two_edns_records_are_an_error():
    query = asked(size=1000)
    query.add_ar(dnslib.EDNS0(udp_len=1000))
    assert told(query)[0].header.rcode == dnslib.RCODE.FORMERR


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (asked(opcode=5).pack(), dnslib.RCODE.NOTIMP),
        (struct.pack("!6H", 7, 0, 0, 0, 0, 0), dnslib.RCODE.FORMERR),
        (struct.pack("!6H", 7, 0, 2, 0, 0, 0) + b"\0" * 10, dnslib.RCODE.FORMERR),
        (struct.pack("!6H", 7, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1", dnslib.RCODE.FORMERR),
        (struct.pack("!6H", 7, 0, 1, 0, 0, 0) + b"\1\xff\0\0\1\0\1", dnslib.RCODE.FORMERR),
        (struct.pack("!6H", 7, 0, 1, 0, 0, 9) + b"\0\0\1\0\1", dnslib.RCODE.FORMERR),
        (asked().pack() + b"x" * LONGEST_QUERY, dnslib.RCODE.FORMERR),
    ],
)
def test_what_cannot_be_read_is_told_so(packet, code):
    reply = dnslib.DNSRecord.parse(respond(packet, SMALL, RNG))
    assert reply.header.rcode == code


def test_a_name_that_a_pointer_makes_too_long_is_an_error():
    label = b"\x3f" + b"x" * 63
    head = struct.pack("!6H", 7, 0, 1, 0, 0, 0)
    # A pointer to its own beginning would never end.
    query = head + label * 3 + b"\xc0\x0c" + b"\0\1\0\1"
    reply = dnslib.DNSRecord.parse(respond(query, SMALL, RNG))
    assert reply.header.rcode == dnslib.RCODE.FORMERR
    query = head + label * 4 + b"\0" + b"\0\1\0\1"
    reply = dnslib.DNSRecord.parse(respond(query, SMALL, RNG))
    assert reply.header.rcode == dnslib.RCODE.FORMERR


@pytest.mark.parametrize("packet", [b"", b"x" * 11, asked(qr=1).pack()])
def test_what_deserves_no_answer_gets_none(packet):
    assert respond(packet, SMALL, RNG) is None


def test_a_fault_of_ours_is_a_servfail(monkeypatch):
    def broken(*_):
        raise RuntimeError("a fault")

    monkeypatch.setattr("shoal.dns.wire.answer", broken)
    assert told(asked())[0].header.rcode == dnslib.RCODE.SERVFAIL


def holds(packet, *, udp):
    reply = respond(packet, SMALL, RNG, udp=udp)
    if reply is not None:
        assert reply[:2] == packet[:2]
        assert reply[2] & 0x80
        assert len(reply) <= (EDNS_UDP if udp else TCP)
        dnslib.DNSRecord.parse(reply)


@given(st.binary(max_size=600), st.booleans())
def test_no_bytes_break_it(packet, udp):
    holds(packet, udp=udp)


headers = st.builds(
    lambda number, flags, counts: struct.pack("!6H", number, flags, *counts),
    st.integers(0, 65535),
    st.integers(0, 0x7FFF),
    st.tuples(*[st.integers(0, 3)] * 4),
)
# Labels, pointers to anywhere, and the ends of names.
names = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=63).map(lambda label: bytes([len(label)]) + label),
        st.integers(0xC000, 0xFFFF).map(lambda pointer: pointer.to_bytes(2)),
        st.sampled_from([b"\4jobs", b"\5shoal\4test", b"\0"]),
    ),
    max_size=8,
).map(b"".join)


@settings(max_examples=200)
@given(headers, names, st.binary(max_size=80), st.booleans())
def test_nor_do_packets_that_are_nearly_right(header, name, rest, udp):
    holds(header + name + rest, udp=udp)


@given(st.data())
def test_nor_does_a_good_packet_with_some_bytes_changed(data):
    packet = bytearray(asked(size=1232).pack())
    for _ in range(data.draw(st.integers(1, 4))):
        packet[data.draw(st.integers(2, len(packet) - 1))] = data.draw(st.integers(0, 255))
    holds(bytes(packet), udp=True)


@given(
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=15), min_size=1, max_size=5)
)
def test_any_name_gets_an_answer_about_that_name(labels):
    name = dnslib.DNSLabel(
        [label.encode() for label in labels if len(label.encode()) < 64] + [b"shoal", b"test"]
    )
    query = dnslib.DNSRecord(q=dnslib.DNSQuestion(name))
    reply = dnslib.DNSRecord.parse(respond(query.pack(), SMALL, RNG))
    assert reply.q.qname.label == name.label
    assert reply.header.rcode in (dnslib.RCODE.NOERROR, dnslib.RCODE.NXDOMAIN)
