"""Java's own Curator and we find each other, through one ZooKeeper and nothing else in common."""

import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

import shoal
from shoal.testing.installed import find_java
from shoal_balancer import Status
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc
from tests.support.echo import Echo, EchoServer
from tests.support.waiting import eventually

SOURCES = sorted((Path(__file__).parent / "java").glob("*.java"))
JARS = "/usr/share/java"
# What they need they name in their manifests; the first one forgets the second.
CURATOR = (f"{JARS}/curator-x-discovery.jar", f"{JARS}/curator-recipes.jar")
PACKAGES = "default-jdk-headless libcurator-discovery-java libcurator-recipes-java"
LONG = 60.0


class Java:
    """One of the programs, which answers each line with a line."""

    def __init__(self, compiled, name, *arguments):
        command = [find_java(), "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        command += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
        command += ["-cp", ":".join([str(compiled), *CURATOR, f"{JARS}/slf4j-simple.jar"]), name]
        self.process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hears(self):
        line = self.process.stdout.readline()
        assert line, f"it ended with {self.process.wait()}; what it said is in the captured stderr"
        return line.strip()

    def ask(self, line=""):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.hears()

    def end(self):
        self.process.stdin.close()
        assert self.process.wait(LONG) == 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The directory with the compiled programs."""
    if shutil.which("javac") is None or not all(map(os.path.exists, CURATOR)):
        pytest.skip(f"needs Java's compiler and Curator: apt-get install {PACKAGES}")
    out = tmp_path_factory.mktemp("java")
    command = [
        "javac",
        "-Xlint:all,-path",
        "-Werror",
        "-cp",
        ":".join(CURATOR),
        "-d",
        out,
        *SOURCES,
    ]
    subprocess.run(command, check=True)
    return out


class Held:
    """Servers of one Echo that holds every call until it is let go; all end with the block."""

    def __init__(self, directory, *names):
        self.arrived, self._go = threading.Event(), threading.Event()
        servicer = Echo("held")
        servicer.script = lambda _: (self.arrived.set(), self._go.wait(LONG))
        self.servers = [
            shoal.Server("echo", id=name, version="1.4.2", zone="z1", linger=0.0, grace=LONG)
            for name in names
        ]
        for server in self.servers:
            echo_pb2_grpc.add_EchoServicer_to_server(servicer, server)
            server.serve(directory)

    def let_go(self):
        self._go.set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.let_go()
        for server in self.servers:
            assert server.stop(0).wait(LONG)


def test_curator_finds_our_servers_and_sees_a_drain(compiled, chroot, directories):
    with (
        Held(directories(), "leaving", "staying") as held,
        Java(compiled, "Reader", chroot, "/services", "echo", "java.util.Map") as reader,
    ):
        leaving, staying = held.servers

        def seen():
            told = json.loads(reader.ask())
            return sorted(told["offered"]), {each["id"]: each for each in told["all"]}

        eventually(lambda: seen()[0] == ["leaving", "staying"], LONG, "that Curator offers both")
        for server in held.servers:
            each = seen()[1][server.replica.id]
            assert each["name"] == "echo"
            assert (each["address"], each["port"]) == ("127.0.0.1", server.replica.port)
            assert (each["enabled"], each["serviceType"]) == (True, "DYNAMIC")
            assert each["registrationTimeUTC"] == round(server.replica.registered_at * 1000)
            assert each["payload"]["version"] == "1.4.2"
            assert (each["payload"]["zone"], each["payload"]["status"]) == ("z1", "UP")

        staying.set_status(Status.BUSY)
        eventually(lambda: seen()[1]["staying"]["payload"]["status"] == "BUSY", LONG)
        assert seen()[0] == ["leaving", "staying"], "who is busy is called all the same"

        with (
            shoal.testing.FixedDirectory({"echo": [leaving.replica.target]}) as fixed,
            fixed.channel("echo") as channel,
        ):
            call = echo_pb2_grpc.EchoStub(channel).Echo.future(echo_pb2.EchoRequest())
            assert held.arrived.wait(LONG)
            stopped = leaving.stop()
            eventually(lambda: seen()[0] == ["staying"], LONG, "that one is offered no more")
            each = seen()[1]["leaving"]
            assert (each["enabled"], each["payload"]["status"]) == (False, "DRAINING")
            held.let_go()
            assert call.result(LONG).server == "held"
        assert stopped.wait(LONG)
        eventually(lambda: list(seen()[1]) == ["staying"], LONG, "that it is gone for Curator")
        reader.end()


def test_a_java_class_for_the_payload_is_named_in_our_metadata(compiled, chroot, directories):
    # Without its name Curator throws ClassCastException: it looks for no other sign of the type.
    replica = shoal.Replica(
        "a", "10.0.0.5", 50051, version="2.0", weight=3.0, metadata={"@class": "Facts"}
    )
    directories().announce("jobs", replica)
    with Java(compiled, "Reader", chroot, "/services", "jobs", "Facts") as reader:
        (found,) = json.loads(reader.ask())["all"]
        payload = found["payload"]
        assert (payload["@class"], payload["version"], payload["weight"]) == ("Facts", "2.0", 3.0)
        reader.end()


def test_our_callers_call_what_curator_announces(compiled, chroot, directories, operator):
    # Java does not make a chroot, and our callers make nothing.
    operator.ensure_path(f"/{chroot.partition('/')[2]}")
    directory = directories()
    with EchoServer("java's") as theirs, EchoServer("ours") as ours:
        port = theirs.port
        arguments = (chroot, "/services", "echo", "one-of-java", "127.0.0.1", port)
        with (
            Java(compiled, "Announcer", *arguments) as announcer,
            directory.channel("echo", version=">=3,<4") as channel,
        ):
            assert announcer.hears() == "announced"
            (replica,) = directory.ready("echo", LONG)
            assert (replica.id, replica.target) == ("one-of-java", theirs.target)
            assert (replica.version, replica.zone) == ("3.1", "java")
            assert replica.registered_at > 1.7e9
            stub = echo_pb2_grpc.EchoStub(channel)
            answer = stub.Echo(echo_pb2.EchoRequest(payload=b"a"), timeout=LONG)
            assert (answer.server, answer.payload) == ("java's", b"a")

            replicas = directory.watch("echo").replicas
            for line, routable in (
                ("false UP", False),
                ("true OUT_OF_SERVICE", False),
                ("true UP", True),
            ):
                assert announcer.ask(line) == "updated"
                eventually(lambda want=routable: replicas()[0].routable is want, LONG, line)

            # Another, so that the set does not become empty: that would not be believed.
            host, _, port = ours.target.rpartition(":")
            directory.announce("echo", shoal.Replica("ours", host, int(port), version="3.2"))
            announcer.end()
            eventually(lambda: [each.id for each in replicas()] == ["ours"], LONG)
            assert stub.Echo(echo_pb2.EchoRequest(), timeout=LONG).server == "ours"
