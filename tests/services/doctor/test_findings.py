"""What the doctor makes of what it sees: pure parts, and this machine."""

import os
import socket
import time
import zipfile
from email.message import Message
from pathlib import Path

import pytest

from shoal.authority import DAY, Authority
from shoal.identity import PeerIdentity
from shoal.tls import Tls
from shoal_gateway.doctor import ensemble, machine, places, versions
from shoal_gateway.doctor.findings import Verdict, all_of, ok
from shoal_gateway.doctor.versions import parsed

OK, WARNING, PROBLEM = Verdict.OK, Verdict.WARNING, Verdict.PROBLEM

WANTED = parsed(
    [
        "grpcio>=1.76",
        "kazoo>=2.11",
        "cryptography>=44; extra == 'keys'",
        'psycopg[binary]>=3.2; extra == "postgres"',
        "a>=1; extra == 'two'",
        "b>=1; extra == 'two'",
    ]
)


def verdicts(findings):
    return {each.what: each.verdict for each in findings}


def facts(python=">=3.11", tested=("3.11", "3.12")):
    told = Message()
    told["Requires-Python"] = python
    for each in tested:
        told["Classifier"] = f"Programming Language :: Python :: {each}"
    return told


@pytest.mark.parametrize(
    ("version", "verdict"),
    [((3, 10, 9), PROBLEM), ((3, 11, 0), OK), ((3, 12, 1), OK), ((3, 14, 0), WARNING)],
)
def test_the_interpreter(version, verdict):
    assert verdicts(versions.python(version, facts())) == {"Python": verdict}


def test_packages_that_are_there_new_enough():
    have = {"grpcio": "1.76.0", "kazoo": "2.11.0rc1", "cryptography": "45.0"}
    assert verdicts(versions.packages(WANTED, have.get)) == {
        "grpcio": OK,
        "kazoo": OK,
        "shoal[keys]": OK,
        "shoal[postgres]": OK,
        "shoal[two]": OK,
    }


def test_packages_that_are_old_or_missing_and_how_to_mend_it():
    have = {"grpcio": "1.75.1", "cryptography": "43.9", "psycopg": "3.2", "a": "1"}
    found = {each.what: each for each in versions.packages(WANTED, have.get)}
    assert {name: each.verdict for name, each in found.items()} == {
        "grpcio": PROBLEM,
        "kazoo": PROBLEM,
        "shoal[keys]": PROBLEM,
        "shoal[postgres]": OK,
        "shoal[two]": WARNING,
    }
    assert found["grpcio"].mend == "pip install --upgrade 'grpcio>=1.76'"
    assert found["kazoo"].found == "is not installed"
    assert "cryptography 43.9 (needs cryptography>=44)" in found["shoal[keys]"].found


@pytest.mark.parametrize(
    ("how", "version", "holds"),
    [
        (">=1.76", "1.76", True),
        (">=1.76", "1.100.0", True),
        (">=1.76,<2", "2.0", False),
        ("~=1.4", "1.9", True),
        ("~=1.4", "2.0", False),
        ("!=1.5", "1.5.0", False),
        ("==1.5", "1.5", True),
        (">1.5", "1.5.0", False),
        ("<=1.5", "1.5", True),
    ],
)
def test_bounds(how, version, holds):
    assert parsed([f"x{how}"])[0].met(version) is holds


def test_what_this_installation_wants_is_read():
    wanted = parsed(versions._metadata().get_all("Requires-Dist"))
    assert {each.name for each in wanted if not each.extra} == {
        "grpcio",
        "protobuf",
        "kazoo",
        "tenacity",
    }
    assert all(each.bounds for each in wanted)


SRVR = """Zookeeper version: 3.8.0-5a02a05eddb59aee6ac762f7ea82e92a68eb9c0f, built on 2022
Latency min/avg/max: 0/0.52/95
Received: 1
Mode: {}
"""


def test_servers_are_asked_one_by_one():
    def ask(host, _port, _tls):
        if host == "gone":
            raise ConnectionRefusedError(111, "Connection refused")
        return SRVR.format("leader" if host == "one" else "follower")

    found = list(ensemble.servers("one:1,two:1,gone:1/x", None, ask))
    assert verdicts(found) == {
        "ZooKeeper one:1": OK,
        "ZooKeeper two:1": OK,
        "ZooKeeper gone:1": PROBLEM,
        "ZooKeeper's ensemble": WARNING,
    }
    assert "3.8.0, leader" in found[0].found
    assert "Connection refused" in found[2].found


@pytest.mark.parametrize(("address", "shown"), [("zk:1/x", False), ("tls://zk:1/x", True)])
def test_a_certificate_is_shown_only_where_the_address_asks_for_one(address, shown, tmp_path):
    asked = []

    def ask(_host, _port, tls):
        asked.append(tls is not None)
        return SRVR.format("standalone")

    list(ensemble.servers(address, Tls.of(tmp_path), ask))
    assert asked == [shown]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("This ZooKeeper instance is not currently serving requests\n", PROBLEM),
        ("srvr is not executed because it is not in the whitelist.\n", WARNING),
        (SRVR.format("standalone").replace("3.8.0", "3.4.14"), PROBLEM),
        (SRVR.format("standalone"), OK),
    ],
)
def test_what_a_server_answers(answer, verdict):
    found = list(ensemble.servers("zk:1", None, lambda *_: answer))
    assert found[0].verdict is verdict


@pytest.mark.parametrize(
    ("modes", "named", "verdict"),
    [
        ([], 3, PROBLEM),
        (["leader", "follower", "follower"], 3, OK),
        (["leader", "follower"], 3, WARNING),
        (["leader", "follower", "follower", "follower"], 4, WARNING),
        (["standalone", "standalone", "standalone"], 3, PROBLEM),
        (["leader", "leader", "follower"], 3, PROBLEM),
        (["", "", ""], 3, OK),
    ],
)
def test_ensembles(modes, named, verdict):
    assert [each.verdict for each in ensemble.ensemble(modes, named)] == [verdict]


@pytest.mark.parametrize(
    ("made", "verdict", "word"),
    [
        (100.02, OK, "agrees"),
        (99.5, OK, "agrees"),
        (104.0, WARNING, "3.9 s behind"),
        (90.0, WARNING, "10.0 s ahead of"),
        (1000.0, PROBLEM, "899.9 s behind"),
    ],
)
def test_clocks(made, verdict, word):
    found = ensemble.judged_clock(made, 100.0, 100.1)
    assert (found.verdict, word in found.found) == (verdict, True)


def test_certificates_by_their_end(tmp_path):
    authority = Authority.create(tmp_path / "certs")
    now = time.time()
    made = {
        name: authority.issue(PeerIdentity(name), days=days)
        for name, days in {"long": 90.0, "soon": 5.0, "over": 1.0}.items()
    }
    found = list(places.certificates(made.values(), now + 2 * DAY))
    assert [each.verdict for each in found] == [OK, WARNING, PROBLEM]
    assert [each.verdict for each in places.certificates([made["long"]], now - 9 * DAY)] == [
        PROBLEM
    ]
    (made["long"] / "tls.key").chmod(0o640)
    found = list(places.certificates([made["long"], tmp_path / "nowhere"], now))
    assert [each.verdict for each in found] == [PROBLEM, PROBLEM]
    assert "chmod 600" in found[0].mend


def test_objects_are_stored_and_read_again(tmp_path):
    assert [each.verdict for each in places.objects(f"file://{tmp_path}/objects")] == [OK]
    (tmp_path / "file").write_text("")
    assert [each.verdict for each in places.objects(f"file://{tmp_path}/file")] == [PROBLEM]
    assert [each.verdict for each in places.objects("ftp://x")] == [PROBLEM]


def test_places_that_can_be_written_to(tmp_path):
    assert machine.writable("x", tmp_path).verdict is OK
    assert "can be made" in machine.writable("x", tmp_path / "a" / "b").found
    (tmp_path / "file").write_text("")
    assert machine.writable("x", tmp_path / "file" / "b").verdict is PROBLEM


def test_a_place_that_can_not_be_written_to(tmp_path, monkeypatch):
    # Root may write everywhere, so the kernel's answer is stood in for.
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = machine.writable("x", tmp_path)
    assert found.verdict is PROBLEM
    assert "chown" in found.mend


def test_ports():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert verdicts(machine.ports([f"127.0.0.1:{port}"])) == {f"port 127.0.0.1:{port}": PROBLEM}
    assert verdicts(machine.ports([f"127.0.0.1:{port}"])) == {f"port 127.0.0.1:{port}": OK}


def test_hosts_addresses():
    assert verdicts(machine.addresses(["127.0.1.1"])) == {"hosts' addresses": OK}
    assert verdicts(machine.addresses(["192.0.2.1"])) == {"hosts' addresses": PROBLEM}


@pytest.mark.parametrize(
    ("replicas", "soft", "verdict"), [(3, 1024, OK), (1000, 1024, PROBLEM), (1000, -1, OK)]
)
def test_open_files(replicas, soft, verdict):
    assert [each.verdict for each in machine.open_files(replicas, soft)] == [verdict]


@pytest.mark.parametrize(
    ("free", "verdict"), [(100 << 20, PROBLEM), (1 << 30, WARNING), (9 << 30, OK)]
)
def test_disks(tmp_path, monkeypatch, free, verdict):
    usage = machine.shutil._ntuple_diskusage(10 << 30, 0, free)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage)
    # Two places on one disk are one finding.
    found = list(machine.disks([tmp_path / "not there", tmp_path]))
    assert [each.verdict for each in found] == [verdict]


def test_java_and_the_jar_of_this_machine():
    assert [each.verdict for each in machine.java(needed=True)] == [OK]
    found = list(machine.jar(needed=True))
    assert [each.verdict for each in found] == [OK]


@pytest.mark.parametrize(
    ("told", "verdict"),
    [
        ('openjdk version "17.0.1" 2021', OK),
        ('java version "1.8.0_351"', OK),
        ('java version "1.7.0"', PROBLEM),
        ("Segmentation fault", PROBLEM),
    ],
)
def test_versions_of_java(tmp_path, monkeypatch, told, verdict):
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho '{told}' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert [each.verdict for each in machine.java(needed=True)] == [verdict]


def test_without_java_a_fleet_elsewhere_is_well(monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert [each.verdict for each in machine.java(needed=True)] == [PROBLEM]
    assert [each.verdict for each in machine.java(needed=False)] == [OK]


def test_an_unpacked_release_of_zookeeper(tmp_path, monkeypatch):
    (tmp_path / "lib").mkdir()
    with zipfile.ZipFile(tmp_path / "lib" / "zookeeper-3.5.9.jar", "w") as jar:
        jar.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n")
    monkeypatch.setenv("ZOOKEEPER_HOME", str(tmp_path))
    found = list(machine.jar(needed=True))
    assert found[0].verdict is PROBLEM
    assert "3.5.9" in found[0].found


def test_a_check_that_breaks_off_is_a_finding_and_keeps_no_other_away():
    def broken():
        raise RuntimeError("surprise")
        yield

    found = list(all_of([("this", broken), ("that", lambda: [ok("that", "well")])]))
    assert verdicts(found) == {"this": PROBLEM, "that": OK}
    assert "surprise" in found[0].found


def test_the_nearest_place_that_is_there():
    assert machine.nearest(Path("/nowhere/at/all")) == Path("/")
