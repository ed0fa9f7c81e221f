"""What is answered to which question, without packets or sockets."""

import random
from ipaddress import ip_address

import pytest

from shoal.dns.answers import Code, Question, Srv, Text, Type, answer
from shoal.dns.view import Service, View, Zone, address_labels, build, labels_of, usable
from shoal_balancer import Replica, Status

RNG = random.Random(1)
ZONE = Zone(
    labels_of("shoal.test"),
    ttl=3,
    negative_ttl=4,
    server=(ip_address("127.0.0.1"),),
)
A = Replica("a", "10.0.0.1", 5001, version="1.2", flavor="sql", weight=2.0)
B = Replica("b", "10.0.0.2", 5002, version="1.3", flavor="Files", weight=0.5)
V6 = Replica("c", "fd00::7", 5003, flavor="sql")
NAMED = Replica("d", "worker.example.org", 5004)


def view(*replicas, name="jobs", **options):
    return build(ZONE, [Service(name, replicas)], **options)


def ask(view, name, kind=Type.A, **options):
    return answer(Question(tuple(name.split(".")), kind, **options), view, RNG)


def values(said):
    return sorted(str(record.value) for record in said.records)


def targets(said):
    return {
        (each.value.weight, each.value.port, ".".join(each.value.target)) for each in said.records
    }


def test_addresses_by_family_and_each_once():
    same_host = Replica("e", "10.0.0.1", 5009)
    whole = view(A, B, V6, same_host)
    assert values(ask(whole, "jobs.shoal.test")) == ["10.0.0.1", "10.0.0.2"]
    assert values(ask(whole, "jobs.shoal.test", Type.AAAA)) == ["fd00::7"]
    said = ask(view(A), "jobs.shoal.test", Type.AAAA)
    assert (said.code, said.records) == (Code.NOERROR, ())
    assert [record.type for record in said.authority] == [Type.SOA]


def test_letters_may_have_any_case_and_the_owner_is_named_as_asked():
    (record,) = ask(view(A), "JoBs.Shoal.TEST").records
    assert record.labels == ("JoBs", "Shoal", "TEST")


def test_flavors_have_names_of_their_own():
    whole = view(A, B, V6)
    assert values(ask(whole, "sql.jobs.shoal.test")) == ["10.0.0.1"]
    assert values(ask(whole, "files.jobs.shoal.test")) == ["10.0.0.2"]
    assert ask(whole, "slurm.jobs.shoal.test").code is Code.NXDOMAIN


def test_a_dotted_service_is_as_many_labels_and_its_parents_exist():
    whole = view(A, name="gateway.jobs")
    assert values(ask(whole, "gateway.jobs.shoal.test")) == ["10.0.0.1"]
    assert values(ask(whole, "sql.gateway.jobs.shoal.test")) == ["10.0.0.1"]
    assert ask(whole, "jobs.shoal.test").code is Code.NOERROR
    assert targets(ask(whole, "_gateway.jobs._tcp.shoal.test", Type.SRV))


@pytest.mark.parametrize("name", ["jobs.shoal.test", "_jobs._tcp.shoal.test"])
def test_srv_records_tell_ports_weights_and_where(name):
    said = ask(view(A, B, V6, NAMED), name, Type.SRV)
    assert targets(said) == {
        (200, 5001, "10-0-0-1.addr.shoal.test"),
        (50, 5002, "10-0-0-2.addr.shoal.test"),
        (100, 5003, "fd00-0000-0000-0000-0000-0000-0000-0007.addr.shoal.test"),
        (100, 5004, "worker.example.org"),
    }
    assert {".".join(each.labels): str(each.value) for each in said.additional} == {
        "10-0-0-1.addr.shoal.test": "10.0.0.1",
        "10-0-0-2.addr.shoal.test": "10.0.0.2",
        "fd00-0000-0000-0000-0000-0000-0000-0007.addr.shoal.test": "fd00::7",
    }
    for record in said.additional:
        assert values(ask(view(A, B, V6), ".".join(record.labels), record.type)) == [
            str(record.value)
        ]


def test_rfc_2782_names_have_nothing_but_srv():
    said = ask(view(A), "_jobs._tcp.shoal.test")
    assert (said.code, said.records) == (Code.NOERROR, ())


@pytest.mark.parametrize("heaviest", [1.0, 655.35, 656.0, 1e12])
def test_weights_keep_their_ratio_and_fit_sixteen_bits(heaviest):
    heavy = Replica("h", "10.0.0.8", 1, weight=heaviest)
    half = Replica("i", "10.0.0.9", 1, weight=heaviest / 2)
    tiny = Replica("j", "10.0.0.10", 1, weight=1e-9)
    said = ask(view(heavy, half, tiny), "jobs.shoal.test", Type.SRV)
    by_port = sorted(record.value.weight for record in said.records)
    assert by_port[0] == 1
    assert by_port[1] / by_port[2] == pytest.approx(0.5, abs=0.01)
    assert by_port[2] <= 65535


def test_texts_tell_version_and_flavor_of_each_replica():
    said = ask(view(A, B), "jobs.shoal.test", Type.TXT)
    texts = {record.value.strings for record in said.records}
    assert {("id=a", "version=1.2", "flavor=sql"), ("id=b", "version=1.3", "flavor=Files")} == {
        strings[:3] for strings in texts
    }
    long = Replica("l", "10.0.0.1", 1, version="ä" * 400)
    (record,) = ask(view(long), "jobs.shoal.test", Type.TXT).records
    assert all(len(text.encode()) <= 255 for text in record.value.strings)


def test_only_who_is_up_and_enabled_is_named_but_rather_the_busy_than_nobody():
    busy = Replica("x", "10.0.1.1", 1, status=Status.BUSY)
    leaving = Replica("y", "10.0.1.2", 1, status=Status.DRAINING)
    off = Replica("z", "10.0.1.3", 1, enabled=False)
    assert usable([A, busy, leaving, off]) == (A,)
    # One among many must not get everything.
    assert usable([A, busy, busy, busy]) == (A, busy, busy, busy)
    assert usable([busy, leaving, off]) == (busy,)
    said = ask(view(leaving, off), "jobs.shoal.test")
    assert (said.code, said.records) == (Code.NOERROR, ())


def test_what_is_not_there_is_told_with_how_long_that_may_be_kept():
    said = ask(view(A, serial=77), "jbos.shoal.test")
    assert (said.code, said.authoritative) == (Code.NXDOMAIN, True)
    (soa,) = said.authority
    assert (soa.ttl, soa.value.minimum, soa.value.serial) == (4, 4, 77)
    assert {record.ttl for record in ask(view(A), "jobs.shoal.test").records} == {3}


def test_names_between_names_exist():
    for name in ("_tcp.shoal.test", "addr.shoal.test"):
        assert ask(view(A), name).code is Code.NOERROR


def test_what_is_not_known_yet_is_not_denied():
    assert ask(View(ZONE), "jobs.shoal.test").code is Code.SERVFAIL
    reading = build(ZONE, [Service("jobs", None)])
    assert ask(reading, "jobs.shoal.test").code is Code.SERVFAIL
    from_disk = view(A, complete=False)
    assert values(ask(from_disk, "jobs.shoal.test")) == ["10.0.0.1"]
    assert ask(from_disk, "other.shoal.test").code is Code.SERVFAIL


@pytest.mark.parametrize(
    "question",
    [
        Question(("jobs", "example", "org"), Type.A),
        Question(("test",), Type.A),
        Question((), Type.NS),
        Question(("notshoal", "test"), Type.A),
        Question(("jobs", "shoal", "test"), Type.A, 3),
        Question(("shoal", "test"), Type.AXFR),
    ],
)
def test_what_is_not_ours_is_refused(question):
    said = answer(question, view(A), RNG)
    assert (said.code, said.authoritative, said.records) == (Code.REFUSED, False, ())


def test_the_zone_itself_has_soa_and_ns():
    whole = view(A, serial=5)
    (soa,) = ask(whole, "shoal.test", Type.SOA).records
    assert soa.value.serial == 5
    said = ask(whole, "shoal.test", Type.NS)
    assert [record.value.labels for record in said.records] == [("ns", "shoal", "test")]
    assert [str(record.value) for record in said.additional] == ["127.0.0.1"]
    assert values(ask(whole, "ns.shoal.test")) == ["127.0.0.1"]
    said = ask(whole, "shoal.test")
    assert (said.code, said.records) == (Code.NOERROR, ())


def test_any_gets_one_kind():
    said = ask(view(A, B), "jobs.shoal.test", Type.ANY)
    assert {record.type for record in said.records} == {Type.A}


def test_each_replica_comes_first_now_and_then():
    whole = view(A, B, V6)
    first = {str(ask(whole, "jobs.shoal.test").records[0].value) for _ in range(100)}
    assert first == {"10.0.0.1", "10.0.0.2"}
    srv = {ask(whole, "jobs.shoal.test", Type.SRV).records[0].value.port for _ in range(200)}
    assert srv == {5001, 5002, 5003}


def test_status_tells_what_is_stale():
    whole = build(
        ZONE,
        [Service("jobs", (A, B)), Service("old", (A,), age=12.34, held=True)],
        zookeeper="suspended for 9.0 s",
    )
    said = ask(whole, "_status.shoal.test", Type.TXT)
    texts = [record.value.strings for record in said.records]
    assert texts[0] == ("zookeeper=suspended for 9.0 s", "services=2", "complete=yes")
    assert "stale=no" in texts[1]
    assert {"age=12.3", "held=yes", "stale=yes"} < set(texts[2])
    assert {record.ttl for record in said.records} == {0}


def test_what_cannot_be_named_is_left_out_and_told():
    services = [
        Service("x" * 64, (A,)),
        Service("a..b", (A,)),
        Service("Jobs", (A,)),
        Service("jobs", (B,)),
        Service("ns", (B,)),
        Service("fine", (B, Replica("q", "10.0.0.3", 1, flavor="y" * 64))),
    ]
    whole = build(ZONE, services)
    assert [each.partition(":")[0] for each in whole.left_out] == ["a..b", "jobs", "ns", "x" * 64]
    assert values(ask(whole, "jobs.shoal.test")) == ["10.0.0.1"]
    assert values(ask(whole, "fine.shoal.test")) == ["10.0.0.2", "10.0.0.3"]


def test_values_are_what_they_say():
    (record,) = ask(view(A), "jobs.shoal.test", Type.SRV).records
    assert record.value == Srv(
        200,
        5001,
        (*address_labels(ip_address("10.0.0.1")), "shoal", "test"),
    )
    assert isinstance(ask(view(A), "jobs.shoal.test", Type.TXT).records[0].value, Text)
