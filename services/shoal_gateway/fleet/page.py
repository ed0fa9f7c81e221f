"""The live page of a fleet, in a process of its own."""

from __future__ import annotations

import importlib.util
import signal
import sys
import time

from shoal_gateway.fleet import processes
from shoal_gateway.fleet.errors import FleetError
from shoal_gateway.fleet.layout import Layout
from shoal_gateway.fleet.processes import Identity
from shoal_gateway.fleet.state import FleetState

# What the extra brings.
NEEDED = ("starlette", "uvicorn")
MISSING = "the dashboard needs {name}: pip install 'shoal[dashboard]'"


def missing() -> str:
    """A package that the page needs and that is not installed; empty when all are."""
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    return absent[0] if absent else ""


def start(layout: Layout, state: FleetState, timeout: float = 30.0) -> tuple[Identity, str]:
    """Starts it; its process and its URL.

    Args:
        layout: Where the fleet's things lie.
        state: Of the fleet, whose ZooKeeper runs.
        timeout: Seconds until it must serve.

    Raises:
        FleetError: it did not come up; names its log.
    """
    told, log = layout.dashboard_url, layout.directory / "dashboard.log"
    told.unlink(missing_ok=True)
    command = [sys.executable, "-m", "shoal_gateway.cli", "--fleet", str(layout.directory)]
    try:
        process = processes.spawn(
            [*command, "dashboard", "--url-file", str(told)],
            log=log,
            environment={processes.FLEET_MARK: state.id},
        )
    except OSError as error:
        raise FleetError(f"the dashboard could not be started: {error}") from error
    deadline = time.monotonic() + timeout
    while not told.exists():
        if not processes.alive(process):
            raise FleetError(f"the dashboard ended; its log: {log}")
        if time.monotonic() > deadline:
            processes.send(process, signal.SIGKILL)
            raise FleetError(f"the dashboard did not serve within {timeout:g} s; its log: {log}")
        time.sleep(0.05)  # a file has no event that is worth its code
    return process, told.read_text(encoding="utf-8").strip()
