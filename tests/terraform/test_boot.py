"""The shell of user data: its functions run here, against real ZooKeeper, disks and PostgreSQL.

What only an instance has is played by programs of the test's own, first on the path: they write
down how they were called, and answer as AWS's do.
"""

import contextlib
import json
import secrets
import shutil
import socket
import subprocess
import uuid
from pathlib import Path

import pytest
import sqlalchemy as sa
from kazoo.client import KazooClient

from shoal_gateway.registry.engines import make_engine
from shoal_gateway.registry.outages import passing
from tests.support.boot import CERTIFICATES, COMMON, PUT, SERVICES, TLS, ZOOKEEPER
from tests.support.databases import needs_postgres
from tests.support.waiting import eventually

SCRIPTS = [COMMON, CERTIFICATES, TLS, ZOOKEEPER, SERVICES, PUT]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_scripts_can_be_parsed(script):
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="needs shellcheck")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_shellcheck_finds_nothing(script):
    done = subprocess.run(["shellcheck", script], capture_output=True, text=True)
    assert done.stdout == ""


def test_a_blank_volume_is_formatted_and_one_with_data_never_is(shell, tmp_path):
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(8 * 1024 * 1024)
    shell.run(COMMON, lines=f"format_if_blank {disk}")
    made = disk.read_bytes()
    assert made != bytes(len(made))
    shell.run(COMMON, lines=f"format_if_blank {disk}")
    assert disk.read_bytes() == made


def test_what_is_unknown_or_can_not_be_read_is_not_formatted(shell, tmp_path):
    shell.program("mkfs.ext4")
    unknown = tmp_path / "unknown"
    unknown.write_bytes(bytes(512 * 1024) + b"precious" + bytes(1024 * 1024))
    for each in (unknown, tmp_path / "absent"):
        done = shell.run(COMMON, lines=f"format_if_blank {each}", code=1)
        assert "left alone" in done.stderr
    assert shell.called() == []


def test_a_volume_is_asked_for_until_the_dying_instance_lets_it_go(shell, tmp_path):
    device = tmp_path / "disks" / "nvme-Amazon_Elastic_Block_Store_vol0abc"
    device.parent.mkdir()
    # AWS refuses twice, then attaches.
    shell.program(
        "aws",
        f'[ "$(grep -c ^aws {shell.calls})" -ge 3 ] || {{ echo VolumeInUse >&2; exit 254; }}\n'
        f"touch {device}",
    )
    shell.run(COMMON, lines="retry 30 attached vol-0abc i-1")
    call = "aws ec2 attach-volume --volume-id vol-0abc --instance-id i-1 --device /dev/sdf"
    assert shell.called() == [call] * 3
    # It is here now, as after a reboot: nothing is asked.
    shell.run(COMMON, lines="retry 30 attached vol-0abc i-1")
    assert len(shell.called()) == 3


def test_what_never_comes_is_given_up(shell):
    shell.program("aws", "exit 254")
    done = shell.run(COMMON, lines="retry 0 attached vol-0abc i-1", code=1)
    assert "gave up after 0 s: attached vol-0abc i-1" in done.stderr


def test_an_archive_that_is_another_is_refused(shell, tmp_path):
    shell.program("aws", 'echo surprise >"${@: -1}"')
    target = tmp_path / "archive"
    lines = f"fetch_checked s3://mine/archive {'0' * 64} {target}"
    done = shell.run(COMMON, lines=lines, code=1)
    assert "s3://mine/archive is not what its SHA-256 says" in done.stderr
    assert not target.exists()
    done = shell.run(COMMON, lines=f"fetch http://mine/archive {target}", code=1)
    assert "neither s3:// nor https://" in done.stderr


def test_metadata_is_asked_with_a_token(shell, imds):
    done = shell.run(COMMON, lines="imds instance-id", environment={"IMDS": imds})
    assert done.stdout == "i-0123456789abcdef0"


@pytest.fixture
def ensemble(shell, tmp_path):
    """Three real servers by the configuration that the nodes would have, on three addresses."""
    block = f"127.{secrets.randbelow(200) + 20}"
    addresses = [f"{block}.{number}.1" for number in (1, 2, 3)]
    with contextlib.ExitStack() as stack:
        servers = []
        for number, address in enumerate(addresses, 1):
            data = tmp_path / f"node-{number}"
            data.mkdir()
            said = {"ADDRESS": address, "ENSEMBLE": " ".join(addresses), "DATA": str(data)}
            done = shell.run(COMMON, ZOOKEEPER, lines="zoo_cfg", environment=said)
            (data / "zoo.cfg").write_text(done.stdout)
            (data / "myid").write_text(f"{number}\n")
            jars = "/etc/zookeeper/conf:/usr/share/java/zookeeper.jar"
            main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
            log = stack.enter_context((data / "log").open("w"))
            server = subprocess.Popen(
                ["java", "-Xmx128m", "-cp", jars, main, data / "zoo.cfg"], stdout=log, stderr=log
            )
            stack.callback(server.wait)
            stack.callback(server.kill)
            servers.append(server)
        yield addresses, servers


def word(address, question):
    try:
        with socket.create_connection((address, 2181), 5) as connection:
            connection.sendall(question)
            return b"".join(iter(lambda: connection.recv(4096), b"")).decode()
    except OSError:
        return ""


def test_three_nodes_are_an_ensemble_and_a_dead_one_has_its_instance_replaced(
    shell, ensemble, imds
):
    addresses, servers = ensemble
    eventually(
        lambda: all("Mode: " in word(each, b"srvr") for each in addresses), what="an ensemble"
    )
    modes = sorted(word(each, b"srvr").split("Mode: ")[1].split()[0] for each in addresses)
    assert modes == ["follower", "follower", "leader"]
    client = KazooClient(hosts=",".join(f"{each}:2181" for each in addresses))
    client.start(timeout=30)
    client.create("/shoal", b"here")
    client.stop()
    client.close()

    # What a node's timer runs. One server is killed; the majority of the others goes too, which
    # must not make a server that lives count as dead.
    shell.program("aws")
    failures = shell.directory / "failures"

    def look(address):
        said = {"ADDRESS": address, "REGION": "us-east-1", "IMDS": imds}
        script = shell.run(COMMON, ZOOKEEPER, lines="health_script", environment=said).stdout
        shell.run(lines=script.replace("/run/shoal-zookeeper-failures", str(failures)))

    look(addresses[0])
    assert not failures.exists()
    for server in servers[1:]:
        server.kill()
        server.wait()
    look(addresses[0])
    assert not failures.exists()
    for _ in range(9):
        look(addresses[1])
    assert shell.called() == []
    look(addresses[1])
    assert shell.called() == [
        "aws autoscaling set-instance-health --region us-east-1"
        " --instance-id i-0123456789abcdef0 --health-status Unhealthy"
    ]
    # One that answers again is not counted on.
    look(addresses[0])
    assert not failures.exists()


SAID = {
    "FLEET": "reef",
    "GROUP": "reef-gateway",
    "REGION": "us-east-1",
    "SERVICES": "api appmanager@local appmanager@local-legacy registry scheduler",
    "LAUNCH_HOOK": "shoal-serving",
    "DRAIN_HOOK": "shoal-drain",
    "DRAIN_SECONDS": "300",
    "REQUIREMENT": "shoal[gateway,postgres,aws]==0.1.0",
    "INDEX_URL": "",
    "WHEELHOUSE": "",
    "ZOOKEEPER": "zk-1.reef.internal:2181/shoal",
    "BUCKET": "reef-bucket",
    "STORE_URL": "postgresql://shoal@db:5432/shoal?passfile=/run/shoal-store/pgpass",
    "SECRET": "",
    "PASSFILE_PREFIX": "",
    "CA_BUNDLE": "",
    "VOLUME": "",
    "SLOTS": "2",
    "SETTINGS": "SHOAL_LOG_LEVEL=DEBUG",
}


def read(path):
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if line)


def test_each_service_gets_its_settings_and_a_port_of_its_own(shell, tmp_path):
    said = SAID | {"ETC": str(tmp_path)}
    shell.run(COMMON, SERVICES, lines="write_environment", environment=said)
    common = read(tmp_path / "shoal.env")
    assert common["SHOAL_ZOOKEEPER"] == "zk-1.reef.internal:2181/shoal"
    assert common["SHOAL_OBJECTS"] == "s3://reef-bucket/objects"
    assert common["SHOAL_PLACEMENT"] == "ec2"
    assert common["SHOAL_LOG_LEVEL"] == "DEBUG"
    assert read(tmp_path / "registry.env")["SHOAL_STORE"] == SAID["STORE_URL"]
    names = ["registry", "api", "scheduler", "appmanager-local", "appmanager-local-legacy"]
    ports = [read(tmp_path / f"{name}.env")["SHOAL_BIND"] for name in names]
    assert ports == [f"0.0.0.0:{port}" for port in (7401, 7402, 7403, 7404, 7405)]
    lifecycle = read(tmp_path / "lifecycle.env")
    assert lifecycle["SHOAL_UNITS"].split() == [
        "shoal-api.service",
        "shoal-appmanager@local.service",
        "shoal-appmanager@local-legacy.service",
        "shoal-registry.service",
        "shoal-scheduler.service",
    ]
    assert lifecycle["SHOAL_LIFECYCLE_HOOK"] == "shoal-drain"


def boot(shell, imds, tmp_path, code, first=(), **said):
    """The whole of main, on programs of the test's own."""
    for name in ("dnf", "systemctl", "useradd", "chown", "chgrp", "aws"):
        shell.program(name)
    # Python's environments are made by pip in earnest elsewhere; here it is who is asked for what.
    shell.program("python3.11", f'mkdir -p "$3/bin" && cp {shell.programs}/pip "$3/bin/python"')
    shell.program("pip")
    # Owners can be given by root only.
    shell.program(
        "install", 'mkdir -p "${@: -1}"; for each; do case $each in /*) mkdir -p $each;; esac; done'
    )
    lines = 'write_units() { touch "$1/units"; }\nretry() { shift; "$@"; }\n'
    lines += "\n".join([*first, "main"])
    places = {key: str(tmp_path / key.lower()) for key in ("ETC", "UNITS", "OPT", "STATE", "SBIN")}
    for each in places.values():
        Path(each).mkdir(exist_ok=True)
    return shell.run(
        COMMON,
        *([CERTIFICATES] if said.get("CERTIFICATES") else []),
        SERVICES,
        lines=lines,
        environment=SAID | places | {"IMDS": imds} | said,
        code=code,
    )


def completed(shell):
    return [call for call in shell.called() if "complete-lifecycle-action" in call]


def test_a_host_that_serves_says_so_to_its_group(shell, imds, tmp_path):
    boot(shell, imds, tmp_path, code=0)
    assert completed(shell) == [
        "aws autoscaling complete-lifecycle-action --auto-scaling-group-name reef-gateway"
        " --lifecycle-hook-name shoal-serving --lifecycle-action-result CONTINUE"
        " --instance-id i-0123456789abcdef0"
    ]
    assert (
        "systemctl enable --now shoal-api.service shoal-appmanager@local.service"
        " shoal-appmanager@local-legacy.service shoal-registry.service shoal-scheduler.service"
    ) in shell.called()
    assert shell.called().index("systemctl enable --now shoal-lifecycle.service") < (
        shell.called().index(completed(shell)[0])
    )
    installed = [call for call in shell.called() if call.startswith("pip -m pip install")]
    assert len(installed) == 3
    assert all(call.endswith("shoal[gateway,postgres,aws]==0.1.0") for call in installed)


def test_a_host_that_can_not_serve_is_given_up(shell, imds, tmp_path):
    shell.program("id", "exit 0")
    lines = 'case "$*" in *shoal-api*) exit 1;; esac'
    boot_with = shell.program

    def program(name, body=""):
        boot_with(name, lines if name == "systemctl" else body)

    shell.program = program
    done = boot(shell, imds, tmp_path, code=1)
    assert "autoscaling replaces it" in done.stderr
    (call,) = completed(shell)
    assert "--lifecycle-action-result ABANDON" in call
    assert "systemctl enable --now shoal-lifecycle.service" not in shell.called()


def test_certificates_are_there_before_services_start(shell, imds, tmp_path):
    places = {"CERTIFICATES": "registry=arn:a", "SERVICES": "registry", "TLS": "/etc/shoal/tls"}
    fetched = f"fetch_certificates() {{ echo fetched >>{shell.calls}; }}"
    boot(shell, imds, tmp_path, code=0, first=[fetched], **places)
    calls = shell.called()
    assert "dnf install -y python3.11 python3.11-pip openssl" in calls
    assert calls.index("fetched") < calls.index("systemctl enable --now shoal-registry.service")
    assert "systemctl enable --now shoal-certificates.timer" in calls
    assert read(tmp_path / "etc" / "registry.env")["SHOAL_TLS"] == "/etc/shoal/tls/registry"
    timer = (tmp_path / "units" / "shoal-certificates.timer").read_text()
    assert "\nOnCalendar=*:0/5\nRandomizedDelaySec=240s\n" in timer


def test_a_host_whose_certificates_can_not_be_had_is_given_up(shell, imds, tmp_path):
    said = {"CERTIFICATES": "registry=arn:a", "SERVICES": "registry", "TLS": str(tmp_path / "tls")}
    done = boot(shell, imds, tmp_path, code=1, **said)
    assert "what arn:a holds is no certificate for registry" in done.stderr
    (call,) = completed(shell)
    assert "--lifecycle-action-result ABANDON" in call
    assert "systemctl enable --now shoal-registry.service" not in shell.called()


def test_from_a_bucket_of_wheels_no_index_is_asked(shell, imds, tmp_path):
    boot(shell, imds, tmp_path, code=0, WHEELHOUSE="s3://mine/wheels", SERVICES="registry")
    assert "aws s3 sync --only-show-errors s3://mine/wheels /var/cache/shoal-wheels" in (
        shell.called()
    )
    (call,) = [call for call in shell.called() if call.startswith("pip -m pip install")]
    assert "--no-index --find-links /var/cache/shoal-wheels" in call


@needs_postgres
def test_the_password_of_the_moment_lets_the_registry_in(shell, databases, tmp_path):
    url = sa.make_url(databases.fresh())
    admin = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    role = f"shoal_{uuid.uuid4().hex[:8]}"
    script = tmp_path / "shoal-store-password"
    said = SAID | {
        "SECRET": "arn:aws:secretsmanager:us-east-1:123456789012:secret:rds!db-1",
        "PASSFILE_PREFIX": f"{url.host}:{url.port}:{url.database}:{role}",
    }
    script.write_text(shell.run(COMMON, SERVICES, lines="password_script", environment=said).stdout)
    passfile = tmp_path / "pgpass"
    opened = make_engine(
        sa.URL.create(
            "postgresql",
            username=role,
            host=url.host,
            port=url.port,
            database=url.database,
            query={"passfile": str(passfile)},
        )
    )

    def rotate(password):
        quoted = password.replace("'", "''")
        with admin.connect() as connection:
            connection.exec_driver_sql(f"ALTER ROLE {role} LOGIN PASSWORD '{quoted}'")
        secret = tmp_path / "secret"
        secret.write_text(json.dumps({"username": role, "password": password}))
        shell.program("aws", f"cat {secret}")
        shell.run(lines=script.read_text(), environment={"RUNTIME_DIRECTORY": str(tmp_path)})

    try:
        with admin.connect() as connection:
            connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN PASSWORD 'unknown'")
        with pytest.raises(sa.exc.OperationalError) as refused:
            opened.connect()
        # In the minute after a change: callers are told to try again.
        assert passing(refused.value)
        # All that libpq's file gives a meaning to.
        for password in ("simple", r"with:colon\and'back\\slash"):
            rotate(password)
            opened.dispose()
            with opened.connect() as connection:
                assert connection.exec_driver_sql("SELECT current_user").scalar() == role
        assert passfile.stat().st_mode & 0o777 == 0o600
        assert list(tmp_path.glob("pgpass.*")) == []
    finally:
        opened.dispose()
        with admin.connect() as connection:
            connection.exec_driver_sql(f"DROP ROLE IF EXISTS {role}")
        admin.dispose()
        databases.drop(url.render_as_string(hide_password=False))
