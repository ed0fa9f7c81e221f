"""The how-to pages: their commands run, and print what the pages say."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shoal.testing.fixtures import zookeeper  # noqa: F401 - a fixture
from shoal.testing.zookeeper import free_port
from tests.support.docblocks import Reader, blocks

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
PORTS = "50051", "50052", "8081"
# What a page needs beyond what `make setup` brings.
NEEDS = {"from-haproxy": "haproxy"}


@pytest.fixture(scope="module")
def greeter(tmp_path_factory):
    """The tutorial's directory with its contract compiled: where the how-to pages begin."""
    made = tmp_path_factory.mktemp("greeter")
    with Reader(made, made) as reader:
        reader.read(ROOT / "docs" / "tutorial.md", files_only=True)
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--python_out=."]
    subprocess.run([*protoc, "--grpc_python_out=.", "hello.proto"], cwd=made, check=True)
    return made


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_do_what_it_says(page, greeter, zookeeper, tmp_path):  # noqa: F811
    if (program := NEEDS.get(page.stem)) is not None and shutil.which(program) is None:
        pytest.skip(f"there is no {program}; apt-get install {program}")
    here, logs = tmp_path / "reader", tmp_path / "logs"
    shutil.copytree(greeter, here)
    logs.mkdir()
    replace = {port: str(free_port()) for port in PORTS}
    replace |= {
        # A place of its own for each page, below one server for all.
        "2181/tutorial": f"{zookeeper.port}/{page.stem}",
        'KazooClient("127.0.0.1:2181")': f'KazooClient("{zookeeper.hosts}")',
    }
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SHOAL_CACHE_DIR": str(tmp_path / "cache"),
    }
    for script in here.glob("*.py"):
        script.write_text(script.read_text().replace("2181/tutorial", replace["2181/tutorial"]))
    with Reader(here, logs, replace, dict(environment)) as reader:
        reader.read(page)


def test_what_no_test_runs_is_known():
    """A block that is left out says why, and there are few: whoever adds one looks here."""
    pages = [ROOT / "docs" / "tutorial.md", *PAGES]
    left_out = [
        (page.stem, block.skip)
        for page in pages
        for block in blocks(page.read_text(encoding="utf-8"))
        if block.skip is not None
    ]
    assert [page for page, _ in left_out] == ["grpcurl", "terraform", "terraform", "upgrade"]
    assert all(why for _, why in left_out)
