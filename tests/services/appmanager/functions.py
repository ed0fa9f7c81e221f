"""Functions to call, and what came of a call."""

import json
import textwrap

import pytest

from shoal_gateway.appmanager import pool
from tests.support.waiting import eventually

# What sleeps in it is ended by its test: users' functions wait in such ways, and hear of nothing.
MODULE = """
    import json, os, subprocess, sys, threading, time

    def noop(): pass
    def add(a, b): return {"sum": int(a) + int(b), "pid": os.getpid()}
    def speak(): print("hello"); print("oh", file=sys.stderr); os.write(1, b"raw\\n")
    def fail(): raise ValueError("no such mushroom")
    def leave(code): sys.exit(int(code))
    def die(how): os._exit(7) if how == "exit" else os.kill(os.getpid(), int(how))
    def stay(): time.sleep(3600)
    def hog(): return len(bytearray(1 << 30))
    def files(): open("more.txt", "w").write(open("in/a.txt").read() + os.environ["SHOAL_JOB_ID"])
    def odd(): return {1, 2}
    def until(path):
        while not os.path.exists(path): time.sleep(0.005)
        return os.listdir(".")
    def cry(): raise ValueError(b"r\\xe9sum\\xe9\\0".decode(errors="surrogateescape"))
    def forge(line):
        for each in os.listdir("/proc/self/fd"):
            if int(each) > 2 and os.path.exists(f"/proc/self/fd/{each}"):
                if os.readlink(f"/proc/self/fd/{each}").startswith("socket:"):
                    os.write(int(each), line.encode() + b"\\n")
        time.sleep(3600)
    def breed(path):
        child = subprocess.Popen(["/bin/sleep", "3600"])
        open(path, "w").write(str(child.pid))
"""


@pytest.fixture
def functions(host, monkeypatch):
    monkeypatch.setattr(pool, "GRACE", 0.3)
    place = host.root / "apps" / "test"
    place.mkdir(parents=True)
    (place / "functions.py").write_text(textwrap.dedent(MODULE))
    return host


def call(host, name, *, outputs=(), inputs=(), wall=60.0, memory=0, **parameters):
    offer = host.offer(
        function=f"functions:{name}",
        parameters=tuple(parameters.items()),
        outputs=outputs,
        inputs=inputs,
        wall_seconds=wall,
        memory_mib=memory,
    )
    (answer,) = host.manager.start([offer])
    assert answer.verdict == "started", answer
    return offer.job_id


def result(host, job_id):
    return json.loads(content(host, job_id))


def content(host, job_id, name="result.json"):
    files = dict(host.report(job_id).files)
    return b"".join(host.objects.get(files[name].key))


def log(host, job_id, stream):
    (begun,) = [each for each in host.registry.begun if each[0] == job_id]
    prefix = f"jobs/{job_id}/attempt-1/{begun[3]}/logs/{stream}/"
    return b"".join(
        piece for each in host.objects.list(prefix) for piece in host.objects.get(each.key)
    )


def events(host, job_id):
    return [entry for entry in host.ledger() if entry["job_id"] == job_id]


def worker_of(host, job_id):
    """The process that a job runs in, once it does."""

    def pid():
        return next((entry["pid"] for entry in events(host, job_id)), None)

    return eventually(pid, what="a call")
