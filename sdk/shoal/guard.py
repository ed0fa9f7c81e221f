"""Who may call a server, by the certificate that they showed."""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import grpc

from shoal.gate import HEALTH_SERVICE, Wrapped, behavior_of
from shoal.identity import peer_identity
from shoal.tls import Tls

# Answered to everybody with a certificate: whether it lives, and what it serves.
OPEN = (f"/{HEALTH_SERVICE}/", "/grpc.reflection.")


@dataclass(frozen=True, slots=True)
class Door:
    """Whom a server lets in.

    Attributes:
        services: By name, in small letters, as names stand in certificates.
        domain: What the names of certificates end with.
    """

    services: frozenset[str]
    domain: str

    @classmethod
    def of(cls, callers: Collection[str], tls: Tls | None) -> Door:
        """From a server's arguments.

        Raises:
            ValueError: nobody could be let in.
        """
        if tls is None:
            raise ValueError("callers are known by their certificates: give the server tls, too")
        if isinstance(callers, str):
            raise ValueError(f"callers are several names, like {{{callers!r}}}")  # noqa: TRY004
        return cls(frozenset(name.lower() for name in callers), tls.domain)

    def refusal(self, context: Any) -> str | None:
        """Why the caller is not let in; None when it is."""
        identity = peer_identity(context, self.domain)
        if identity is not None and not identity.user and identity.name in self.services:
            return None
        return f"{identity or 'a certificate that names nobody'} may not call this"


class Guard(grpc.ServerInterceptor):
    """For the blocking server.

    Args:
        door: Whom it lets in.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        # Within the gate, which heeds what can't be read.
        self._guarded = Wrapped(lambda handler: self._wrapped(behavior_of(handler)), heeds=False)

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Grpc's hook, once for each call."""
        method = handler_call_details.method
        handler = continuation(handler_call_details)
        if handler is None or method.startswith(OPEN):
            return handler
        return self._guarded.of(method, handler)

    def _wrapped(self, behavior: Any) -> Any:
        door = self._door

        @functools.wraps(behavior)
        def guarded(request: Any, context: Any, *rest: Any) -> Any:
            refusal = door.refusal(context)
            if refusal is not None:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal)
            return behavior(request, context, *rest)

        return guarded
