"""Moto's server as a process of its own: AWS as far as a test needs it, over real HTTP."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import boto3
import pytest

ROOT = Path(__file__).parents[2]
REGION = "eu-central-1"
_URL = re.compile(r"Running on (http://127\.0\.0\.1:\d+)")


class Moto:
    """A server on a free port; ends with the block.

    Args:
        module: What is run: moto's own, or tests.support.moto_server.
        settings: Of moto, beside those that every test wants.
    """

    def __init__(self, module="moto.server", **settings) -> None:
        self._command = [sys.executable, "-m", module, "-H", "127.0.0.1", "-p", "0"]
        # Short pages, so that whoever forgets the next one is found out.
        self._settings = {"MOTO_S3_DEFAULT_MAX_KEYS": "10"} | settings

    def __enter__(self):
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | self._settings,
        )
        self.lines = []
        for line in self._process.stderr:
            self.lines.append(line)
            if found := _URL.search(line):
                self.url = found[1]
                break
        else:
            raise AssertionError(f"moto's server did not start: {self.lines}")
        # Read to the end, else a full pipe stops it.
        self._reader = threading.Thread(target=self.lines.extend, args=[self._process.stderr])
        self._reader.start()
        self._numbers = itertools.count(1)
        self._clients = {}
        return self

    def __exit__(self, *_):
        # It keeps nothing that would be worth a slower end.
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._process.stderr.close()

    def environment(self):
        """What leads boto3 to it, and nowhere else."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    def client(self, service):
        """A plain client of it, of no settings of ours."""
        if service not in self._clients:
            self._clients[service] = boto3.client(
                service,
                endpoint_url=self.url,
                region_name=REGION,
                aws_access_key_id="testing",
                aws_secret_access_key="testing",
            )
        return self._clients[service]

    def bucket(self):
        """A new bucket's name."""
        name = f"bucket-{next(self._numbers)}"
        where = {"LocationConstraint": REGION}
        self.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration=where)
        return name

    def reset(self):
        """Forgets everything."""
        request = urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")
        urllib.request.urlopen(request, timeout=30).close()


@pytest.fixture(scope="session")
def moto_server():
    """One server for the whole run."""
    with Moto() as made:
        yield made


@pytest.fixture
def moto(moto_server, monkeypatch):
    """The server, empty, and an environment that leads to it."""
    moto_server.reset()
    for key, value in moto_server.environment().items():
        monkeypatch.setenv(key, value)
    for key in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
        monkeypatch.delenv(key, raising=False)
    return moto_server
