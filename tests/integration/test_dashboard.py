"""The live page over real HTTP, against a whole fleet, and its command."""

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from vega_datasets import data as datasets

from shoal.recipes.config import Anything, Config
from shoal_gateway.dashboard.actions import FleetActor
from shoal_gateway.dashboard.documents import Documents
from shoal_gateway.fleet import FleetError, processes
from shoal_gateway.fleet.layout import SERVICES
from tests.support.pages import served
from tests.support.waiting import eventually

SHOAL = Path(sys.executable).with_name("shoal")


@pytest.fixture
def directory(fleet):
    with fleet.fleet.directory_of() as found:
        yield found


def submit(fleet, *arguments):
    """Submits a job with the command line and waits for its end; its id."""
    done = subprocess.run(
        [
            *(SHOAL, "--fleet", fleet.fleet.directory, "--owner", "tester"),
            *("submit", *arguments, "--wait", "--json"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return requests.compat.json.loads(done.stdout)[0]["id"]


async def until(check, within=30.0):
    """Asks again until it is true; on the event loop that makes it so."""
    async with asyncio.timeout(within):
        while not (value := check()):  # noqa: ASYNC110 - what changes has no event
            await asyncio.sleep(0.02)
    return value


async def test_jobs_with_their_attempts_logs_and_outputs(fleet, directory):
    weather = datasets.seattle_weather.filepath
    async with served(directory, SERVICES) as page:
        job = await asyncio.to_thread(
            submit, fleet, "climate", "-i", f"observations.csv={weather}", "-p", "month=7"
        )
        found = (await page.get("api/jobs?state=succeeded&owner=tester")).json()["jobs"]
        assert job in {each["id"] for each in found}
        assert {each["state"] for each in found} == {"SUCCEEDED"}
        assert (await page.get("api/jobs?owner=nobody-at-all")).json()["jobs"] == []

        shown = (await page.get(f"api/jobs/{job}")).json()
        assert [each["outcome"] for each in shown["attempts"]][-1:] == ["succeeded"]
        assert shown["events"][0]["state"] == "SUBMITTED"
        assert shown["parameters"]["month"] == "7"

        events = await page.events(f"api/jobs/{job}/logs", count=100)
        assert events[-1][0] == "end"
        text = "".join(each["text"] for name, each in events if name == "log")
        assert "month 7" in text
        # A browser that connects anew gets the rest, and no byte twice.
        cursor = {"Last-Event-ID": f"1:{len(text.encode())}"}
        assert await page.events(f"api/jobs/{job}/logs", count=100, headers=cursor) == [("end", {})]

        outputs = {each["name"]: each for each in shown["outputs"]}
        picture = await page.get(f"api/jobs/{job}/outputs/forecast.png")
        assert picture.headers["content-type"] == "image/png"
        assert picture.content.startswith(b"\x89PNG")
        assert len(picture.content) == outputs["forecast.png"]["size"]
        # What a job made is nothing that may do anything in our name.
        assert "sandbox" in picture.headers["content-security-policy"]
        # And it was seen in the events of the fleet.
        rows = [each.row() for each in page.watcher._series._buckets]
        assert sum(row[2] for row in rows) >= 1


async def test_what_is_wrong_is_said(fleet, directory):
    async with served(directory, SERVICES) as page:
        for path, status, words in [
            ("api/jobs/00000000-0000-4000-8000-000000000000", 404, "no job"),
            ("api/jobs/nonsense", 400, "id"),
            ("api/jobs?state=flying", 400, "no state 'flying'"),
            ("api/jobs/x/logs?stream=stdin", 400, "stdout or stderr"),
            ("api/nothing", 404, "Not Found"),
        ]:
            answer = await page.get(path)
            assert (answer.status_code, words in answer.text) == (status, True), answer.text
        missing = await page.get(
            "api/jobs/00000000-0000-4000-8000-000000000000/outputs/forecast.png"
        )
        assert missing.status_code in (404, 409)


async def test_other_sites_get_nothing(fleet, directory):
    async with served(directory, SERVICES, actor=FleetActor(fleet.fleet)) as page:
        rebound = await page.get("api/about", headers={"Host": "evil.example"})
        assert rebound.status_code == 421
        assert "token" not in rebound.text
        answer = await page.get("")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "access-control-allow-origin" not in answer.headers
        kill = {"action": "kill", "name": "api-1"}
        for headers in ({}, {"X-Shoal-Token": "guessed"}):
            refused = await page.post("api/actions", kill, **headers)
            assert (refused.status_code, "token" in refused.text) == (403, True)
        assert fleet.fleet.running("api-1")


async def test_without_the_flag_there_are_no_actions(fleet, directory):
    async with served(directory, SERVICES) as page:
        assert (await page.get("api/about")).json()["actions"] is None
        refused = await page.post("api/actions", {"action": "kill", "name": "api-1"})
        assert (refused.status_code, "--allow-actions" in refused.text) == (403, True)


async def test_a_replica_is_killed_and_started_by_its_buttons(fleet, directory):
    def state(page):
        found = {each.replica.id: each.state.value for each in page.watcher.sights}
        return found.get("scheduler-3")

    async with served(directory, SERVICES, actor=FleetActor(fleet.fleet)) as page:
        about = (await page.get("api/about")).json()
        token = {"X-Shoal-Token": about["actions"]["token"]}
        await until(lambda: state(page) == "UP")
        try:
            done = await page.post(
                "api/actions", {"action": "kill", "name": "scheduler-3"}, **token
            )
            assert done.json() == {"said": "killed scheduler-3"}
            await until(lambda: state(page) == "GONE", within=5.0)
            again = await page.post(
                "api/actions", {"action": "kill", "name": "scheduler-3"}, **token
            )
            assert (again.status_code, "does not run" in again.text) == (409, True)
        finally:
            done = await page.post(
                "api/actions", {"action": "start", "name": "scheduler-3"}, **token
            )
        assert done.status_code == 200, done.text
        await until(lambda: state(page) == "UP")
        for wish in ({"action": "burn", "name": "api-1"}, {"action": "kill", "name": "--help"}):
            assert (await page.post("api/actions", wish, **token)).status_code == 400


async def test_calls_between_replicas_are_seen(fleet, directory):
    async with served(directory, SERVICES) as page:

        def edges():
            return page.watcher._tick.get("edges", {})

        # Schedulers look for work all the time.
        found = await until(lambda: edges().get("scheduler>registry", [0])[0] > 0 and edges())
        rate, _, latency, _ = found["scheduler>registry"]
        assert 0.0 < rate < 10_000.0
        assert latency is not None


async def test_configuration_with_its_history(fleet, directory):
    with Config(directory, "scheduler", Anything) as config:
        config.set({"poll": 0.4}, why="a test", who="tester")
        config.set({"poll": 0.5}, why="again", who="tester")
    async with served(directory, documents=Documents(directory)) as page:
        found = {each["name"]: each for each in (await page.get("api/config")).json()}
    assert set(found) == {"api", "registry", "scheduler", "appmanager"}
    scheduler = found["scheduler"]
    assert scheduler["document"] == {"poll": 0.5}
    assert scheduler["defaults"]["max_batch"] == 256
    latest, before = scheduler["versions"][:2]
    assert latest["changes"] == [["poll", 0.4, 0.5]]
    assert (before["why"], before["who"]) == ("a test", "tester")


def test_the_command_serves_until_ctrl_c(fleet):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = subprocess.run(
            [SHOAL, "--fleet", fleet.fleet.directory, "dashboard", "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (refused.returncode, "--port 0" in refused.stderr) == (1, True)
    command = [SHOAL, "--zookeeper", fleet.zookeeper, "dashboard", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        url = run.stdout.readline().split()[0]
        assert "Shoal" in requests.get(url, timeout=30).text
        # One that watches does not hold up the end.
        with requests.get(url + "events", stream=True, timeout=30) as stream:
            next(stream.iter_lines())
            run.send_signal(signal.SIGINT)
            assert run.wait(20) == 0
        assert run.stderr.read() == ""


def test_actions_are_for_loopback_and_a_fleet_of_this_machine(fleet):
    for options, words in (
        (["--fleet", fleet.fleet.directory, "dashboard", "--bind", "0.0.0.0"], "loopback"),
        (["--zookeeper", fleet.zookeeper, "dashboard"], "local fleet"),
    ):
        refused = subprocess.run(
            [SHOAL, *options, "--allow-actions"], capture_output=True, text=True, timeout=60
        )
        assert refused.returncode == 1
        assert words in refused.stderr


def test_the_fleet_starts_it_and_names_its_url(fleet):
    url = fleet.fleet.start_dashboard()
    process = fleet.fleet.state.dashboard
    try:
        about = requests.get(url + "api/about", timeout=30).json()
        assert about["title"] == fleet.zookeeper
        assert about["actions"] is None
        assert fleet.fleet.layout.dashboard_url.read_text().strip() == url
    finally:
        processes.send(process, signal.SIGTERM)
        assert not processes.wait_gone([process], 20.0)


def test_a_page_that_can_not_be_served_says_where_its_log_is(fleet, monkeypatch):
    monkeypatch.setenv("SHOAL_TOKEN", "no token")
    with pytest.raises(FleetError, match=r"dashboard\.log"):
        fleet.fleet.start_dashboard()
    log = fleet.fleet.directory / "dashboard.log"
    eventually(lambda: "SHOAL_TOKEN holds no token" in log.read_text(), what="the reason")
