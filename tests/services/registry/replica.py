"""A process with a registry of its own on a store that others use too.

Says "ready", waits for a line, does what it is told, and says what came of it, as JSON.
"""

from __future__ import annotations

import json
import sys

from shoal_gateway.registry.logic import Registry
from shoal_gateway.registry.store import Store
from tests.services.registry.conftest import Hands, Outcome, spec


def open_store(url: str, _name: str) -> int:
    made = Store(url)
    found = Registry(made).latest()
    made.close()
    return found


def work_through(url: str, name: str) -> list[str]:
    made = Store(url)
    hands = Hands(made)
    for number in range(20):
        # All replicas submit the same: the key decides who makes the job.
        hands.registry.create("ada", f"key-{number}", spec())
    finished = []
    while offers := hands.registry.lease(name, 3, 60.0, []):
        for offer in offers:
            assert hands.report(hands.begin(offer), Outcome.OUTCOME_SUCCEEDED).accepted
            finished.append(offer.job_id)
    made.close()
    return finished


if __name__ == "__main__":
    action, url, name = sys.argv[1:]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    sys.stdout.write(json.dumps({"open": open_store, "work": work_through}[action](url, name)))
