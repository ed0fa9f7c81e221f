"""Who signed a submit, and whether that is enough."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from shoal.errors import KeysUnknownError, SignatureError
from shoal_gateway import validation as check
from shoal_gateway.convert import unix
from shoal_gateway.errors import InvalidError, UnauthenticatedError, UnavailableError
from shoal_gateway.signatures import DOMAIN, signed_message
from shoal_protos.gateway.api.v1 import api_pb2

# How far a signature's time may be from ours, seconds. What is sent again within it, or after it,
# is the same job: its idempotency key is signed too.
WINDOW = 300.0
SIGNATURE_BYTES = 64


class Verifier(Protocol):
    """What is needed of `shoal.Keys`."""

    def verify(
        self, owner: str, key_id: str, domain: str, message: bytes, signature: bytes
    ) -> object:
        """Makes sure that an owner signed a message."""


class Signers:
    """Judges submits by their signatures.

    Args:
        keys: The public keys; None where there are none: no signature can be verified.
        required: Whether an unsigned submit is refused.
        now: Seconds since 1970.
    """

    def __init__(
        self,
        keys: Verifier | None = None,
        *,
        required: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._required = required
        self._now = now

    def of(self, request: api_pb2.SubmitRequest, field: str = "") -> str:
        """Who signed a submit, as "owner/key id"; empty when nobody did and nobody had to.

        Args:
            request: The submit.
            field: Where it stands, for messages: ``requests[3].``.

        Raises:
            UnauthenticatedError: it is not signed and has to be, or its signature does not verify.
            InvalidError: the signature is none.
            UnavailableError: the keys are not known now.
        """
        if not request.HasField("signature"):
            if self._required:
                raise UnauthenticatedError(
                    f"{field}signature: this gateway takes signed jobs only; make a key with"
                    " `shoal keys new` and publish it with `shoal keys publish`"
                )
            return ""
        check.required(request.owner, f"{field}owner")
        signature = request.signature
        self._check(signature, f"{field}signature")
        if self._keys is None:
            raise UnauthenticatedError(
                f"{field}signature: this gateway can't verify signatures; install 'shoal[keys]' for"
                " its api, or submit without"
            )
        try:
            self._keys.verify(
                request.owner,
                signature.key_id,
                DOMAIN,
                signed_message(request, signature.signed_at),
                signature.signature,
            )
        except SignatureError as error:
            raise UnauthenticatedError(f"{field}signature: {error}") from error
        except KeysUnknownError as error:
            raise UnavailableError(f"{field}signature: {error}") from error
        return f"{request.owner}/{signature.key_id}"

    def of_all(self, request: api_pb2.SubmitManyRequest) -> list[str]:
        """Who signed each of many; one that may not pass refuses all.

        Raises:
            UnauthenticatedError: as `of`.
            InvalidError: likewise.
            UnavailableError: likewise.
        """
        return [self.of(each, f"requests[{n}].") for n, each in enumerate(request.requests)]

    def _check(self, signature: api_pb2.Signature, field: str) -> None:
        check.required(signature.key_id, f"{field}.key_id")
        if len(signature.signature) != SIGNATURE_BYTES:
            raise InvalidError(
                f"{field}.signature",
                f"has {len(signature.signature)} bytes; a signature has {SIGNATURE_BYTES}",
            )
        off = unix(signature.signed_at) - self._now()
        if not abs(off) <= WINDOW:
            raise UnauthenticatedError(
                f"{field}.signed_at: it was signed {abs(off):.0f} s"
                f" {'in the future' if off > 0 else 'ago'}, and {WINDOW:.0f} s are allowed: sign it"
                " anew, and look at both clocks"
            )
