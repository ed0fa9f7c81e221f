"""The state of a sync channel's connection, without a thread for each channel.

grpcio's public way, ``Channel.subscribe``, polls on a thread of its own for every channel. The call
below it is not public; this module is the only one that knows it.
"""

from __future__ import annotations

from typing import Any

import grpc

_STATES = {state.value[0]: state for state in grpc.ChannelConnectivity}


def state_of(channel: grpc.Channel, *, connect: bool = False) -> grpc.ChannelConnectivity | None:
    """The connection's state now; None where this grpcio does not tell.

    Args:
        channel: To one replica.
        connect: Whether to begin to connect where there is no connection.
    """
    inner: Any = getattr(channel, "_channel", None)
    check = getattr(inner, "check_connectivity_state", None)
    if check is None:
        return None
    try:
        return _STATES.get(check(connect))
    except ValueError:
        # grpcio's word for a channel that was closed meanwhile.
        return grpc.ChannelConnectivity.SHUTDOWN
