"""Channels to one replica and no other: to look at it, not to be served."""

from __future__ import annotations

from dataclasses import replace

import grpc

from shoal import Replica, Tls
from shoal.security import Security

# A look that failed is told, not repeated.
OPTIONS = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]


def channel_to(service: str, replica: Replica, tls: Tls | None) -> grpc.Channel:
    """A channel to this very replica, which never hears of it as of a caller; to be closed.

    Args:
        service: Whose name its certificate must bear.
        replica: As it was announced.
        tls: Certificate and trusted authorities; None: it is called in plain text.

    Raises:
        TlsError: the certificate can't be used.
    """
    security = Security.of(service, tls, None)
    if security.credentials is None:
        return grpc.insecure_channel(replica.target, OPTIONS)
    if replica.ssl_port is not None:
        replica = replace(replica, port=replica.ssl_port)
    options = [*OPTIONS, *security.options]
    return grpc.secure_channel(replica.target, security.credentials(), options)
