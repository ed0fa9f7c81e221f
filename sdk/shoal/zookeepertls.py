"""ZooKeeper over TLS: its own certificate is demanded, and what is made belongs to its maker.

``tls://zk1:2281,zk2:2281/gateway`` stands for a ZooKeeper that demands certificates (its
``secureClientPort`` with ``ssl.clientAuth=need``). What a process makes there only others of the
same name may change, and whoever may connect can read (`ACL`): replicas of ``registry`` share
theirs. kazoo reads the files anew at each connect, so a renewed certificate needs no restart.
"""

from __future__ import annotations

import ssl
from typing import Any

from kazoo.client import KazooClient
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.security import ACL, ANYONE_ID_UNSAFE, Id, Permissions

from shoal.errors import CoordinationTimeoutError
from shoal.identity import DOMAIN, PeerIdentity, server_name
from shoal.tls import Tls

SCHEME = "tls://"
# The service whose certificate ZooKeeper's servers have.
SERVICE = "zookeeper"

READABLE = ACL(Permissions.READ, ANYONE_ID_UNSAFE)
# "auth" stands for whoever makes the node, as its certificate says.
OWN = (ACL(Permissions.ALL, Id("auth", "")), READABLE)


def settings(tls: Tls) -> dict[str, Any]:
    """For the constructor of a kazoo client."""
    return {
        "use_ssl": True,
        "certfile": str(tls.certificate),
        "keyfile": str(tls.key),
        "ca": str(tls.authorities),
        "verify_certs": True,
        "check_hostname": True,
        "default_acl": list(OWN),
    }


def context(tls: Tls) -> ssl.SSLContext:
    """For a plain connection to a server, whose name is to be demanded of it.

    Raises:
        OSError: a file can't be read or used.
    """
    made = ssl.create_default_context(cafile=str(tls.authorities))
    made.load_cert_chain(tls.certificate, tls.key)
    return made


def demand_name(handler: Any, domain: str = DOMAIN) -> None:
    """Has a kazoo handler demand ZooKeeper's name of whoever answers, whatever its address."""
    connect = handler.create_connection
    name = server_name(SERVICE, domain)

    def connect_to_zookeeper(*args: Any, **options: Any) -> Any:
        return connect(*args, **{**options, "hostname": name})

    handler.create_connection = connect_to_zookeeper


def client(servers: str, tls: Tls, timeout: float = 15.0) -> KazooClient:
    """A connected client of its own, for tools; to be stopped and closed.

    Raises:
        CoordinationTimeoutError: no server answered within ``timeout`` seconds.
    """
    handler = SequentialThreadingHandler()
    demand_name(handler, tls.domain)
    made = KazooClient(servers, handler=handler, **settings(tls))
    try:
        made.start(timeout)
    except handler.timeout_exception as error:
        made.stop()
        made.close()
        raise CoordinationTimeoutError(
            f"ZooKeeper at {servers} did not answer within {timeout:g} s: is it there, does it "
            f"speak TLS, and does it trust {tls.certificate}?"
        ) from error
    return made


def principal(identity: PeerIdentity, domain: str = DOMAIN) -> Id:
    """Who a certificate is for, as ZooKeeper's ACLs name it: its subject."""
    return Id("x509", f"CN={identity.dns_name(domain)}")
