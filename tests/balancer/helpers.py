"""A balancer without a clock, a lock or a network."""

from __future__ import annotations

import contextlib
import random

from shoal_balancer import Balancer, Ejection, PeakEwma, Replica, Status

RULE = Ejection()


class Hand:
    """A clock that a test turns."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def replica(name: str, **facts) -> Replica:
    facts.setdefault("port", 1)
    if "status" in facts:
        facts["status"] = Status(facts["status"])
    return Replica(name, "127.0.0.1", **facts)


def balancer(
    names=(), *, policy=None, ejection=RULE, seed=1, rng=None, clock=None, lock=None, **options
):
    made = Balancer(
        policy or PeakEwma(),
        connect=lambda replica: replica.target,
        clock=clock or Hand(),
        rng=rng or random.Random(seed),
        lock=lock or contextlib.nullcontext(),
        ejection=ejection,
        **options,
    )
    made.clock = clock or made._clock
    made.update([replica(name) for name in names])
    return made


def node_of(made, name):
    """The node of a replica, wherever it is."""
    (found,) = (node for node in made.snapshot.everyone().values() if node.replica.id == name)
    return found


def names(nodes):
    return [node.replica.id for node in nodes]
