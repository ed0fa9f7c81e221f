"""A small instance metadata service, version 2 only; moto has none."""

from __future__ import annotations

import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Metadata:
    """What it says, and what was asked.

    Attributes:
        values: By path below ``/latest``; others are 404.
        failures: Status codes that the next answers get instead.
        asked: Paths that were asked for, with a good token.
        without_token: Paths that were asked for without one, as version 1 does.
        tokens: How many were given out.
    """

    def __init__(self) -> None:
        self.values = {
            "meta-data/instance-id": "i-0123456789abcdef0",
            "meta-data/placement/availability-zone": "eu-central-1b",
            "meta-data/placement/region": "eu-central-1",
            "meta-data/local-ipv4": "127.0.0.1",
            "meta-data/autoscaling/target-lifecycle-state": "InService",
        }
        self.failures: list[int] = []
        self.asked: list[str] = []
        self.without_token: list[str] = []
        self.tokens = 0
        self._good: set[str] = set()

    def forget_tokens(self):
        self._good.clear()

    def answer(self, method, path, headers):
        if self.failures:
            return self.failures.pop(0), ""
        if "X-Forwarded-For" in headers:
            return 403, ""
        if (method, path) == ("PUT", "api/token"):
            seconds = headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
            if not seconds.isdigit() or not 1 <= int(seconds) <= 21600:
                return 400, ""
            self.tokens += 1
            token = uuid.uuid4().hex
            self._good.add(token)
            return 200, token
        token = headers.get("X-aws-ec2-metadata-token")
        if token is None:
            self.without_token.append(path)
        if token not in self._good:
            return 401, ""
        self.asked.append(path)
        value = self.values.get(path)
        return (404, "") if value is None else (200, value)


@pytest.fixture
def imds(monkeypatch):
    """A service of the test's own, and an environment that leads to it."""
    metadata = Metadata()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.removeprefix("/latest/")
            code, text = metadata.answer(self.command, path, self.headers)
            body = text.encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    metadata.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url)
    yield metadata
    server.shutdown()
    server.server_close()
    thread.join()
    assert metadata.without_token == [], "version 1 of the metadata service was tried"
