"""compose.yaml and the Dockerfile, as far as they can be judged where no image can be pulled."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess

import pytest
import yaml

from shoal.health import own_target
from tests.support.docker import ROOT
from tests.support.drains import longest
from tests.support.programs import read

SERVICES = ("registry", "api", "scheduler", "appmanager")
ENVIRONMENT = {"POSTGRES_PASSWORD": "secret"}
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def interpolated(text):
    """As compose does it: a default after ``:-``, an error after ``:?``."""

    def value(match):
        name, kind, rest = match.groups()
        if name in ENVIRONMENT:
            return ENVIRONMENT[name]
        assert kind == "-", f"{name} has neither a value nor a default"
        return rest

    return VARIABLE.sub(value, text)


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load(interpolated((ROOT / "compose.yaml").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def image():
    """The last stage's instructions, lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    last = max(at for at, line in enumerate(lines) if line.startswith("FROM"))
    found = {}
    for line in lines[last + 1 :]:
        word, _, rest = line.partition(" ")
        found.setdefault(word, []).append(rest.strip())
    return found


def variables(image):
    """What the image sets."""
    return dict(each.split("=", 1) for line in image["ENV"] for each in shlex.split(line))


def seconds(text):
    match = re.fullmatch(r"(\d+)s", text)
    return int(match[1])


@pytest.mark.parametrize("service", SERVICES)
def test_a_services_command_and_settings_are_what_the_program_reads(compose, image, service):
    told = compose["services"][service]
    chosen, *arguments = told["command"]
    assert chosen == service
    ours = {name: value for name, value in variables(image).items() if name.startswith("SHOAL_")}
    options = read(service, arguments, {**ours, **told["environment"]})
    assert options["zookeeper"] == "zk1:2181,zk2:2181,zk3:2181/gateway"
    assert (options["bind"], options["advertise"]) == ("0.0.0.0:7400", "auto")


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_confined_replicated_and_stops_later_than_the_drain(compose, service):
    told = compose["services"][service]
    assert told["deploy"]["replicas"] == 3
    assert seconds(told["stop_grace_period"]) > longest() + 10.0
    assert told["read_only"] is True
    assert told["cap_drop"] == ["ALL"]
    assert told["security_opt"] == ["no-new-privileges:true"]
    assert told["tmpfs"] == ["/tmp"]
    assert told["restart"] == "unless-stopped"
    # Python as the first process would not bury the orphans of jobs.
    assert told["init"] is True
    assert "privileged" not in told


def test_who_is_waited_for_has_a_healthcheck(compose):
    services = compose["services"]
    for name, told in services.items():
        for other, how in told.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}, name
            assert "test" in services[other]["healthcheck"]


def test_the_ensemble_is_three_that_know_each_other(compose):
    services = compose["services"]
    names = [name for name in services if name.startswith("zk")]
    assert len(names) == 3
    for name in names:
        told = services[name]["environment"]
        servers = dict(each.split("=") for each in told["ZOO_SERVERS"].split())
        assert servers[f"server.{told['ZOO_MY_ID']}"] == f"{name}:2888:3888;2181"
        assert len(servers) == 3
        # Each has its own data.
        assert all(each.startswith(f"{name}-") for each in services[name]["volumes"])


def test_volumes_are_declared_and_mounted_files_are_there(compose):
    used = set()
    for told in compose["services"].values():
        for each in told.get("volumes", ()):
            source, _, _ = each.partition(":")
            if source.startswith("."):
                assert (ROOT / source).exists(), each
                assert each.endswith(":ro")
            else:
                used.add(source)
    assert used == set(compose["volumes"])
    writers = {
        name
        for name, told in compose["services"].items()
        if "objects:/srv/shoal" in told.get("volumes", ())
    }
    assert writers == {"api", "appmanager"}


def test_the_image_is_nobodys_and_asks_the_health_service(image):
    user, _, group = image["USER"][0].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    (check,) = image["HEALTHCHECK"]
    command = yaml.safe_load(check.partition("CMD ")[2])
    assert command[:2] == ["python", "-m"]
    assert importlib.util.find_spec(command[2]) is not None
    assert own_target(variables(image)) == "127.0.0.1:7400"
    assert image["VOLUME"] == ['["/var/lib/shoal"]']


def test_compose_itself_takes_the_file():
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) is None:
            continue
        if subprocess.run([*command, "version"], capture_output=True).returncode == 0:
            break
    else:
        pytest.skip("compose is not installed (apt-get install docker-compose)")
    # Its first generation knows no name at the top level.
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8").replace("name: shoal\n", "", 1)
    done = subprocess.run(
        [*command, "--project-directory", ROOT, "--file", "-", "config", "--quiet"],
        input=text,
        env={"PATH": os.environ["PATH"], **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
