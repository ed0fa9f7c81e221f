"""A host whose jobs have accounts of their own."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from shoal_gateway.appmanager import apart
from tests.services.appmanager.host import Host
from tests.support.rooted import PYTHON
from tests.support.waiting import eventually


class ApartHost(Host):
    """A host whose jobs have accounts."""

    slots = 3
    lease = 2.0
    interpreter = PYTHON

    def __init__(self, root, accounts):
        super().__init__(root)
        self.accounts = accounts

    def said(self, job_id):
        """What a job wrote to standard output."""
        objects = self.objects.list(f"jobs/{job_id}/")
        parts = [each.key for each in objects if "/logs/stdout/" in each.key]
        return b"".join(b"".join(self.objects.get(key)) for key in parts).decode()

    def outcome(self, code, **facts):
        """How a job ended, and what it wrote."""
        job_id = self.python(code, **facts)
        result = self.report(job_id)
        return result, self.said(job_id)

    def call(self, function, **parameters):
        """How a function ended, what it wrote, and its outputs."""
        offer = self.offer(
            function=f"calls:{function}",
            outputs=("result.json",),
            parameters=tuple(parameters.items()),
        )
        # Workers take a moment to be there.
        eventually(lambda: self.manager.start([offer])[0].verdict == "started", what="a worker")
        result = self.report(offer.job_id)
        return result, self.said(offer.job_id), result.files


@pytest.fixture
def host():
    root = Path(tempfile.mkdtemp(prefix="shoal-apart-", dir="/tmp"))
    (root / "secret").write_text("of the manager's")
    (root / "apps" / "test").mkdir(parents=True)
    (root / "apps" / "test" / "calls.py").write_text(CALLS)
    accounts = apart.accounts_for("auto", root, PYTHON, 64)
    assert accounts is not None
    made = ApartHost(root, accounts)
    before = os.umask(0o077)
    yield made
    made.close()
    os.umask(before)
    shutil.rmtree(root)


CALLS = """
import os

def who():
    print(os.getuid(), os.getgroups())
    return os.getcwd()

def read(path):
    return open(path).read()

def place():
    cache = os.environ["XDG_CACHE_HOME"]
    open(os.path.join(cache, "x"), "w").close()
    return open("/proc/self/oom_score_adj").read()

def detach():
    # In a session of its own, known by no parent and by no mark.
    if not os.fork():
        os.setsid()
        if not os.fork():
            os.execve("/bin/sleep", ["sleep", "3600"], {})
        os._exit(0)
    os.wait()

def leave():
    detach()
    os.kill(os.getpid(), 9)

def swarm():
    children = []
    try:
        while True:
            pid = os.fork()
            if not pid:
                # Until it is ended with its worker, which is what the test is about.
                import time; time.sleep(60)
            children.append(pid)
    except BlockingIOError:
        return len(children)
"""
