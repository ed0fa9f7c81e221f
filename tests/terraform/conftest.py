"""What tests of hosts' shell share."""

import http.server
import secrets
import threading

import pytest

from tests.support.boot import Shell
from tests.support.vault import Vault


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


@pytest.fixture
def vault(shell, tmp_path):
    return Vault(shell, tmp_path)


@pytest.fixture
def imds():
    """Instance metadata that wants a token, as IMDSv2 does."""
    token = secrets.token_hex(8)

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, code, text=""):
            self.send_response(code)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def do_PUT(self):
            seconds = self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
            good = self.path == "/latest/api/token" and seconds
            self.answer(200, token) if good else self.answer(400)

        def do_GET(self):
            if self.headers["X-aws-ec2-metadata-token"] != token:
                self.answer(401)
            elif self.path == "/latest/meta-data/instance-id":
                self.answer(200, "i-0123456789abcdef0")
            else:
                self.answer(404)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
