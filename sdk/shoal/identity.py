"""Who a certificate is for: the names that services and users have in theirs.

The certificate of service ``registry`` carries the DNS name ``registry.shoal.internal``, and that
of user ``alice`` ``alice.users.shoal.internal``. No resolver ever sees these names. A caller
demands the service's name of whoever answers, whatever address was announced; a server reads its
caller's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

DOMAIN = "shoal.internal"
_USERS = "users"

_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """Who a certificate is for.

    Attributes:
        name: Of the service or the user: ``registry``, ``alice``.
        user: Whether it is a user, and not a service.
    """

    name: str
    user: bool = False

    def __str__(self) -> str:
        return f"{'user' if self.user else 'service'} '{self.name}'"

    def dns_name(self, domain: str = DOMAIN) -> str:
        """The name in the certificate.

        Raises:
            ValueError: the identity's own name can't be a part of it.
        """
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"{self.name!r} can't stand in a certificate: letters, digits, '-' and '_', at most"
                " 63 of them, a letter or digit first and last"
            )
        return ".".join((self.name, *((_USERS,) if self.user else ()), domain)).lower()


def server_name(service: str, domain: str = DOMAIN) -> str:
    """What the certificate of a service's servers must say: ``registry.shoal.internal``.

    Raises:
        ValueError: the service's name can't stand in a certificate.
    """
    return PeerIdentity(service).dns_name(domain)


def identity_in(names: Iterable[str], domain: str = DOMAIN) -> PeerIdentity | None:
    """Whose certificate has these DNS names; None where none of them is of the domain.

    >>> identity_in(["registry.shoal.internal"])
    PeerIdentity(name='registry', user=False)
    >>> identity_in(["alice.users.shoal.internal"]).user
    True
    """
    ending = f".{domain.lower()}"
    for name in names:
        below = name.lower().removesuffix(ending)
        first, *rest = below.split(".")
        if below != name.lower() and _NAME.fullmatch(first) and rest in ([], [_USERS]):
            return PeerIdentity(first, user=bool(rest))
    return None


def peer_identity(context: Any, domain: str = DOMAIN) -> PeerIdentity | None:
    """Who calls, as their certificate says.

    Args:
        context: A handler's, blocking or asyncio.
        domain: What the names of certificates end with.

    Returns:
        None where the caller showed no certificate, or one without a name in the domain. Whatever
        is returned was verified by the handshake.
    """
    names = context.auth_context().get("peer_dns", ())
    return identity_in((name.decode("ascii", "replace") for name in names), domain)
