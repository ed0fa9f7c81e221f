"""Certificates on hosts: taken from secrets, replaced whole, and spoken by a real ensemble.

Secrets Manager is a directory of files here, which the test's own ``aws`` reads and writes.
"""

import json
import time

import pytest

from shoal.authority import DAY, Authority
from shoal.identity import PeerIdentity
from shoal.tls import Tls, TlsFiles
from tests.support.boot import CERTIFICATES, COMMON, PUT, SERVICES
from tests.support.vault import ARN, FILES, NAMES


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
