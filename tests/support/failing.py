"""Servers that fail as they are told, and retries that don't keep a test waiting."""

from __future__ import annotations

import threading
import time

import grpc

from shoal.retry import Retry
from shoal_balancer import RetryBudget

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def budget(count):
    """One with exactly that many retries."""
    return RetryBudget(
        ratio=0.0, per_second=count / 600, ttl=600, clock=time.monotonic, lock=threading.Lock()
    )


def quick(**facts):
    facts.setdefault("budget", budget(1000))
    facts.setdefault("backoff", 0.001)
    return Retry(**facts)


class Failing:
    """Fails the first calls, on whatever server, and remembers on which."""

    def __init__(self, servers, count, *, code=UNAVAILABLE, trailers=(), details="down"):
        self.left = count
        self.where = []
        self.numbers = []
        self._lock = threading.Lock()
        for server in servers:
            server.servicer.script = self._script(server, code, trailers, details)

    def _script(self, server, code, trailers, details):
        def script(context):
            with self._lock:
                self.where.append(server.servicer.name)
                self.numbers.append(dict(context.invocation_metadata()).get("shoal-attempt"))
                self.left -= 1
                failing = self.left >= 0
            if failing:
                context.set_trailing_metadata(trailers)
                context.abort(code, details)

        return script
