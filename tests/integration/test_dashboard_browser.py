"""The live page in a real browser."""

import asyncio
import time

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from shoal.directory import Directory
from shoal_gateway.dashboard.sights import Reach
from tests.support.chromium import browser, problems, requested, size
from tests.support.pages import served
from tests.support.replicas import replicas
from tests.support.swarm import Swarm

# Until the page has what it begins with; busy machines are slow.
FIRST = 20.0

STATES = """
return Object.fromEntries([...document.querySelectorAll('.node')].map(
  (each) => [each.dataset.key, each.dataset.state]))
"""


def wait(driver, condition, timeout=FIRST):
    return WebDriverWait(driver, timeout, poll_frequency=0.05).until(condition)


def states(driver):
    return driver.execute_script(STATES)


def check_clean(driver, url):
    """No complaint in the console, and no request but to the page's own origin."""
    assert problems(driver) == []
    asked = requested(driver)
    assert url in asked
    assert {each for each in asked if not each.startswith(url)} == set()


async def test_a_killed_replica_is_seen_within_two_seconds(chroot, directories, tmp_path):
    with replicas(chroot, tmp_path, directories()) as fleet:
        for number in (1, 2):
            await asyncio.to_thread(fleet.start, "registry", number)
        directory: Directory = directories()
        async with served(directory, ("registry",), jobs=False) as page:

            def watch():
                with browser() as driver:
                    driver.get(page.url)
                    both = {"registry/registry-1": "UP", "registry/registry-2": "UP"}
                    wait(driver, lambda it: states(it) == both)
                    # It is asked at least once a second, so by now it has been.
                    wait(driver, lambda _: list(reach().values()) == [Reach.ANSWERS] * 2)
                    began = time.monotonic()
                    fleet.kill("registry-2")
                    wait(driver, lambda it: states(it)["registry/registry-2"] == "GONE", 10.0)
                    took = time.monotonic() - began
                    said = driver.find_element("css selector", ".happened").text
                    spoken = wait(
                        driver,
                        lambda it: it.find_element("css selector", "[aria-live]").get_property(
                            "textContent"
                        ),
                    )
                    check_clean(driver, page.url)
                    return took, states(driver), said, spoken

            def reach():
                return dict(page.watcher._reach)

            took, seen, said, spoken = await asyncio.to_thread(watch)
    assert took < 2.0
    assert seen == {"registry/registry-1": "UP", "registry/registry-2": "GONE"}
    assert "registry-2 is gone" in said
    assert "registry-2 is gone" in spoken


async def test_three_hundred_replicas_are_drawn_and_followed():
    async with (
        Swarm(300) as swarm,
        served(swarm.directory, ("api", "scheduler", "registry", "appmanager"), jobs=False) as page,
    ):
        loop = asyncio.get_running_loop()

        def watch():
            with browser() as driver:
                driver.get(page.url)
                # On a busy machine some are told silent before they were first asked.
                wait(driver, lambda it: list(states(it).values()) == ["UP"] * 300)
                wait(driver, lambda it: it.find_elements("css selector", ".tag"))
                # None lies on another, and all lie in the picture.
                places = driver.execute_script(PLACES)
                assert all(inside for _, _, inside in places)
                assert len({(x, y) for x, y, _ in places}) == 300

                began = time.monotonic()
                asyncio.run_coroutine_threadsafe(swarm.end("registry-50"), loop).result(10)
                wait(driver, lambda it: states(it)["registry/registry-50"] == "GONE", 15.0)
                took = time.monotonic() - began
                loop.call_soon_threadsafe(swarm.say, "api", "api-7", "DRAINING")
                wait(driver, lambda it: states(it)["api/api-7"] == "DRAINING")
                loop.call_soon_threadsafe(swarm.say, "api", "api-8", "BUSY")
                wait(driver, lambda it: states(it)["api/api-8"] == "BUSY")
                shapes = driver.execute_script(SHAPES, ["api/api-6", "api/api-7", "api/api-8"])
                check_clean(driver, page.url)

                size(driver, 360, 800)
                wait(driver, lambda it: it.execute_script(WIDTH) == 360)
                return took, shapes

        took, shapes = await asyncio.to_thread(watch)
    assert took < 2.0
    # Told by their shape, too, and not by colour alone.
    assert len(set(shapes)) == 3


class SlowJobs:
    """Answers at once, but for the job "a": when it is let."""

    def __init__(self, loop):
        self._loop = loop
        self._let = asyncio.Event()
        self.asked = []

    def let(self):
        self._loop.call_soon_threadsafe(self._let.set)

    async def jobs(self, **_):
        return {"jobs": [], "next": ""}

    async def job(self, name):
        self.asked.append(name)
        if name == "a":
            await self._let.wait()
        words = ("application", "owner", "flavor", "reason")
        times = ("submitted", "started", "ended", "attempt")
        lists = dict.fromkeys(("outputs", "attempts", "events"), ())
        told = {**dict.fromkeys(words, "-"), **dict.fromkeys(times, 0), **lists}
        return {"id": name, "state": "QUEUED", "parameters": {}, "exit_code": None, **told}

    async def logs(self, *_, **__):
        for each in ():
            yield each


def switch_jobs(driver, slow):
    """From one job to another, before the answer about the first is there."""
    driver.execute_script("location.hash = '#/jobs/a'")
    wait(driver, lambda _: "a" in slow.asked)
    driver.execute_script("location.hash = '#/jobs/b'")
    wait(driver, lambda it: it.find_element("css selector", ".onejob code").text == "b")
    slow.let()
    # The answer about the first comes before this one.
    driver.execute_async_script("fetch('api/jobs/a').then(() => setTimeout(arguments[0], 50))")
    assert driver.find_element("css selector", ".onejob code").text == "b"


async def test_the_keyboard_goes_through_it():
    async with (
        Swarm(12) as swarm,
        served(swarm.directory, ("api", "scheduler", "registry", "appmanager"), jobs=False) as page,
    ):
        slow = page.pages._gateway = SlowJobs(asyncio.get_running_loop())

        def watch():
            with browser() as driver:
                driver.get(page.url)
                wait(driver, lambda it: len(states(it)) == 12)
                # One stop in each group, whatever its size.
                assert len(driver.find_elements("css selector", ".node[tabindex='0']")) == 4
                first = driver.find_element("css selector", "[data-key='api/api-1']")
                driver.execute_script("arguments[0].focus()", first)
                keys = ActionChains(driver)
                keys.send_keys(Keys.ARROW_RIGHT).send_keys(Keys.ENTER).perform()
                detail = wait(driver, lambda it: it.find_element("css selector", ".detail"))
                assert "api-2" in detail.text
                unnamed = driver.execute_script(UNNAMED)
                ids = driver.execute_script("return document.activeElement.dataset.key")
                for tab in ("Jobs", "ZooKeeper", "Configuration", "Fleet"):
                    link = driver.find_element("link text", tab)
                    link.send_keys(Keys.ENTER)
                    wait(driver, lambda _, link=link: link.get_attribute("aria-current") == "page")
                switch_jobs(driver, slow)
                return unnamed, ids

        unnamed, focused = await asyncio.to_thread(watch)
    assert unnamed == []
    assert focused == "api/api-2"


PLACES = """
const picture = document.querySelector('.octopus svg').getBoundingClientRect();
return [...document.querySelectorAll('.node .hit')].map((each) => {
  const box = each.getBoundingClientRect();
  const inside = box.left >= picture.left && box.right <= picture.right
    && box.top >= picture.top && box.bottom <= picture.bottom;
  return [Math.round(box.left * 10), Math.round(box.top * 10), inside];
});
"""
SHAPES = """
return arguments[0].map((key) =>
  document.querySelector(`[data-key="${key}"]`).querySelector('.hit ~ :not(.hit)').tagName
  + (document.querySelector(`[data-key="${key}"] polygon`)?.getAttribute('points')
      ?.split(' ').length ?? ''));
"""
WIDTH = "return document.documentElement.scrollWidth"
# What can be reached and has no name that could be spoken.
UNNAMED = """
return [...document.querySelectorAll('a, button, input, select, [role=button], [role=img], img')]
  .filter((each) => !(each.getAttribute('aria-label') || each.textContent.trim()
    || each.labels?.length || each.hasAttribute('alt')))
  .map((each) => each.outerHTML);
"""
