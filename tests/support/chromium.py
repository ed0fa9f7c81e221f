"""A real browser without a window."""

from __future__ import annotations

import contextlib
import json
import shutil

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

ARGUMENTS = (
    "--headless=new",
    # Containers and root have no other way; what is loaded is our own page.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    # Nothing of its own may go out either.
    "--disable-background-networking",
    "--disable-component-update",
    "--lang=en-GB",
)


def installed():
    """Chromium and its driver; None where either is missing."""
    found = shutil.which("chromium"), shutil.which("chromedriver")
    return found if all(found) else None


@contextlib.contextmanager
def browser(width=1300, height=900, *, dark=False):
    """A browser; skips the test where there is none."""
    found = installed()
    if found is None:
        pytest.skip("needs chromium and chromedriver: scripts/system.sh chromium")
    options = Options()
    options.binary_location = found[0]
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(found[1]))
    try:
        driver.set_page_load_timeout(30)
        size(driver, width, height)
        if dark:
            driver.execute_cdp_cmd(
                "Emulation.setEmulatedMedia",
                {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
            )
        yield driver
    finally:
        driver.quit()


def size(driver, width, height):
    """Makes the window so large."""
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
    )


def wait_for(driver, accepts, timeout):
    """Waits until the list of what happened is as wanted."""
    WebDriverWait(driver, timeout, poll_frequency=0.2).until(
        lambda it: accepts(it.find_element("css selector", ".happened").text)
    )


def problems(driver):
    """What the console complains of."""
    return [each for each in driver.get_log("browser") if each["level"] in ("SEVERE", "WARNING")]


def requested(driver):
    """All addresses that the page asked for, by network log; those of data are none."""
    found = set()
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            found.add(message["params"]["request"]["url"])
    return {each for each in found if not each.startswith("data:")}
