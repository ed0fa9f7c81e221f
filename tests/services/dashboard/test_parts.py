"""Names that are let in, what the page may load, what is vendored, and documents for the page."""

import hashlib
import json
import re

import pytest

from shoal.recipes.confighistory import Revision
from shoal_gateway.dashboard import guard
from shoal_gateway.dashboard.documents import changes, told
from shoal_gateway.dashboard.hub import BEHIND, Hub, event
from shoal_gateway.dashboard.web import STATIC

VENDOR = STATIC / "vendor"


@pytest.mark.parametrize(
    ("header", "known"),
    [
        ("127.0.0.1:8470", True),
        ("localhost:8470", True),
        ("localhost", True),
        ("[::1]:8470", True),
        ("127.9.9.9", True),
        ("shoal.example:8470", True),
        ("SHOAL.example", True),
        ("evil.example:8470", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
    ],
)
def test_names_of_ours(header, known):
    assert guard.known_host(header, {"shoal.example"}) is known


def test_the_page_loads_nothing_from_elsewhere_and_its_own_map_is_allowed():
    page = (STATIC / "index.html").read_text()
    policy = guard.policy(page)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert len(re.findall(r"'sha256-", policy)) == 1
    changed = guard.policy(page.replace('"htm":', '"more": "/x.js", "htm":'))
    assert changed != policy
    for path in STATIC.rglob("*"):
        if path.suffix in {".js", ".css", ".html"} and VENDOR not in path.parents:
            assert not re.search(r"https?://", path.read_text()), path


def test_a_token_fits_only_itself():
    token = guard.Token()
    assert token.fits(token.text)
    assert not token.fits(None)
    assert not token.fits("")
    assert not token.fits(guard.Token().text)


def test_what_is_vendored_is_what_was_published():
    listed = json.loads((VENDOR / "MANIFEST.json").read_text())
    for each in listed:
        found = hashlib.sha256((VENDOR / each["file"]).read_bytes()).hexdigest()
        assert found == each["sha256"], each["file"]
        assert each["version"]
        assert each["source"]
    on_disk = {str(path.relative_to(VENDOR)) for path in VENDOR.rglob("*") if path.is_file()}
    assert on_disk == {each["file"] for each in listed} | {"MANIFEST.json"}
    for package in {each["package"] for each in listed}:
        assert (VENDOR / package / "LICENSE").is_file()


def test_what_a_version_changed():
    before = {"poll": 0.5, "retry": {"attempts": 3}}
    after = {"poll": 0.5, "retry": {"attempts": 4, "backoff": 0.1}}
    assert changes(before, after) == [["retry.attempts", 3, 4], ["retry.backoff", None, 0.1]]


def test_a_document_with_its_history():
    kept = [
        Revision(4, 1.0, "ann", "", {"poll": 1.0}),
        Revision(5, 2.0, "bob", "slower", {"poll": 2.0}),
    ]
    found = told("scheduler", {"poll": 0.5}, kept)
    assert found["document"] == {"poll": 2.0}
    assert [each["version"] for each in found["versions"]] == [5, 4]
    assert found["versions"][0]["changes"] == [["poll", 1.0, 2.0]]
    # What came before it is gone.
    assert found["versions"][1]["changes"] is None


def test_events_are_one_line_of_data_each():
    assert event("a", {"text": "x\ny"}, "1:2") == b'id: 1:2\nevent: a\ndata: {"text":"x\\ny"}\n\n'


async def test_a_page_that_is_slow_begins_anew():
    hub = Hub(lambda: [event("whole", {})])
    stream = hub.stream()
    assert b"event: whole" in await anext(stream)
    for number in range(BEHIND + 1):
        hub.publish("news", number)
    assert b"event: whole" in await anext(stream)
    hub.publish("news", "last")
    assert b"last" in await anext(stream)
    hub.close()
    assert [each async for each in stream] == []
    assert not hub._queues
