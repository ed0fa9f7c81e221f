"""A caller that starts while ZooKeeper is dead: what it knows is the snapshot on the disk.

    python -m shoal_gateway.experiments.newcomer ZOOKEEPER CACHE KEY SECONDS

Prints JSON objects, one a line, each as soon as it is so: whether it was served and after how many
seconds; the id of its job; what became of that.
"""

from __future__ import annotations

import json
import sys
import time

import grpc

from shoal.directory import Directory
from shoal.errors import ShoalError
from shoal.tls import Tls
from shoal_gateway.client import TERMINAL, Gateway, state_name

OWNER = "newcomer"


def main(zookeeper: str, cache: str, key: str, nap: str) -> None:
    """Calls, submits a job and waits for its end.

    Args:
        zookeeper: Its servers' address, which nobody need answer.
        cache: Directory of snapshots.
        key: Of the job.
        nap: Seconds that it waits.
    """
    began = time.monotonic()
    with Directory(zookeeper, cache_dir=cache, tls=Tls.from_environment()) as directory:
        gateway = Gateway(directory, OWNER)
        try:
            gateway.applications()
        except (grpc.RpcError, ShoalError) as error:
            _tell(served=False, seconds=time.monotonic() - began, error=str(error))
            return
        _tell(served=True, seconds=time.monotonic() - began)
        job = gateway.submit("nap", inputs={}, parameters={"seconds": nap}, key=key)
        _tell(job_id=job.id)
        ends = (each.state for each in gateway.watch(job.id) if each.state in TERMINAL)
        _tell(job=state_name(next(ends)), job_seconds=time.monotonic() - began)


def _tell(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
