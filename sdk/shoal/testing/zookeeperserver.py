"""What a ZooKeeper server must be told to speak TLS, with clients and within its ensemble."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from shoal import zookeepertls
from shoal.identity import PeerIdentity, server_name
from shoal.tls import Tls

# Whose certificate may change every node, whatever its ACL.
OPERATOR = PeerIdentity("operator")
# Java's TLS wants key and certificate in one file.
STORE = "zookeeper.pem"


def lines(tls: Tls, place: Path) -> list[str]:
    """Lines of ``zoo.cfg``; writes the key and the certificate, as they are now, below ``place``.

    Names of hosts are not looked at: certificates name services. Clients demand ZooKeeper's.
    """
    store = place / STORE
    descriptor = os.open(store, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(tls.key.read_bytes() + tls.certificate.read_bytes())
    stores = {
        "keyStore.location": store,
        "keyStore.type": "PEM",
        "trustStore.location": tls.authorities,
        "trustStore.type": "PEM",
        "clientAuth": "need",
        "hostnameVerification": "false",
    }
    return [
        "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
        "authProvider.x509=org.apache.zookeeper.server.auth.X509AuthenticationProvider",
        "sslQuorum=true",
        *(f"ssl.{name}={value}" for name, value in stores.items()),
        *(f"ssl.quorum.{name}={value}" for name, value in stores.items()),
    ]


def properties(tls: Tls) -> list[str]:
    """For the command line of Java."""
    operator = zookeepertls.principal(OPERATOR, tls.domain).id
    return [f"-Dzookeeper.X509AuthenticationProvider.superUser={operator}"]


def wrapped(connection: socket.socket, tls: Tls) -> socket.socket:
    """A connection to such a server, after the handshake.

    Raises:
        OSError: it failed.
    """
    context = zookeepertls.context(tls)
    name = server_name(zookeepertls.SERVICE, tls.domain)
    try:
        return context.wrap_socket(connection, server_hostname=name)
    except BaseException:
        connection.close()
        raise
