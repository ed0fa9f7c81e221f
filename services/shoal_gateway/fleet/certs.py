"""The certificates of a fleet: made by an authority of its own, or looked at where they are."""

from __future__ import annotations

import time
from pathlib import Path

from shoal import protection, zookeepertls
from shoal.errors import TlsError
from shoal.identity import PeerIdentity
from shoal.tls import AUTHORITIES, CERTIFICATE, KEY, Tls, check_service, files_of
from shoal_gateway.access import OPERATOR
from shoal_gateway.fleet.errors import FleetError
from shoal_gateway.fleet.layout import SERVICES

NEEDED = (*SERVICES, OPERATOR, zookeepertls.SERVICE)
# What has less of its life left is renewed.
FRESH = 1 / 3


def prepare(directory: Path) -> None:
    """Makes an authority, and a certificate for each service and the operator; renews old ones.

    Raises:
        FleetError: ``cryptography`` is not installed.
        TlsError: files can't be read or written.
    """
    try:
        from shoal.authority import Authority, described
    except ModuleNotFoundError as error:
        if error.name != "cryptography":
            raise
        raise FleetError(
            "certificates are made with cryptography: pip install 'shoal[certs]'"
        ) from error
    authority = Authority(directory)
    if not authority.exists:
        authority = Authority.create(directory)
    now = time.time()
    for name in NEEDED:
        place = directory / name
        if all((place / file).exists() for file in (CERTIFICATE, KEY, AUTHORITIES)):
            found = described(place)
            if found.not_after - now > FRESH * (found.not_after - found.not_before):
                continue
        authority.issue(PeerIdentity(name))


def check(directory: Path) -> None:
    """Looks whether all that a fleet needs is there and can be used.

    Raises:
        TlsError: it is not; says which file, and what to do.
    """
    for name in NEEDED:
        try:
            check_service(files_of(Tls.of(directory / name)), name)
        except TlsError as error:
            raise TlsError(
                f"{error}. A fleet needs certificates of {', '.join(NEEDED)}: `shoal certs issue "
                f"{directory} {' '.join(NEEDED)}`"
            ) from error


def protect(servers: str, chroot: str, directory: Path) -> None:
    """Lets each service write in ZooKeeper under its own name only.

    Args:
        servers: ZooKeeper's.
        chroot: The fleet's, in a ZooKeeper of its own.
        directory: The certificates.

    Raises:
        ShoalError: no server answered.
        KazooException: ZooKeeper refused something, or went away.
    """
    client = zookeepertls.client(servers, Tls.of(directory / OPERATOR))
    try:
        plan = protection.plan(chroot, SERVICES)
        protection.protect(client, plan)
        client.set_acls("/", list(plan.nodes[chroot]))
    finally:
        client.stop()
        client.close()
