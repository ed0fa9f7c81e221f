"""The pure part of Shoal: replicas, load, choice, health and retry budget.

Nothing here does I/O, starts a thread or reads a clock: time, randomness and locks are passed in.
"""

from shoal_balancer.affinity import Rendezvous
from shoal_balancer.balancer import Balancer
from shoal_balancer.budget import RetryBudget
from shoal_balancer.canary import Canary
from shoal_balancer.choice import KeyedPolicy, LeastLoaded, PeakEwma, Policy, Random, RoundRobin
from shoal_balancer.health import Ejection, Health
from shoal_balancer.limit import AdaptiveLimit, FixedLimit, Limit, Limiter
from shoal_balancer.load import Load
from shoal_balancer.locality import Locality
from shoal_balancer.node import Node, Observer, Outcome
from shoal_balancer.quantile import Quantile
from shoal_balancer.replica import NO_METADATA, Replica, ReplicaSet, Status
from shoal_balancer.report import LoadReport
from shoal_balancer.reported import LeastReported
from shoal_balancer.snapshot import Reserved, Snapshot, elapsed, settled, updated
from shoal_balancer.subset import Subset
from shoal_balancer.versions import Version, VersionRange
from shoal_balancer.warmup import SlowStart
from shoal_balancer.weighted import ReportedWeight, WeightedRandom, WeightedRoundRobin

__all__ = [
    "NO_METADATA",
    "AdaptiveLimit",
    "Balancer",
    "Canary",
    "Ejection",
    "FixedLimit",
    "Health",
    "KeyedPolicy",
    "LeastLoaded",
    "LeastReported",
    "Limit",
    "Limiter",
    "Load",
    "LoadReport",
    "Locality",
    "Node",
    "Observer",
    "Outcome",
    "PeakEwma",
    "Policy",
    "Quantile",
    "Random",
    "Rendezvous",
    "Replica",
    "ReplicaSet",
    "ReportedWeight",
    "Reserved",
    "RetryBudget",
    "RoundRobin",
    "SlowStart",
    "Snapshot",
    "Status",
    "Subset",
    "Version",
    "VersionRange",
    "WeightedRandom",
    "WeightedRoundRobin",
    "elapsed",
    "settled",
    "updated",
]
