"""Draws docs/dashboard-*.png with a real browser:  make dashboard-pictures.

A fleet of this machine runs jobs while a replica is killed and a service is upgraded; and 300
replicas that only answer are drawn.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from vega_datasets import data as datasets

from shoal_gateway.client import TERMINAL, Gateway
from shoal_gateway.fleet import Fleet

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
# What tests use to look at a page; they are no package that is installed.
chromium: Any = import_module("tests.support.chromium")
pages: Any = import_module("tests.support.pages")
swarms: Any = import_module("tests.support.swarm")

DOCS = ROOT / "docs"
# The pauses below let time pass that is to be seen in a chart, or that no event ends. Seconds.
# Of work before anything breaks.
CALM = 10.0
# That a killed replica is away, and after the last fault.
AWAY, AFTER = 3.0, 2.0
# In which a page with pictures, or a tick for other colours or another width, has come in.
SETTLE, REDRAWN = 5.0, 1.0
# Of 300 replicas each is asked every 3 s, and two answers of each make a rate.
ALL_ASKED = 12.0


def main() -> None:
    """Draws all."""
    with tempfile.TemporaryDirectory() as place:
        fleet = Fleet(Path(place) / "fleet")
        try:
            fleet.up(ensemble=3)
            draw_fleet(fleet, fleet.start_dashboard())
        finally:
            if fleet.exists:
                fleet.down()
    asyncio.run(draw_swarm())


def draw_fleet(fleet: Fleet, url: str) -> None:
    """The fleet at work, light, dark and on a phone, and a job."""
    shoal = [sys.executable, "-m", "shoal_gateway.cli", "--fleet", str(fleet.directory)]
    fleet.layout.releases.make("1.1")
    load = subprocess.Popen(
        [*shoal, "submit", "nap", "-p", "seconds=0.7", "--count", "400"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with fleet.directory_of() as directory:
        gateway = Gateway(directory, "ann")
        weather = gateway.upload(Path(str(datasets.seattle_weather.filepath)))
        job = gateway.submit(
            "climate", inputs={"observations.csv": weather}, parameters={"month": "7"}
        )
        with chromium.browser(1400, 1180) as driver:
            driver.get(url)
            time.sleep(CALM)
            fleet.kill("local-2")
            happened(driver, "local-2 is gone")
            time.sleep(AWAY)
            fleet.start("local-2")
            upgrade = subprocess.Popen(
                [*shoal, "upgrade", "api", "--to", "1.1"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            happened(driver, "version 1.1")
            fleet.kill("registry-3")
            happened(driver, "registry-3 is gone")
            time.sleep(AFTER)
            driver.execute_script("document.activeElement.blur()")
            shoot(driver, "light")
            driver.execute_cdp_cmd(
                "Emulation.setEmulatedMedia",
                {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
            )
            time.sleep(REDRAWN)
            shoot(driver, "dark")
            chromium.size(driver, 360, 1250)
            time.sleep(REDRAWN)
            shoot(driver, "phone")
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
            for event in gateway.watch(job.id):
                if event.state in TERMINAL:
                    break
            chromium.size(driver, 1100, 1200)
            driver.get(f"{url}#/jobs/{job.id}")
            time.sleep(SETTLE)
            shoot(driver, "job")
            chromium.size(driver, 1100, 420)
            driver.get(f"{url}#/zookeeper")
            time.sleep(SETTLE)
            shoot(driver, "zookeeper")
        upgrade.wait(180)
    load.wait(120)


def happened(driver: Any, *words: str) -> None:
    """Waits until the page tells that something has happened."""
    chromium.wait_for(driver, lambda text: any(word in text for word in words), 120.0)


async def draw_swarm() -> None:
    """300 replicas, some of them not well."""
    async with (
        swarms.Swarm(300) as swarm,
        pages.served(
            swarm.directory, swarms.SERVICES, jobs=False, title="made for this picture"
        ) as page,
    ):
        await asyncio.sleep(SETTLE)
        for name in ("registry-50", "appmanager-11"):
            await swarm.end(name)
        swarm.say("api", "api-7", "DRAINING")
        swarm.say("scheduler", "scheduler-30", "BUSY")
        await asyncio.to_thread(shoot_page, page.url)


def shoot_page(url: str) -> None:
    """The page of the 300."""
    with chromium.browser(1400, 1000) as driver:
        driver.get(url)
        time.sleep(ALL_ASKED)
        shoot(driver, "300")


def shoot(driver: Any, name: str) -> None:
    """Draws what is shown.

    Raises:
        RuntimeError: the browser complains of something.
    """
    if found := chromium.problems(driver):
        raise RuntimeError(f"the console says: {found}")
    driver.save_screenshot(str(DOCS / f"dashboard-{name}.png"))


if __name__ == "__main__":
    main()
