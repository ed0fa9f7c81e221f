"""The tutorial, as its reader goes through it."""

import os
import site
import sys
from pathlib import Path

from shoal.testing.zookeeper import free_port
from tests.support.docblocks import Reader

ROOT = Path(__file__).parents[2]


def test_whoever_follows_the_tutorial_sees_what_it_shows(tmp_path):
    here, logs = tmp_path / "reader", tmp_path / "logs"
    here.mkdir()
    logs.mkdir()
    environment = dict(os.environ)
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SHOAL_CACHE_DIR": str(tmp_path / "cache"),
        # pip asks no index: what Shoal needs is found here, Shoal itself is built and installed.
        "PYTHONPATH": site.getsitepackages()[0],
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    replace = {"2181": str(free_port()), "~/shoal": str(ROOT)}
    with Reader(here, logs, replace, environment) as reader:
        reader.read(ROOT / "docs" / "tutorial.md")
    installed = here / ".venv" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    assert (installed / "shoal" / "server.py").exists()
