"""Certificates on hosts: taken from secrets, replaced whole, and spoken by a real ensemble.

Secrets Manager is a directory of files here, which the test's own ``aws`` reads and writes.
"""

import contextlib
import json
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
from shoal.authority import DAY, Authority
from shoal.identity import PeerIdentity
from shoal.testing.installed import find_classpath, find_java
from shoal.testing.zookeeperserver import wrapped
from shoal.tls import Tls, TlsFiles
from tests.support.boot import CERTIFICATES, COMMON, PUT, SERVICES, TLS, ZOOKEEPER
from tests.support.waiting import eventually

FILES = ("tls.crt", "tls.key", "ca.crt")
NAMES = ("registry", "api", "scheduler", "appmanager", "zookeeper")
ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:reef/tls/{}-AbCdEf"

# Files by the secrets' names; what AWS says of one that is missing.
AWS = """
place={place}
mkdir -p "$place"
while [ $# -gt 0 ]; do
  case "$1" in
    --secret-id | --name) name=${{2##*/}} ;;
    --secret-string) from=${{2#file://}} ;;
    describe-secret | create-secret | put-secret-value | get-secret-value) what=$1 ;;
  esac
  shift
done
name=${{name%-AbCdEf}}
if [ "$what" != create-secret ] && ! [ -e "$place/$name" ]; then
  echo "An error occurred (ResourceNotFoundException): can't find the specified secret" >&2
  exit 254
fi
case "$what" in
  create-secret | put-secret-value) cat "$from" >"$place/$name"; echo "{arn}" ;;
  get-secret-value) cat "$place/$name" ;;
esac
"""


class Vault:
    """An authority, and Secrets Manager beside it."""

    def __init__(self, shell, place):
        self._shell = shell
        self.issued = place / "certs"
        self.secrets = place / "secrets"
        self.authority = Authority.create(self.issued)
        self.issue(*NAMES)
        shell.program("aws", AWS.format(place=self.secrets, arn=ARN.format("$name")))
        # Owners can be given by root only.
        shell.program("chown")

    def issue(self, *names, **options):
        for name in names:
            self.authority.issue(PeerIdentity(name), **options)

    def put(self):
        """What an operator does after each change."""
        done = self._shell.run(lines=f"{PUT} reef {self.issued}")
        return done.stdout

    def of(self, name):
        return [(self.issued / name / file).read_bytes() for file in FILES]


@pytest.fixture
def vault(shell, tmp_path):
    return Vault(shell, tmp_path)


@pytest.fixture
def host(shell, vault, tmp_path):
    """Runs lines as the host of these services would."""

    def run(lines, services=("registry", "api"), code=0):
        said = {
            "REGION": "us-east-1",
            "READERS": "shoal",
            "CERTIFICATES": " ".join(f"{each}={ARN.format(each)}" for each in services),
            "TLS": str(tmp_path / "tls"),
        }
        scripts = [COMMON, CERTIFICATES]
        return shell.run(*scripts, lines=f"set -uo pipefail\n{lines}", environment=said, code=code)

    return run


def held(place):
    return [(place / file).read_bytes() for file in FILES]


def test_what_was_issued_is_put_in_secrets_and_fetched_by_hosts(host, vault, shell, tmp_path):
    printed = vault.put()
    assert printed.splitlines()[0] == "certificates = {"
    for name in NAMES:
        assert f'"{ARN.format(name)}"' in printed
    # No key was in a command line.
    assert not [call for call in shell.called() if "PRIVATE KEY" in call or '"tls.key"' in call]

    host("fetch_certificates")
    tls = tmp_path / "tls"
    for name in ("registry", "api"):
        assert held(tls / name) == vault.of(name)
        # Shoal can use them.
        assert f"{name}.shoal.internal" in TlsFiles(Tls.of(tls / name)).current().names
        assert {(tls / name / file).stat().st_mode & 0o777 for file in FILES} == {0o640}
        assert (tls / name).stat().st_mode & 0o777 == 0o750
        place = (tls / name).resolve()
        assert f"chown -R root:shoal {place}" in shell.called()
    assert not (tls / "scheduler").exists()
    asked = [call for call in shell.called() if "get-secret-value" in call]
    assert [call.split("--secret-id ")[1].split()[0] for call in asked] == [
        ARN.format("registry"),
        ARN.format("api"),
    ]

    # Nothing new: nothing moves.
    before = {name: (tls / name).readlink() for name in ("registry", "api")}
    host("fetch_certificates")
    assert {name: (tls / name).readlink() for name in ("registry", "api")} == before
    # One is renewed: all three files at once, and the old ones are gone.
    vault.issue("api")
    vault.put()
    done = host("fetch_certificates")
    assert "api has another certificate" in done.stderr
    assert (tls / "registry").readlink() == before["registry"]
    assert held(tls / "api") == vault.of("api")
    assert sorted(path.name for path in tls.iterdir()) == sorted(
        ["registry", "api", str(before["registry"]), str((tls / "api").readlink())]
    )


def test_all_or_nothing_is_put(vault, shell):
    (vault.issued / "scheduler" / "tls.key").unlink()
    done = shell.run(lines=f"{PUT} reef {vault.issued}", code=1)
    assert "scheduler/tls.key can't be read. Make it: shoal certs issue" in done.stderr
    assert shell.called() == []
    shell.program("aws", "echo 'AccessDeniedException: no' >&2; exit 254")
    vault.issue("scheduler")
    done = shell.run(lines=f"{PUT} reef {vault.issued}", code=1)
    assert "AccessDenied" in done.stderr
    assert len(shell.called()) == 1


def test_what_can_not_work_does_not_take_the_place_of_what_does(host, vault, tmp_path):
    vault.put()
    host("fetch_certificates")
    before = held(tmp_path / "tls" / "registry")
    good = json.loads((vault.secrets / "registry").read_text())
    other = json.loads((vault.secrets / "api").read_text())
    stranger = Authority.create(tmp_path / "stranger")
    vault.issue("registry", days=1.0, now=time.time() - 2 * DAY)
    bad = {
        "tls.key is not the key": good | {"tls.key": other["tls.key"]},
        "hostname mismatch": other,
        "must be a JSON object of tls.crt, tls.key and ca.crt: 'ca.crt'": {
            name: good[name] for name in ("tls.crt", "tls.key")
        },
        "must be a JSON object": [good],
        "has expired": good | {"tls.crt": (vault.issued / "registry" / "tls.crt").read_text()},
        "unable to get local issuer": good
        | {"ca.crt": (stranger.issue(PeerIdentity("registry")) / "ca.crt").read_text()},
    }
    for why, secret in bad.items():
        (vault.secrets / "registry").write_text(json.dumps(secret))
        vault.issue("api")
        (vault.secrets / "api").write_text(
            json.dumps(dict(zip(FILES, map(bytes.decode, vault.of("api")), strict=True)))
        )
        done = host("fetch_certificates", code=1)
        assert why in done.stderr
        assert "what was there stays" in done.stderr
        assert "PRIVATE" not in done.stderr
        assert held(tmp_path / "tls" / "registry") == before
        # The other services' come all the same.
        assert held(tmp_path / "tls" / "api") == vault.of("api")
    (vault.secrets / "registry").unlink()
    assert "ResourceNotFound" in host("fetch_certificates", code=1).stderr
    assert held(tmp_path / "tls" / "registry") == before


def test_a_timer_runs_a_program_of_its_own(host, vault, shell, tmp_path):
    for name in ("UNITS", "SBIN"):
        (tmp_path / name).mkdir()
    shell.program("systemctl")
    vault.put()
    timer = r"$'OnCalendar=*:0/5\nRandomizedDelaySec=240s'"
    host(f"UNITS={tmp_path}/UNITS SBIN={tmp_path}/SBIN\ninstall_certificates {timer}")
    assert held(tmp_path / "tls" / "registry") == vault.of("registry")
    assert "systemctl enable --now shoal-certificates.timer" in shell.called()
    text = (tmp_path / "UNITS" / "shoal-certificates.timer").read_text()
    assert "\nOnCalendar=*:0/5\nRandomizedDelaySec=240s\n" in text
    assert f"ExecStart={tmp_path}/SBIN/shoal-certificates\n" in (
        (tmp_path / "UNITS" / "shoal-certificates.service").read_text()
    )
    vault.issue("registry")
    vault.put()
    # As systemd runs it: with nothing in its environment but a path.
    shell.run(lines=f"{tmp_path}/SBIN/shoal-certificates")
    assert held(tmp_path / "tls" / "registry") == vault.of("registry")


def test_each_service_shows_its_own_certificate(shell, tmp_path):
    said = {
        "ETC": str(tmp_path),
        "TLS": "/etc/shoal/tls",
        "REGION": "us-east-1",
        "SERVICES": "appmanager@local appmanager@other registry",
        "CERTIFICATES": "appmanager=arn:a registry=arn:b",
        **dict.fromkeys(
            ("ZOOKEEPER", "BUCKET", "STORE_URL", "SLOTS", "SETTINGS", "DRAIN_HOOK"), "x"
        ),
        "DRAIN_SECONDS": "300",
    }
    shell.run(COMMON, CERTIFICATES, SERVICES, lines="write_environment", environment=said)
    for name in ("appmanager", "registry"):
        lines = (tmp_path / f"{name}.env").read_text().splitlines()
        assert f"SHOAL_TLS=/etc/shoal/tls/{name}" in lines
    for name in ("shoal", "api", "scheduler", "appmanager-local", "appmanager-other"):
        assert "SHOAL_TLS" not in (tmp_path / f"{name}.env").read_text()
    # And without certificates nobody does.
    shell.run(COMMON, SERVICES, lines="write_environment", environment=said | {"CERTIFICATES": ""})
    assert not [path for path in tmp_path.glob("*.env") if "SHOAL_TLS" in path.read_text()]


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
