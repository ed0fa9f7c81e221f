"""gRPC services that announce themselves in ZooKeeper; callers that balance without a gateway.

    with shoal.Directory("zk1:2181,zk2:2181/gateway") as directory:
        with directory.channel("registry") as channel:
            stub = RegistryStub(channel)

Callers need `Directory`; servers `Server`; asyncio programs `shoal.aio`; tests `shoal.testing`.
"""

from shoal.channel import Channel, replica_of, where
from shoal.directory import Directory
from shoal.drain import DrainReport
from shoal.errors import (
    BindError,
    DirectoryClosedError,
    InstanceFormatError,
    RegistrationError,
    ShoalError,
    ShoalForkError,
)
from shoal.failures import Attempt, CallError
from shoal.refusal import refuse, refuse_aio
from shoal.reporter import LoadReporter, report
from shoal.retry import Retry
from shoal.server import Server
from shoal_balancer import (
    AdaptiveLimit,
    Ejection,
    FixedLimit,
    LeastLoaded,
    LoadReport,
    PeakEwma,
    Policy,
    Random,
    Replica,
    RetryBudget,
    RoundRobin,
    Status,
)

__all__ = [
    "AdaptiveLimit",
    "Attempt",
    "BindError",
    "CallError",
    "Channel",
    "Directory",
    "DirectoryClosedError",
    "DrainReport",
    "Ejection",
    "FixedLimit",
    "InstanceFormatError",
    "LeastLoaded",
    "LoadReport",
    "LoadReporter",
    "PeakEwma",
    "Policy",
    "Random",
    "RegistrationError",
    "Replica",
    "Retry",
    "RetryBudget",
    "RoundRobin",
    "Server",
    "ShoalError",
    "ShoalForkError",
    "Status",
    "refuse",
    "refuse_aio",
    "replica_of",
    "report",
    "where",
]
