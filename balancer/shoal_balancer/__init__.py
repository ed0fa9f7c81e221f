"""The pure part of Shoal: replicas, load, choice, health and retry budget.

Nothing here does I/O, starts a thread or reads a clock: time, randomness and locks are passed in.
"""

from shoal_balancer.balancer import Balancer
from shoal_balancer.budget import RetryBudget
from shoal_balancer.choice import LeastLoaded, PeakEwma, Policy, Random, RoundRobin
from shoal_balancer.health import Ejection, Health
from shoal_balancer.load import Load
from shoal_balancer.node import Node, Outcome
from shoal_balancer.replica import NO_METADATA, Replica, ReplicaSet, Status
from shoal_balancer.report import LoadReport
from shoal_balancer.snapshot import Reserved, Snapshot, elapsed, settled, updated

__all__ = [
    "NO_METADATA",
    "Balancer",
    "Ejection",
    "Health",
    "LeastLoaded",
    "Load",
    "LoadReport",
    "Node",
    "Outcome",
    "PeakEwma",
    "Policy",
    "Random",
    "Replica",
    "ReplicaSet",
    "Reserved",
    "RetryBudget",
    "RoundRobin",
    "Snapshot",
    "Status",
    "elapsed",
    "settled",
    "updated",
]
