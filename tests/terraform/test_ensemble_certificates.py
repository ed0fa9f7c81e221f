"""A real ensemble that speaks TLS as user data sets it up, and is renewed node by node."""

import contextlib
import os
import secrets
import socket
import ssl
import subprocess
import sys
import time

import pytest
from kazoo.exceptions import NoAuthError

from shoal import zookeepertls
from shoal.authority import DAY
from shoal.testing.installed import find_classpath, find_java
from shoal.testing.zookeeperserver import wrapped
from shoal.tls import Tls
from tests.support.boot import CERTIFICATES, COMMON, TLS, ZOOKEEPER
from tests.support.vault import ARN, FILES
from tests.support.waiting import eventually

# Of systemd: starts the server anew when it ends, and what precedes each start.
SUPERVISOR = """
while true; do
  cp -PT --remove-destination {tls}/zookeeper {node}/started
  {java} {options} -cp {classpath} {main} {node}/zoo.cfg &
  echo $! >{node}/pid
  wait $!
done
"""


STARTS_SOON = ("-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


SYSTEMCTL = """
[ "$1" = restart ] || exit 0
pid=$(cat {node}/pid)
kill "$pid"
while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
"""


class Node:
    """One of the ensemble, as its host would run it."""

    def __init__(self, shell, place, number, addresses):
        self.number, self.address, self.place = number, addresses[number - 1], place
        self._shell = shell
        place.mkdir()
        (place / "myid").write_text(f"{number}\n")
        self.said = {
            "NODE": str(number),
            "ENSEMBLE": " ".join(addresses),
            "ADDRESS": self.address,
            "DATA": str(place),
            "TLS": str(place / "tls"),
            "STARTED": str(place / "started"),
            "REGION": "us-east-1",
            "HEAP_MB": "128",
            "CERTIFICATES": f"zookeeper={ARN.format('zookeeper')}",
            "READERS": "zookeeper",
            "RETRY_PAUSE": "0.2",
        }
        self.run("fetch_certificates")
        (place / "zoo.cfg").write_text(
            self.run("zoo_cfg").stdout.replace("tickTime=2000", "tickTime=500")
        )

    def run(self, lines, code=0, **said):
        scripts = (COMMON, CERTIFICATES, TLS, ZOOKEEPER)
        lines = f"set -uo pipefail\n{lines}"
        return self._shell.run(*scripts, lines=lines, environment=self.said | said, code=code)

    def start(self, stack):
        unit = self.run("service_unit").stdout
        assert (
            f"ExecStartPre=/usr/bin/cp -PT --remove-destination {self.place}/tls/zookeeper"
            f" {self.place}/started\n"
        ) in unit
        (command,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
        options = [word for word in command.split() if word.startswith("-Dzookeeper")]
        script = SUPERVISOR.format(
            tls=self.place / "tls",
            node=self.place,
            java=find_java(),
            classpath=find_classpath(),
            options=" ".join([*STARTS_SOON, *options]),
            main="org.apache.zookeeper.server.quorum.QuorumPeerMain",
        )
        log = stack.enter_context((self.place / "log").open("w"))
        self._supervisor = subprocess.Popen(
            ["bash", "-c", script], stdout=log, stderr=log, start_new_session=True
        )
        stack.callback(self.kill)

    def kill(self):
        """The server, and who would start it again."""
        if self._supervisor.returncode is None:
            os.killpg(self._supervisor.pid, 9)
            self._supervisor.wait()

    def mode(self, tls):
        try:
            with contextlib.closing(self._opened(tls)) as connection:
                connection.sendall(b"srvr")
                said = b"".join(iter(lambda: connection.recv(4096), b"")).decode()
        except OSError:
            return ""
        return said.partition("Mode: ")[2].split("\n")[0]

    def shown(self, tls):
        """The certificate that the server shows now."""
        with contextlib.closing(self._opened(tls)) as connection:
            return ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True))

    def _opened(self, tls):
        return wrapped(socket.create_connection((self.address, 2281), 5), tls)

    def renew(self, code=0):
        """What the node's timer runs."""
        self._shell.program("systemctl", SYSTEMCTL.format(node=self.place))
        script = self.run(
            "certificates_script RETRY_PAUSE NODE ENSEMBLE ADDRESS STARTED retry ask serves"
            " restart_in_turn renew_certificate"
        ).stdout
        return self._shell.run(lines=script, code=code)

    def renew_and_go_on(self):
        """The same, where nobody waits for a majority that is not to be had yet."""
        self._shell.program("systemctl", SYSTEMCTL.format(node=self.place))
        self.run("retry() { true; }\nrenew_certificate")


@pytest.fixture
def nodes(shell, vault, tmp_path):
    """Three real servers by the configuration and the options that the nodes would have."""
    vault.put()
    block = f"127.{secrets.randbelow(200) + 20}"
    addresses = [f"{block}.{number}.1" for number in (1, 2, 3)]
    nodes = [Node(shell, tmp_path / f"node-{number}", number, addresses) for number in (1, 2, 3)]
    with contextlib.ExitStack() as stack:
        for node in nodes:
            node.start(stack)
        tls = Tls.of(vault.issued / "zookeeper")
        eventually(lambda: all(node.mode(tls) for node in nodes), what="an ensemble", timeout=60)
        yield nodes


@contextlib.contextmanager
def client(node, vault, name):
    made = zookeepertls.client(f"{node.address}:2281", Tls.of(vault.issued / name))
    yield made
    made.stop()
    made.close()


def shoal(place, nodes, *arguments):
    servers = ",".join(f"{node.address}:2281" for node in nodes)
    options = ["--zookeeper", f"tls://{servers}/shoal", "--tls", str(place)]
    return subprocess.run(
        [sys.executable, "-m", "shoal_gateway.cli", *options, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.timeout(300)
def test_an_ensemble_speaks_tls_only_and_takes_new_certificates_one_node_at_a_time(
    shell, vault, nodes, imds, tmp_path
):
    tls = Tls.of(vault.issued / "zookeeper")
    # Nobody without a certificate; no other door.
    for node in nodes:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((node.address, 2181), 5)
    # Operators close the tree; services write below their own names, and operators mend that, too.
    vault.issue("operator")
    done = shoal(vault.issued / "operator", nodes, "zookeeper", "protect", "--root")
    assert done.returncode == 0, done.stderr
    with client(nodes[0], vault, "api") as api, client(nodes[0], vault, "operator") as operator:
        mine = api.create("/shoal/services/api/mine", b"")
        with pytest.raises(NoAuthError):
            api.create("/shoal/services/registry/evil", b"")
        operator.set(mine, b"mended")
        operator.delete(mine)

    # Renewed: each node takes it in its turn, the leader too, and only once.
    vault.issue("zookeeper")
    vault.put()
    old, new = nodes[0].shown(tls), (vault.issued / "zookeeper" / "tls.crt").read_text()
    assert old != new
    turn = sorted(nodes, key=lambda node: node.mode(tls) == "leader")[1:]
    for node in turn:
        assert node.shown(tls) == old
        done = node.renew()
        assert f"node {node.number} restarts with another certificate" in done.stderr
        assert node.shown(tls) == new
    assert sorted(node.mode(tls) for node in nodes) == ["follower", "follower", "leader"]
    restarts = [call for call in shell.called() if "restart" in call.split()]
    assert restarts == ["systemctl restart shoal-zookeeper.service"] * 2
    # Nothing new: nothing restarts.
    turn[0].renew()
    assert [call for call in shell.called() if "restart" in call.split()] == restarts

    # A new authority, and nobody was told to trust it first, so that no server lets in who asks it
    # now. They come to trust it in their turns all the same, and find each other again.
    vault.authority.roll()
    vault.issue("zookeeper")
    vault.put()
    new = (vault.issued / "zookeeper" / "tls.crt").read_text()
    for node in nodes:
        node.renew_and_go_on()
    eventually(
        lambda: all(node.mode(tls) and node.shown(tls) == new for node in nodes),
        what="an ensemble by the new authority",
        timeout=60,
    )

    # One is lost: the others keep what they have, for their restart would end the majority.
    vault.issue("zookeeper")
    vault.put()
    nodes[2].kill()
    eventually(lambda: all(node.mode(tls) for node in nodes[:2]), what="the others' majority")
    done = nodes[0].renew(code=1)
    assert "without it 1 of 3 nodes would serve" in done.stderr
    assert nodes[0].shown(tls) == new

    # What the health timer runs: without a majority it lives, and with a certificate that the
    # server turns away, too. A dead one is given up after ten times.
    failures = tmp_path / "failures"
    scripts = [node.run("health_script", IMDS=imds).stdout for node in nodes]
    nodes[1].kill()
    eventually(lambda: not nodes[0].mode(tls), what="the loss of the majority")

    def look(script):
        return shell.run(lines=script.replace("/run/shoal-zookeeper-failures", str(failures)))

    shell.program("aws")
    look(scripts[0])
    vault.issue("zookeeper", days=1.0, now=time.time() - 2 * DAY)
    for file in FILES:
        kept = nodes[0].place / "tls" / "zookeeper" / file
        kept.write_bytes((vault.issued / "zookeeper" / file).read_bytes())
    assert "lives, and refuses this node's certificate" in look(scripts[0]).stderr
    assert not failures.exists()
    asked = len(shell.called())
    for _ in range(9):
        look(scripts[1])
    assert len(shell.called()) == asked
    look(scripts[1])
    assert shell.called()[asked:] == [
        "aws autoscaling set-instance-health --region us-east-1"
        " --instance-id i-0123456789abcdef0 --health-status Unhealthy"
    ]
