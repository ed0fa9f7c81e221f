"""What `make dist` makes: its contents, and that the bare SDK works with its four dependencies."""

import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from importlib import metadata
from pathlib import Path

import pytest

from shoal_gateway.doctor.versions import parsed

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "shoal_balancer": ROOT / "balancer",
    "shoal": ROOT / "sdk",
    "shoal_checker": ROOT / "services",
    "shoal_gateway": ROOT / "services",
    "shoal_protos": ROOT / "protos" / "gen",
}
EXTRAS = {
    "aws",
    "certs",
    "config",
    "dashboard",
    "dns",
    "gateway",
    "keys",
    "load",
    "otel",
    "postgres",
    "server",
}


def sources():
    """What of our packages stands in the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    there = {ROOT / line for line in listed.splitlines() if (ROOT / line).exists()}
    return {
        str(path.relative_to(place))
        for package, place in PACKAGES.items()
        for path in there
        if (place / package) in path.parents
    }


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """A wheel, made from the sdist that is made from this tree."""
    place = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(place), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    return place


@pytest.fixture(scope="module")
def wheel(dist):
    (found,) = dist.glob("shoal-*-py3-none-any.whl")
    return found


def read(wheel, name):
    with zipfile.ZipFile(wheel) as archive:
        (path,) = [each for each in archive.namelist() if each.endswith(f".dist-info/{name}")]
        return archive.read(path).decode()


def test_the_wheel_holds_our_packages_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        found = {each for each in archive.namelist() if ".dist-info/" not in each}
    assert found == sources()


def test_every_package_is_typed_for_its_users(wheel):
    with zipfile.ZipFile(wheel) as archive:
        assert {f"{each}/py.typed" for each in PACKAGES} <= set(archive.namelist())


def test_what_the_wheel_says_of_itself(wheel):
    facts = message_from_string(read(wheel, "METADATA"))
    assert facts["License-Expression"] == "Apache-2.0"
    assert facts["Requires-Python"] == ">=3.11"
    assert set(facts.get_all("Provides-Extra")) == EXTRAS
    bare = {each.name for each in parsed(facts.get_all("Requires-Dist")) if not each.extra}
    assert bare == {"grpcio", "protobuf", "kazoo", "tenacity"}
    assert "Typing :: Typed" in facts.get_all("Classifier")
    assert "shoal = shoal_gateway.cli:main" in read(wheel, "entry_points.txt")
    assert "Apache License" in read(wheel, "licenses/LICENSE")


def test_the_sdist_holds_what_builds_and_tests_it(dist):
    (found,) = dist.glob("shoal-*.tar.gz")
    with tarfile.open(found) as archive:
        names = {each.partition("/")[2] for each in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md", "Makefile"} <= names
    assert any(each.startswith("tests/") for each in names)
    assert not any(each.startswith(("build/", ".venv/")) for each in names)


def needed(name, seen):
    """A distribution and all that it needs without an extra."""
    seen.add(name)
    for line in metadata.requires(name) or ():
        wanted = line.partition(";")[0]
        if "extra" not in line.partition(";")[2]:
            other = parsed([wanted])[0].name
            if other not in seen:
                needed(other, seen)
    return seen


@pytest.fixture(scope="module")
def fresh(wheel, tmp_path_factory):
    """The interpreter of a fresh environment: the wheel, its dependencies, and nothing else.

    They are taken from this environment, so that nothing is fetched from anywhere.
    """
    place = tmp_path_factory.mktemp("fresh") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True, timeout=60)
    python = place / "bin" / "python"
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = place / "lib" / version / "site-packages"
    names = set()
    for name in ("grpcio", "protobuf", "kazoo", "tenacity"):
        needed(name, names)
    for name in names:
        tops = {Path(each).parts[0] for each in metadata.files(name) or ()} - {".."}
        for top in tops - {"__pycache__"}:
            source = Path(metadata.distribution(name).locate_file(top))
            # A namespace that several share (google) is one of links, and not one link.
            members = [source] if source.is_file() or top != "google" else sorted(source.iterdir())
            for each in members:
                target = packages / (top if each == source else f"{top}/{each.name}")
                target.parent.mkdir(exist_ok=True)
                if not target.exists():
                    target.symlink_to(each)
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", str(wheel)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    # Without --no-deps: pip agrees that nothing is missing.
    assert done.returncode == 0, done.stdout + done.stderr
    return python


def run(python, code):
    done = subprocess.run(
        [python, "-I", "-c", code], capture_output=True, text=True, timeout=60, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_bare_sdk_imports(fresh):
    code = """
import shoal, shoal.aio, shoal.testing
extras = {"Config", "Keys", "Signer"}
for package in (shoal, shoal.aio, shoal.testing):
    for name in package.__all__:
        if name not in extras:
            getattr(package, name)
print(shoal.__file__)
"""
    assert str(fresh.parents[1]) in run(fresh, code)


def test_the_bare_sdk_calls(fresh):
    code = """
import concurrent.futures, grpc, shoal, shoal.testing
def echo(request, context):
    return request
server = shoal.Server("echo", health=False, reflection=False)
handlers = {"Say": grpc.unary_unary_rpc_method_handler(echo)}
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("x.Echo", handlers),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with shoal.testing.FixedDirectory({"echo": [f"127.0.0.1:{port}"]}) as directory:
    with directory.channel("echo") as channel:
        print(channel.unary_unary("/x.Echo/Say")(b"hello", timeout=20.0).decode())
server.stop(0)
"""
    assert run(fresh, code).strip() == "hello"


@pytest.mark.parametrize(
    ("use", "extra"),
    [
        ("shoal.Config", "config"),
        ("shoal.aio.Config", "config"),
        ("shoal.Signer", "keys"),
        ("shoal.Keys(None)", "keys"),
        ("shoal.Server('x')", "server"),
        ("__import__('shoal.authority')", "certs"),
        ("__import__('shoal.dns.server')", "dns"),
    ],
)
def test_what_takes_an_extra_names_it(fresh, use, extra):
    code = f"""
import shoal, shoal.aio
try:
    {use}
except ImportError as error:
    print(error)
"""
    assert f"pip install 'shoal[{extra}]'" in run(fresh, code)


def test_the_command_line_names_its_extra(fresh):
    done = subprocess.run(
        [fresh.with_name("shoal"), "ps"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "pip install 'shoal[gateway]'" in done.stderr


def test_there_is_a_health_check_for_containers_that_names_its_extra(fresh):
    done = subprocess.run(
        [fresh, "-m", "shoal.health", "127.0.0.1:1"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "pip install 'shoal[server]'" in done.stderr
