"""What is answered over HTTP, whatever stands behind it."""

from typing import NamedTuple
from urllib.parse import unquote

import pytest
from kazoo.exceptions import ConnectionClosedError

from shoal.errors import CoordinationTimeoutError
from shoal.testing import FixedDirectory
from shoal.testing.installed import ZooKeeperError
from shoal_gateway.dashboard.guard import TOKEN_HEADER
from shoal_gateway.fleet import FleetError
from shoal_gateway.fleet.pginstalled import PostgresError
from tests.support.pages import served


class Chunk(NamedTuple):
    """Of a log."""

    attempt: int
    offset: int
    data: bytes


class Behind:
    """Stands for the gateway, the documents and the actions."""

    def __init__(self, chunks=(), error=None):
        self.chunks = chunks
        self.error = error

    def choices(self):
        return {}

    async def act(self, *_):
        raise self.error

    async def all(self):
        raise self.error

    async def logs(self, *_, **__):
        for each in self.chunks:
            yield each

    async def download(self, *_):
        for each in self.chunks:
            yield each


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (FleetError("no"), 409),
        (PostgresError("no"), 503),
        (ZooKeeperError("no"), 503),
        (CoordinationTimeoutError("no"), 503),
        (ConnectionClosedError("no"), 503),
        (OSError(28, "no"), 500),
        (TimeoutError("no"), 500),
        (ValueError("no"), 400),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
async def test_what_goes_wrong_is_said_as_what_it_is(error, status):
    behind = Behind(error=error)
    async with served(FixedDirectory({}), actor=behind, documents=behind, jobs=False) as page:
        token = {TOKEN_HEADER: page.pages.token.text}
        answers = [
            await page.post("api/actions", {"action": "start"}, **token),
            await page.get("api/config"),
        ]
    for answer in answers:
        assert answer.status_code == status
        assert "no" in answer.json()["error"]


async def test_only_what_lies_in_static_is_given():
    async with served(FixedDirectory({}), jobs=False) as page:
        assert (await page.get("static/js/app.js")).status_code == 200
        # Unquoted, these would have been made shorter before they were sent.
        for path in (
            "static/..%2Fweb.py",
            "static/js/..%2F..%2F..%2Fweb.py",
            "static/%2Fetc%2Fhosts",
        ):
            assert (await page.get(f"static/{path}")).status_code == 404


@pytest.mark.parametrize("name", ["φάκελος.bin", 'a"b;c.bin', "a b.bin"])
async def test_a_file_of_any_name_is_saved(name):
    async with served(FixedDirectory({}), jobs=False) as page:
        page.pages._gateway = Behind([b"12", b"3"])
        answer = await page.get(f"api/jobs/7/outputs/{name}")
    assert (answer.status_code, answer.content) == (200, b"123")
    kind, _, quoted = answer.headers["content-disposition"].partition("; filename*=UTF-8''")
    assert (kind, unquote(quoted)) == ("attachment", name)
    assert quoted.isascii()


async def test_a_character_that_came_in_two_parts_is_one():
    whole = "aφ".encode()
    chunks = [Chunk(1, 0, whole[:2]), Chunk(1, 2, whole[2:]), Chunk(2, 0, b"b\xce")]
    async with served(FixedDirectory({}), jobs=False) as page:
        page.pages._gateway = Behind(chunks)
        raw = (await page.get("api/jobs/7/logs")).text
        told = await page.events("api/jobs/7/logs", 5)
    assert [each.get("text") for _, each in told] == ["a", "φ", "b", "\ufffd", None]
    assert [line for line in raw.splitlines() if line.startswith("id:")] == [
        "id: 1:1",
        "id: 1:3",
        "id: 2:1",
    ]
