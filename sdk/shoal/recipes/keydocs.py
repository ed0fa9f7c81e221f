"""Public keys as they lie in ZooKeeper, and when each may be used. Pure.

``/keys/<owner>/<key id>`` holds a JSON object. The id is a digest of the key itself, so that no
other key can take its place, and the document only says from when until when it holds, and whether
it was revoked.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import Any

from shoal.errors import KeyFormatError

FORMAT = 1
ALGORITHM = "ed25519"
RAW_BYTES = 32
ID_DIGITS = 32
_ID = re.compile(rf"[0-9a-f]{{{ID_DIGITS}}}")


class Standing(enum.StrEnum):
    """What a key is good for at a moment."""

    VALID = "valid"
    EARLY = "not valid yet"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key of an owner's.

    Attributes:
        owner: Whose signatures it verifies.
        raw: The 32 bytes of an ed25519 public key.
        not_before: Seconds since 1970 from when on it holds.
        not_after: Seconds since 1970 until when; None: without an end.
        revoked_at: When it was revoked, seconds since 1970; None: it was not.
        why: It was revoked.
        comment: For people: which machine it is on.
    """

    owner: str
    raw: bytes
    not_before: float = 0.0
    not_after: float | None = None
    revoked_at: float | None = None
    why: str = ""
    comment: str = ""

    @property
    def id(self) -> str:
        """The key's name: a digest of it."""
        return key_id(self.raw)

    def standing(self, now: float) -> Standing:
        """Whether it holds at a time, in seconds since 1970.

        A revoked key never holds, whenever something was signed with it: whoever stole it writes
        any time into what it signs.
        """
        if self.revoked_at is not None:
            return Standing.REVOKED
        if now < self.not_before:
            return Standing.EARLY
        if self.not_after is not None and now >= self.not_after:
            return Standing.EXPIRED
        return Standing.VALID

    def ending(self, at: float) -> PublicKey:
        """The same, ending at a time, or before if it did already."""
        return replace(self, not_after=at if self.not_after is None else min(at, self.not_after))

    def revoked(self, at: float, why: str = "") -> PublicKey:
        """The same, revoked; what was said of an earlier revocation stays."""
        return self if self.revoked_at is not None else replace(self, revoked_at=at, why=why)


def key_id(raw: bytes) -> str:
    """The name of a key: the first 128 bits of a SHA-256 over it."""
    return hashlib.sha256(b"shoal key\0" + raw).hexdigest()[:ID_DIGITS]


def check_id(text: str) -> str:
    """Refuses what can't be a key's id.

    Raises:
        ValueError: says so.
    """
    if not _ID.fullmatch(text):
        raise ValueError(f"{text!r} is no key's id: {ID_DIGITS} digits of 0-9a-f")
    return text


def encode(key: PublicKey) -> bytes:
    """A key as the node's data."""
    document = {
        "format": FORMAT,
        "algorithm": ALGORITHM,
        "public": base64.b64encode(key.raw).decode(),
        "not_before": key.not_before,
        "not_after": key.not_after,
        "revoked_at": key.revoked_at,
        "why": key.why,
        "comment": key.comment,
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def decode(owner: str, name: str, data: bytes) -> PublicKey:
    """A node's data as a key.

    Whatever is not understood makes the key unusable, never more usable than it was meant.

    Raises:
        KeyFormatError: it is no key, or not the one that its name says; the message says why.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise KeyFormatError(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise KeyFormatError(f"a JSON object is needed, not {type(document).__name__}")
    kind = (document.get("format"), document.get("algorithm"))
    if kind != (FORMAT, ALGORITHM):
        raise KeyFormatError(f"format and algorithm must be {FORMAT} and {ALGORITHM}, not {kind}")
    raw = _raw(document.get("public"))
    if key_id(raw) != name:
        raise KeyFormatError(f"it holds the key {key_id(raw)}, which is not what its name says")
    return PublicKey(
        owner,
        raw,
        _time(document, "not_before") or 0.0,
        _time(document, "not_after"),
        _time(document, "revoked_at"),
        str(document.get("why") or ""),
        str(document.get("comment") or ""),
    )


def _raw(text: Any) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (TypeError, ValueError) as error:
        raise KeyFormatError(f"'public' must be base64, not {text!r}") from error
    if len(raw) != RAW_BYTES:
        raise KeyFormatError(f"'public' must be {RAW_BYTES} bytes, not {len(raw)}")
    return raw


def _time(document: dict[str, Any], name: str) -> float | None:
    value = document.get(name)
    if value is None:
        return None
    # A bound that can't be read must not count as none.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise KeyFormatError(f"{name!r} must be seconds since 1970 or null, not {value!r}")
    return float(value)
