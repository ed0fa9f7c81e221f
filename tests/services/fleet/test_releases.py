"""Releases: copies of the code that know their name."""

import subprocess
import sys
from pathlib import Path

import pytest

from shoal_gateway import runtime
from shoal_gateway.fleet import FleetError
from shoal_gateway.fleet.releases import PACKAGES, Releases


@pytest.fixture
def releases(tmp_path):
    return Releases(tmp_path / "releases")


def test_a_release_runs_its_own_copy_and_says_its_name(releases):
    made = releases.make("1.1")

    code = "import shoal, shoal_gateway.runtime as r; print(r.installed_version(), shoal.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=releases.environment("1.1"), capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert done.stdout.split() == ["1.1", str(made.path / "shoal" / "__init__.py")], done.stderr
    assert releases.find("1.1").recorded == "1.1"
    assert [each.version for each in releases] == ["1.1"]


def test_what_has_no_name_or_the_installed_one_is_the_code_that_runs(releases):
    for name in ("", runtime.installed_version()):
        assert releases.find(name).path is None
        assert releases.find(name).recorded == ""
        assert releases.environment(name) == {}


def test_a_checkout_is_released(releases, tmp_path):
    checkout = tmp_path / "checkout"
    for name, place in PACKAGES.items():
        (checkout / place / name).mkdir(parents=True)
        (checkout / place / name / "marker.py").write_text("")

    made = releases.make("2.0", checkout)

    assert all((made.path / name / "marker.py").exists() for name in PACKAGES)


@pytest.mark.parametrize("name", ["../1", "", ".hidden", "a/b", "x" * 65])
def test_a_name_that_could_be_no_directory_is_refused(releases, name):
    with pytest.raises(FleetError, match="can't name a release"):
        releases.make(name)


def test_a_name_that_is_taken_is_refused(releases):
    releases.make("1.1")
    for name in ("1.1", runtime.installed_version()):
        with pytest.raises(FleetError, match="already"):
            releases.make(name)


def test_what_is_no_checkout_is_refused_and_leaves_no_release(releases):
    with pytest.raises(FleetError, match="is no checkout of Shoal"):
        releases.make("1.1", Path("/"))
    assert list(releases) == []
    with pytest.raises(FleetError, match=r"no release 1\.1 here, only"):
        releases.find("1.1")
