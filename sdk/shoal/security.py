"""What a channel's connections speak, and with which certificate: from its arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from shoal.doors import Speaks
from shoal.identity import server_name
from shoal.tls import Tls, TlsFiles, files_of


@dataclass(frozen=True, slots=True)
class Security:
    """How a channel's connections are made.

    Attributes:
        speaks: What they speak.
        credentials: Makes the credentials of one; None for plaintext.
        options: Channel options that they need.
        files: Certificate and authorities, where they are ours.
    """

    speaks: Speaks
    credentials: Callable[[], grpc.ChannelCredentials] | None = None
    options: tuple[tuple[str, Any], ...] = ()
    files: TlsFiles | None = None

    @classmethod
    def of(
        cls, service: str, tls: Tls | None, credentials: grpc.ChannelCredentials | None
    ) -> Security:
        """From a channel's arguments.

        Raises:
            TlsError: the files of ``tls`` can't be used.
            ValueError: both are given, or the service's name can't stand in a certificate.
        """
        if tls is not None and credentials is not None:
            raise ValueError("give a channel tls or credentials, not both")
        if credentials is not None:
            given = credentials
            return cls(Speaks.OWN, lambda: given)
        if tls is None:
            return cls(Speaks.PLAIN)
        files = files_of(tls)
        return cls(
            Speaks.TLS,
            lambda: files.current().channel_credentials(),
            # Demanded whatever address is announced, so that nobody but the service can answer.
            (("grpc.ssl_target_name_override", server_name(service, tls.domain)),),
            files,
        )
