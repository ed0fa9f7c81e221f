"""Which of a replica's ports a caller knocks at: the one that speaks as it does."""

from __future__ import annotations

import enum
from dataclasses import replace

from shoal_balancer import Replica


class Speaks(enum.Enum):
    """What a channel's connections speak."""

    PLAIN = "plain text"
    # With certificates on both sides.
    TLS = "TLS"
    # What the caller's own grpc credentials say; it may know of doors that nobody announced.
    OWN = "own credentials"


PLAIN_ONLY = (
    "speaks plain text only, and this caller calls nobody without TLS: give its server a "
    "certificate (shoal.Server(tls=...), --tls DIR)"
)
TLS_ONLY = (
    "speaks TLS only, and this caller has no certificate: give its directory one "
    "(shoal.Directory(tls=...), --tls DIR, SHOAL_TLS)"
)


def at_door(replica: Replica, speaks: Speaks) -> Replica:
    """The replica with the port that is called where both sides speak alike."""
    secure = replica.ssl_port
    if speaks is Speaks.PLAIN or secure is None or secure == replica.port:
        return replica
    return replace(replica, port=secure)


def shut(replica: Replica, speaks: Speaks) -> str | None:
    """Why there is no door for such a caller; None when there is one."""
    if speaks is Speaks.TLS and replica.ssl_port is None:
        return PLAIN_ONLY
    if speaks is Speaks.PLAIN and replica.ssl_port == replica.port:
        return TLS_ONLY
    return None
