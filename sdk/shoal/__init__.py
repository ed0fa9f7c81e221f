"""gRPC services that announce themselves in ZooKeeper; callers that balance without a gateway.

    with shoal.Directory("zk1:2181,zk2:2181/gateway") as directory:
        with directory.channel("registry") as channel:
            stub = RegistryStub(channel)

Callers need `Directory`; servers `Server`; asyncio programs `shoal.aio`; tests `shoal.testing`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.channel import Channel, replica_of, where
    from shoal.contracts import Contract
    from shoal.directory import Directory
    from shoal.drainreport import Caller, DrainReport
    from shoal.errors import (
        BindError,
        ConfigConflictError,
        ConfigError,
        ConfigInvalidError,
        ContractError,
        CoordinationError,
        CoordinationTimeoutError,
        DirectoryClosedError,
        InstanceFormatError,
        KeyFileError,
        KeyFormatError,
        KeysUnknownError,
        LockError,
        LockLostError,
        LockTakenError,
        LockTimeoutError,
        RegistrationError,
        ShoalError,
        ShoalForkError,
        SignatureError,
        TlsError,
    )
    from shoal.failures import Attempt, CallError
    from shoal.fitness import Unfit
    from shoal.hedging import Hedge
    from shoal.hooks import Hooks
    from shoal.identity import PeerIdentity, peer_identity
    from shoal.recipes.barrier import Barrier, DoubleBarrier
    from shoal.recipes.config import Config
    from shoal.recipes.group import Group, Member
    from shoal.recipes.keys import Keys
    from shoal.recipes.leadership import Leadership, Term
    from shoal.recipes.lock import Lock
    from shoal.recipes.meeting import MeetingPoint
    from shoal.refusal import refuse, refuse_aio
    from shoal.reporter import LoadReporter, report
    from shoal.retry import Retry
    from shoal.server import Server
    from shoal.signing import Signer
    from shoal.tls import Tls
    from shoal.views import ChannelView, ReplicaView
    from shoal_balancer import (
        AdaptiveLimit,
        Canary,
        Ejection,
        FixedLimit,
        KeyedPolicy,
        LeastLoaded,
        LeastReported,
        LoadReport,
        Locality,
        Outcome,
        PeakEwma,
        Policy,
        Random,
        Rendezvous,
        Replica,
        RetryBudget,
        RoundRobin,
        SlowStart,
        Status,
        Subset,
        VersionRange,
        WeightedRandom,
        WeightedRoundRobin,
    )
else:
    from shoal import lazily

    # Loaded when they are asked for: callers need no server, and most need no recipe.
    __getattr__, __dir__ = lazily.names(
        __name__,
        {
            "shoal.channel": "Channel replica_of where",
            "shoal.contracts": "Contract",
            "shoal.directory": "Directory",
            "shoal.drainreport": "Caller DrainReport",
            "shoal.errors": (
                "BindError ConfigConflictError ConfigError ConfigInvalidError ContractError "
                "CoordinationError CoordinationTimeoutError DirectoryClosedError "
                "InstanceFormatError KeyFileError KeyFormatError KeysUnknownError LockError "
                "LockLostError LockTakenError LockTimeoutError RegistrationError ShoalError "
                "ShoalForkError SignatureError TlsError"
            ),
            "shoal.failures": "Attempt CallError",
            "shoal.fitness": "Unfit",
            "shoal.hedging": "Hedge",
            "shoal.hooks": "Hooks",
            "shoal.identity": "PeerIdentity peer_identity",
            "shoal.recipes.barrier": "Barrier DoubleBarrier",
            "shoal.recipes.config": "Config",
            "shoal.recipes.group": "Group Member",
            "shoal.recipes.keys": "Keys",
            "shoal.recipes.leadership": "Leadership Term",
            "shoal.recipes.lock": "Lock",
            "shoal.recipes.meeting": "MeetingPoint",
            "shoal.refusal": "refuse refuse_aio",
            "shoal.reporter": "LoadReporter report",
            "shoal.retry": "Retry",
            "shoal.server": "Server",
            "shoal.signing": "Signer",
            "shoal.tls": "Tls",
            "shoal.views": "ChannelView ReplicaView",
            "shoal_balancer": (
                "AdaptiveLimit Canary Ejection FixedLimit KeyedPolicy LeastLoaded LeastReported "
                "LoadReport Locality Outcome PeakEwma Policy Random Rendezvous Replica "
                "RetryBudget RoundRobin SlowStart Status Subset VersionRange WeightedRandom "
                "WeightedRoundRobin"
            ),
        },
    )

__all__ = [
    "AdaptiveLimit",
    "Attempt",
    "Barrier",
    "BindError",
    "CallError",
    "Caller",
    "Canary",
    "Channel",
    "ChannelView",
    "Config",
    "ConfigConflictError",
    "ConfigError",
    "ConfigInvalidError",
    "Contract",
    "ContractError",
    "CoordinationError",
    "CoordinationTimeoutError",
    "Directory",
    "DirectoryClosedError",
    "DoubleBarrier",
    "DrainReport",
    "Ejection",
    "FixedLimit",
    "Group",
    "Hedge",
    "Hooks",
    "InstanceFormatError",
    "KeyFileError",
    "KeyFormatError",
    "KeyedPolicy",
    "Keys",
    "KeysUnknownError",
    "Leadership",
    "LeastLoaded",
    "LeastReported",
    "LoadReport",
    "LoadReporter",
    "Locality",
    "Lock",
    "LockError",
    "LockLostError",
    "LockTakenError",
    "LockTimeoutError",
    "MeetingPoint",
    "Member",
    "Outcome",
    "PeakEwma",
    "PeerIdentity",
    "Policy",
    "Random",
    "RegistrationError",
    "Rendezvous",
    "Replica",
    "ReplicaView",
    "Retry",
    "RetryBudget",
    "RoundRobin",
    "Server",
    "ShoalError",
    "ShoalForkError",
    "SignatureError",
    "Signer",
    "SlowStart",
    "Status",
    "Subset",
    "Term",
    "Tls",
    "TlsError",
    "Unfit",
    "VersionRange",
    "WeightedRandom",
    "WeightedRoundRobin",
    "peer_identity",
    "refuse",
    "refuse_aio",
    "replica_of",
    "report",
    "where",
]
