"""What of a submit is signed: bytes that both sides make of it by themselves. Pure.

Protobuf promises no canonical form, so there is one of our own: each part behind its length, in a
fixed order, and every field of the request is in one of them. A field that comes later needs
another domain, or a signature would not cover it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from shoal_gateway.convert import timestamp
from shoal_protos.gateway.api.v1 import api_pb2

if TYPE_CHECKING:
    from shoal.signing import Signer

# What a signature is for; it can't be shown as one for anything else.
DOMAIN = "shoal.gateway.submit.v1"


def signed_message(request: api_pb2.SubmitRequest, signed_at: Timestamp) -> bytes:
    """The bytes that a submit's signature is under.

    Args:
        request: The submit; its own signature does not matter.
        signed_at: When it is, or was, signed.
    """
    within = ""
    if request.HasField("start_within"):
        within = f"{request.start_within.seconds}.{request.start_within.nanos}"
    parameters = (part for pair in sorted(request.parameters.items()) for part in pair)
    inputs = (
        part
        for file in request.inputs
        for part in (file.name, file.object.key, file.object.sha256, str(file.object.size))
    )
    return _joined(
        [
            request.owner.encode(),
            request.idempotency_key.encode(),
            request.application.encode(),
            _digest(parameters),
            _digest(inputs),
            str(request.max_attempts).encode(),
            within.encode(),
            f"{signed_at.seconds}.{signed_at.nanos}".encode(),
        ]
    )


def sign(request: api_pb2.SubmitRequest, signer: Signer, now: float) -> None:
    """Puts a signature into a submit that is otherwise complete.

    Args:
        request: The submit.
        signer: The key.
        now: Seconds since 1970.
    """
    signed_at = timestamp(now)
    assert signed_at is not None  # noqa: S101 - it is of a number
    signature = signer.sign(DOMAIN, signed_message(request, signed_at))
    request.signature.CopyFrom(
        api_pb2.Signature(key_id=signer.id, signed_at=signed_at, signature=signature)
    )


def _digest(parts: Iterable[str]) -> bytes:
    return hashlib.sha256(_joined(part.encode() for part in parts)).digest()


def _joined(parts: Iterable[bytes]) -> bytes:
    return b"".join(len(part).to_bytes(4) + part for part in parts)
