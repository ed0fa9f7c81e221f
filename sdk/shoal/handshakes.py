"""What grpc's words for a failed TLS handshake mean, for whoever has to mend it."""

from __future__ import annotations

# What grpc writes when no connection came about.
_UNCONNECTED = "failed to connect to all addresses"

# Of grpc's words, all that must be there; what they mean. The first that fits counts.
_MEANINGS = (
    (
        ("Hostname Verification Check failed",),
        "its certificate is not that of service '{service}'",
    ),
    (("is not in peer certificate",), "its certificate is not that of service '{service}'"),
    (
        ("CERTIFICATE_VERIFY_FAILED", "expired"),
        "its certificate has expired",
    ),
    (
        ("CERTIFICATE_VERIFY_FAILED",),
        "its certificate is of no authority that this caller trusts",
    ),
    (("WRONG_VERSION_NUMBER",), "it speaks plain text at this port"),
    # The server's reason stays with the server: in TLS 1.3 it comes when we have no ear for it.
    (
        (_UNCONNECTED, "Socket closed"),
        "it ended the handshake: it may not take this caller's certificate (has it expired? does "
        "the replica trust its authority?)",
    ),
    (
        (_UNCONNECTED, "onnection reset"),
        "it ended the handshake: it may not take this caller's certificate (has it expired? does "
        "the replica trust its authority?)",
    ),
)


def explained(details: str, service: str) -> str:
    """The details of a failed call over TLS, with what they mean where that is known.

    >>> explained("... SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER ...", "jobs")[-40:]
    '(TLS: it speaks plain text at this port)'
    """
    for words, meaning in _MEANINGS:
        if all(word in details for word in words):
            return f"{details} (TLS: {meaning.format(service=service)})"
    return details
