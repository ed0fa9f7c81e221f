"""Authorities and certificates that a test makes for itself."""

from __future__ import annotations

import time
from pathlib import Path

from shoal.authority import DAY, Authority
from shoal.identity import PeerIdentity
from shoal.tls import Tls


class Certificates:
    """An authority, and certificates made when they are asked for."""

    def __init__(self, place: Path) -> None:
        self.authority = Authority.create(place)

    def of(self, service: str) -> Tls:
        return Tls.of(self.authority.issue(PeerIdentity(service)))

    def user(self, name: str) -> Tls:
        return Tls.of(self.authority.issue(PeerIdentity(name, user=True)))

    def expired(self, service: str) -> Tls:
        """One that ended yesterday; nothing of ours would read it, so it takes care to be shown."""
        place = self.authority.issue(PeerIdentity(service), days=1.0, now=time.time() - 2 * DAY)
        return Tls.of(place)
