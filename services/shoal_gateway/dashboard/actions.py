"""What the page's buttons do to a local fleet: as the commands of the same names do."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

from shoal_gateway import runtime
from shoal_gateway.fleet import Fleet, FleetError

SHOAL = (sys.executable, "-m", "shoal_gateway.cli")
# Lines of an upgrade's output that are told.
LAST = 6
MARKUP = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}


class FleetActor:
    """Kills, starts, restarts and upgrades replicas of a fleet on this machine.

    Args:
        fleet: Which.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def choices(self) -> dict[str, Any]:
        """The versions that a service can be upgraded to."""
        made = [each.version for each in self._fleet.layout.releases]
        return {"versions": [*reversed(made), runtime.installed_version()]}

    async def act(self, action: str, name: str, version: str) -> str:
        """Does it; says what was done.

        Args:
            action: "kill", "start", "restart" or "upgrade".
            name: A replica or a host; for an upgrade a service.
            version: For an upgrade.

        Raises:
            FleetError: it can't be done.
            TimeoutError: a process outlived SIGKILL.
            ValueError: there is no such action, or something is missing.
        """
        # A name that begins with a dash would be an option where it becomes an argument.
        if not name or name.startswith("-") or version.startswith("-"):
            raise ValueError(f"{action or 'an action'} of what? {name!r} is no name")
        match action:
            case "kill":
                killed = await asyncio.to_thread(self._fleet.kill, name)
                return f"killed {', '.join(killed)}"
            case "start":
                started = await asyncio.to_thread(self._fleet.start, name)
                return f"started {', '.join(started)}"
            case "restart":
                return await asyncio.to_thread(self._restart, name)
            case "upgrade":
                return await self._upgrade(name, version)
            case _:
                raise ValueError(f"there is no action {action!r}: kill, start, restart, upgrade")

    def _restart(self, name: str) -> str:
        if name not in self._fleet.state.replicas:
            raise FleetError(f"there is no replica '{name}' to restart")
        self._fleet.stop(name)
        self._fleet.start(name)
        return f"restarted {name}"

    async def _upgrade(self, service: str, version: str) -> str:
        if not version:
            raise ValueError("an upgrade needs a version: make one with `shoal release`")
        # The command itself, which holds the lock. With a session of its own and a log instead of
        # a pipe it goes on when the dashboard ends.
        with self._fleet.layout.upgrade_log.open("a+b") as log:
            began = log.seek(0, os.SEEK_END)
            process = subprocess.Popen(  # noqa: ASYNC220 - it begins at once
                [
                    *(*SHOAL, "--fleet", str(self._fleet.directory)),
                    *("upgrade", service, "--to", version),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **MARKUP},
                start_new_session=True,
            )
            code = await _end(process)
            log.seek(began)
            output = log.read().decode("utf-8", "replace")
        lines = [each for each in output.splitlines() if each.strip()]
        said = " / ".join(lines[-LAST:])
        if code:
            raise FleetError(said or f"the upgrade ended with exit code {code}")
        return lines[-1] if lines else f"{service} runs {version}"


async def _end(process: subprocess.Popen[bytes]) -> int:
    """Waits for the end of a process; its exit code. asyncio's own would kill it with the loop."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    handle = os.pidfd_open(process.pid)
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    except asyncio.CancelledError:
        process.returncode = 0  # it outlives us on purpose; Popen must not warn of that
        raise
    finally:
        loop.remove_reader(handle)
        os.close(handle)
    return process.wait()
