"""What a token looks like: ``shoal_<id>_<secret>``. Pure but for the randomness of a new one.

The id finds the token where it is kept and may be shown; the secret has 32 random bytes. Only the
secret's SHA-256 leaves the process that reads a token, and only that is kept. Nothing slower is
needed: nobody guesses 256 bits.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from shoal_protos.gateway.model.v1 import account_pb2

ID_BYTES = 8
SECRET_BYTES = 32
DIGEST_BYTES = 32
# Where gRPC's callers put it.
METADATA_KEY = "authorization"
# Seconds that a token is good for unless somebody says otherwise, at least, and at most.
DEFAULT_VALID = 90 * 86400.0
VALID = (1.0, 10 * 366 * 86400.0)

_TOKEN = re.compile(r"shoal_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_SCHEME = re.compile(r"Bearer +(\S+)", re.IGNORECASE)

SCOPES: dict[str, int] = {
    "jobs:read": account_pb2.SCOPE_JOBS_READ,
    "jobs:write": account_pb2.SCOPE_JOBS_WRITE,
    "admin": account_pb2.SCOPE_ADMIN,
}
SCOPE_NAMES = {number: name for name, number in SCOPES.items()}


@dataclass(frozen=True, slots=True)
class Token:
    """A token as its bearer has it.

    Attributes:
        id: Finds it.
        digest: SHA-256 of its secret.
    """

    id: str
    digest: bytes
    text: str = field(default="", repr=False)


def new(random: Callable[[int], bytes] = secrets.token_bytes) -> Token:
    """A new token; its ``text`` is shown once and kept by nobody."""
    return _of(random(ID_BYTES).hex(), random(SECRET_BYTES))


def parse(text: str) -> Token | None:
    """A token out of its text; None when it is none."""
    found = _TOKEN.fullmatch(text)
    if found is None:
        return None
    secret = base64.urlsafe_b64decode(found[2] + "=")
    token = _of(found[1], secret)
    # 43 characters hold two bits more than 32 bytes: of the four texts for one secret one is ours.
    return token if token.text == text else None


def bearer(value: str) -> Token | None:
    """A token out of ``authorization: Bearer …``; None when there is none in it."""
    found = _SCHEME.fullmatch(value.strip())
    return parse(found[1]) if found else None


def _of(token_id: str, secret: bytes) -> Token:
    text = base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
    return Token(token_id, hashlib.sha256(secret).digest(), f"shoal_{token_id}_{text}")
