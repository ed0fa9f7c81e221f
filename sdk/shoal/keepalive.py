"""Pings over connections that calls wait on: a peer that vanished without a word is noticed.

A call with a deadline ends by itself. A stream that follows something for hours has none, and where
the network forgot its connection (a firewall that restarted, a host that lost its power) nobody
ever says so. HTTP/2 pings find out (gRFC A8); but a gRPC server takes more than one in five minutes
for an attack and ends the connection (``ENHANCE_YOUR_CALM``), so a caller pings only the replicas
that announce how often they bear it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

Options = Sequence[tuple[str, Any]]

# The entry of a registration's metadata: seconds between two pings that the replica bears.
ENTRY = "keepalive"

# Shortest time between two pings that is not an attack, milliseconds.
_BEARS = "grpc.http2.min_recv_ping_interval_without_data_ms"

# How long the other end may take to answer a ping, milliseconds. The first name is the old one;
# since grpc#34647 grpc goes by the second, and would wait out its default of a minute.
_PATIENCE = {"grpc.keepalive_timeout_ms": 10_000, "grpc.http2.ping_timeout_ms": 10_000}

# A server bears pings, idle or not, and itself asks a caller that is silent for long, so that a
# stream to a host that is gone does not keep its handler for two hours.
SERVER: dict[str, Any] = {
    _BEARS: 5000,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.keepalive_time_ms": 30_000,
    **_PATIENCE,
}

# Pings more often than this are never sent, seconds.
_SHORTEST = 0.1


def announced(options: Options) -> dict[str, str]:
    """What a server with these options announces: twice what it bears, for clocks and queues."""
    bears = {**SERVER, **dict(options)}[_BEARS]
    return {ENTRY: f"{2.0 * bears / 1000.0:g}"}


def pings(metadata: Mapping[str, str]) -> dict[str, Any]:
    """A caller's channel options for a replica that announced this; none for one that did not."""
    every = 0.0
    with contextlib.suppress(ValueError):
        every = float(metadata.get(ENTRY, ""))
    if not _SHORTEST <= every < float("inf"):
        return {}
    return {
        "grpc.keepalive_time_ms": round(every * 1000.0),
        **_PATIENCE,
        # Else grpc stops after two while no data flows, which is when they are needed.
        "grpc.http2.max_pings_without_data": 0,
    }
