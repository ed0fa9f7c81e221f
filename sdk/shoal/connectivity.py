"""The state of a sync channel's connection, without a thread for each channel.

grpcio's public way, ``Channel.subscribe``, polls on a thread of its own for every channel. The call
below it is not public; this module is the only one that knows it.
"""

from __future__ import annotations

from typing import Any

import grpc

_STATES = {state.value[0]: state for state in grpc.ChannelConnectivity}


def state_of(channel: grpc.Channel) -> grpc.ChannelConnectivity | None:
    """The connection's state now; None where this grpcio does not tell."""
    inner: Any = getattr(channel, "_channel", None)
    check = getattr(inner, "check_connectivity_state", None)
    if check is None:
        return None
    try:
        return _STATES.get(check(False))  # noqa: FBT003 - don't connect
    except ValueError:
        # grpcio's word for a channel that was closed meanwhile.
        return grpc.ChannelConnectivity.SHUTDOWN


def is_connected(channel: grpc.Channel) -> bool:
    """Whether the channel has a connection; True where that can't be told."""
    return state_of(channel) in (None, grpc.ChannelConnectivity.READY)
